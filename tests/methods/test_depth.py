"""Depth methods against the papers written out: loops in NumPy, layers deleted by hand, text read piece by piece."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from minigpt.errors import CorpusError, PlanError
from minigpt.methods.depth.greedy import greedy_halves, greedy_layers
from minigpt.methods.depth.loss import trial_losses
from minigpt.methods.depth.similarity import deepest_block, distances, least_influential, most_similar_block
from minigpt.transformer import stats
from minigpt.transformer.arch import decoder_layers
from minigpt.transformer.batches import Batch
from tests.support.archsuite import model_of, random_batch

FAMILIES = ("llama", "qwen3", "gemma3_text", "smollm3")
LAYERS = 6


def pieces(batch: Batch) -> list[torch.Tensor]:
    """Every piece of text by itself: int64 [1, n]."""
    found = []
    for ids, segments in zip(batch.input_ids, batch.segment_ids, strict=True):
        found += [ids[segments == segment][None] for segment in (1, 2)]
    return found


def states_of(model: Any, batch: Batch) -> list[list[np.ndarray]]:
    """For every piece the states before layer 0, 1 ... and after the last: float64 [n, hidden] each."""
    found = []
    for ids in pieces(batch):
        seen: list[np.ndarray] = []

        def before(_module: Any, args: Any, kwargs: Any, seen: list[np.ndarray] = seen) -> None:
            seen.append((args[0] if args else kwargs["hidden_states"])[0].double().numpy())

        def after(_module: Any, _args: Any, output: Any, seen: list[np.ndarray] = seen) -> None:
            seen.append((output[0] if isinstance(output, tuple) else output).view(len(seen[0]), -1).double().numpy())

        handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in model.model.layers]
        handles.append(model.model.layers[-1].register_forward_hook(after))
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
        for handle in handles:
            handle.remove()
        found.append(seen)
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("family", FAMILIES)
def test_block_influence_golden(family: str) -> None:
    """ShortGPT, eq. 1: token by token, and the lowest go."""
    model, batch = model_of(family, layers=LAYERS), random_batch()
    influence = []
    for layer in range(LAYERS):
        losses = [
            1 - cosine(x, y)
            for states in states_of(model, batch)
            for x, y in zip(states[layer], states[layer + 1], strict=True)
        ]
        influence.append(sum(losses) / len(losses))
    found = stats.collect(model, [batch]).layer_cos.tolist()
    assert found == pytest.approx(influence, rel=1e-3, abs=1e-5)
    for removed in (1, 2, 4):
        expected = sorted(np.argsort(influence)[:removed].tolist())
        assert list(least_influential(found, removed)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_angular_distance_golden(family: str) -> None:
    """Gromov et al., eq. 7: the last token of every piece, arccos over pi, averaged, and the argmin."""
    model, batch = model_of(family, layers=LAYERS), random_batch()
    ends = [[state[-1] for state in states] for states in states_of(model, batch)]
    found = stats.collect(model, [batch]).angular
    for block in range(1, LAYERS):
        expected = []
        for start in range(LAYERS + 1 - block):
            angles = [np.arccos(cosine(states[start], states[start + block])) / np.pi for states in ends]
            expected.append(sum(angles) / len(angles))
        assert distances(found, block) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        start = int(np.argmin(expected))
        assert most_similar_block(found, block) == tuple(range(start, start + block))


def test_identical_states_are_at_distance_zero() -> None:
    """A layer that does nothing is at distance 0, not at the square root of a rounding error."""
    model, batch = model_of("llama"), random_batch()
    with torch.no_grad():
        for path in ("self_attn.o_proj", "mlp.down_proj"):
            model.model.layers[2].get_submodule(path).weight.zero_()
    found = stats.collect(model, [batch])
    assert float(found.angular[2, 3]) < 1e-7
    assert least_influential(found.layer_cos.tolist(), 1) == (2,) == most_similar_block(found.angular, 1)


def test_protection_position_and_refusals() -> None:
    assert least_influential([0.0, 3.0, 1.0, 0.5], 2) == (0, 3)
    assert least_influential([0.0, 3.0, 1.0, 0.5], 2, protect=(0, -1)) == (1, 2)
    assert least_influential([1.0, 1.0, 1.0], 2) == (0, 1)
    assert deepest_block(6, 2) == (3, 4) and deepest_block(6, 0) == () and deepest_block(2, 1) == (0,)
    flat = torch.zeros(5, 5)
    assert most_similar_block(flat, 2) == (0, 1) and most_similar_block(flat, 0) == ()
    for call in (
        lambda: deepest_block(6, 6),
        lambda: most_similar_block(flat, 4),
        lambda: least_influential([1.0, 2.0], 1, protect=(0, 1)),
        lambda: deepest_block(6, -1),
    ):
        with pytest.raises(PlanError, match="layers cannot be removed"):
            call()


def without(model: Any, gone: tuple[int, ...]) -> Any:
    """A copy that really lacks some layers."""
    child = deepcopy(model)
    kept = [index for index in range(len(child.model.layers)) if index not in gone]
    child.model.layers = nn.ModuleList([child.model.layers[index] for index in kept])
    for config in (child.config, child.model.config):
        for name in ("layer_types", "no_rope_layers"):
            if getattr(model.config, name, None) is not None:
                setattr(config, name, [getattr(model.config, name)[index] for index in kept])
        config.num_hidden_layers = len(kept)
    return child


def plain_loss(model: Any, batch: Batch) -> float:
    """Cross-entropy from log-softmax, piece by piece."""
    total, count = 0.0, 0
    for ids in pieces(batch):
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0].double().numpy()
        for place in range(ids.shape[1] - 1):
            row = logits[place] - logits[place].max()
            total += float(np.log(np.exp(row).sum()) - row[ids[0, place + 1]])
            count += 1
    return total / count


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_layers_golden(family: str) -> None:
    """SLEB: at every step the layer goes whose deletion gives the lowest loss."""
    model, batch = model_of(family, layers=LAYERS), random_batch()
    gone: tuple[int, ...] = ()
    steps = greedy_layers(model, [batch], 3)
    for step in steps:
        losses = {
            layer: plain_loss(without(model, (*gone, layer)), batch)
            for layer in range(1, LAYERS - 1)
            if layer not in gone
        }
        assert step.loss == pytest.approx(losses[step.part[0]], rel=1e-4)
        assert losses[step.part[0]] == pytest.approx(min(losses.values()), rel=1e-5)
        gone = (*gone, step.part[0])
    assert len(gone) == 3


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen2"])
def test_greedy_halves_golden(family: str) -> None:
    """BlockPruner: a half whose output projection is zero adds nothing, and that is what skipping it measures."""
    model, batch = model_of(family), random_batch()
    step = greedy_halves(model, [batch], lambda gone: len(gone) == 1, protect=())[0]
    losses = {}
    for layer in range(4):
        for half, path in (("attention", "self_attn.o_proj"), ("ffn", "mlp.down_proj")):
            child = deepcopy(model)
            for parameter in child.model.layers[layer].get_submodule(path).parameters():
                parameter.data.zero_()
            losses[layer, half] = plain_loss(child, batch)
    assert step.part == min(losses, key=lambda part: losses[part])
    assert step.loss == pytest.approx(losses[step.part], rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_trials_start_in_the_middle_and_see_the_same(family: str) -> None:
    """What is shared between trials is what each would compute from the beginning, in batches of any shape."""
    model, batch = model_of(family, layers=LAYERS), random_batch(rows=3)
    halves = [Batch(**{k: getattr(batch, k)[part] for k in batch.__slots__}) for part in (slice(0, 1), slice(1, 3))]
    for gone in ((), (1,), (3, 1)):
        trials = [layer for layer in range(LAYERS) if layer not in gone]
        found = trial_losses(model, halves, [(g, "layer") for g in gone], [(layer, "layer") for layer in trials])
        expected = [plain_loss(without(model, (*gone, layer)), batch) for layer in trials]
        assert found == pytest.approx(expected, rel=1e-4)


def test_greedy_protects_the_ends_and_stops_in_time() -> None:
    model, batch = model_of("llama", layers=LAYERS), random_batch()
    assert {step.part[0] for step in greedy_layers(model, [batch], 4)} == {1, 2, 3, 4}
    with pytest.raises(PlanError, match="All 4 parts"):
        greedy_layers(model, [batch], 5)
    assert len(greedy_layers(model, [batch], 5, protect=())) == 5
    assert not any("forward" in vars(layer) for layer in decoder_layers(model))


def test_a_loss_that_overflows_is_the_worst() -> None:
    model, batch = model_of("llama"), random_batch()
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.fill_(float("inf"))
    assert greedy_layers(model, [batch], 1)[0].part == (2, "layer")


def test_padding_alone_is_refused() -> None:
    batch = random_batch()
    empty = Batch(input_ids=batch.input_ids, position_ids=batch.position_ids, segment_ids=batch.segment_ids * 0)
    with pytest.raises(CorpusError, match="no text"):
        trial_losses(model_of("llama"), [empty], (), [(1, "layer")])
