"""The depth methods through the table: chosen as the papers say, and what is left loads in stock classes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from minigpt.errors import PlanError
from minigpt.methods import METHODS, resolve
from minigpt.methods.depth.collapse import collapsed, folded, mean_cosine, outputs, search, walk
from minigpt.methods.material import Material, gather
from minigpt.methods.ranking import choose
from minigpt.methods.searches import Searches
from minigpt.pruning.apply import apply_plan, mask_plan
from minigpt.pruning.repair import prune_with_repair
from minigpt.transformer import arch
from minigpt.transformer.arch import shape_of
from minigpt.types import PrunePlan
from tests.methods.test_depth import pieces, plain_loss, without
from tests.support.archsuite import logits, model_of, random_batch

DEPTH = ("shortgpt", "deeper-layers", "deepest", "greedy-blocks", "laco")
FAMILIES = ("llama", "qwen3", "gemma3_text", "smollm3")
LAYERS = 6
IDS = random_batch(pad=0).input_ids
Weights = dict[str, torch.Tensor]


def material(model: Any, **changes: Any) -> Material:
    return gather(model, [random_batch()], **changes)


def planned(name: str, model: Any, layers: int) -> PrunePlan:
    shape = replace(shape_of(model), layers=layers)
    return choose(METHODS[name], material(model), shape, None, base_model="tiny")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", DEPTH)
def test_what_is_left_loads_and_generates(name: str, family: str, tmp_path: Path) -> None:
    """Fewer layers in stock classes: numbered again, per-layer lists cut, same text with a cache after a round trip."""
    model = model_of(family, layers=LAYERS)
    before = deepcopy(model)
    plan = planned(name, model, 4)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True))
    assert len(plan.layers) == 4 and set(plan.layers) <= set(range(LAYERS))
    assert {len(row) for row in plan.ffn} == {64} and {len(row) for row in plan.kv_groups} == {2}
    child = apply_plan(model, plan)
    for field in arch.arch_of(before).per_layer:
        kept = [getattr(before.config, field)[index] for index in plan.layers]
        assert getattr(child.config, field) == kept
    child.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert shape_of(loaded).layers == 4 and [layer.self_attn.layer_idx for layer in child.model.layers] == [0, 1, 2, 3]
    torch.testing.assert_close(logits(loaded, IDS), logits(child, IDS), rtol=1e-5, atol=1e-5)
    kwargs = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(loaded.generate(IDS[:1], **kwargs), child.generate(IDS[:1], **kwargs))
    if not plan.merges:
        gone = tuple(index for index in range(LAYERS) if index not in plan.layers)
        torch.testing.assert_close(logits(child, IDS), logits(without(before, gone), IDS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
def test_choices_of_the_similarity_methods(family: str) -> None:
    """A layer that does nothing is the first to go; `deepest` looks at nothing."""
    model = model_of(family, layers=LAYERS)
    with torch.no_grad():
        for index in (1, 4):
            for path in ("self_attn.o_proj", "mlp.down_proj"):
                model.model.layers[index].get_submodule(path).weight.zero_()
    assert planned("shortgpt", model, 4).layers == (0, 2, 3, 5)
    assert planned("deeper-layers", model, 5).layers == (0, 2, 3, 4, 5)
    assert planned("deepest", model, 3).layers == (0, 1, 5)
    assert planned("deepest", model, 6).layers == tuple(range(6))


def linears(state: Weights, layer: int) -> list[str]:
    return [name for name in state if name.startswith(f"model.layers.{layer}.") and name.count("_proj")]


def fold_by_hand(state: Weights, host: int, followers: list[int]) -> Weights:
    """LaCo, eq. 1, name by name."""
    changed = dict(state)
    for name in linears(state, host):
        theta = state[name].double()
        total = theta.clone()
        for follower in followers:
            total += state[name.replace(f"layers.{host}.", f"layers.{follower}.")].double() - theta
        changed[name] = total.float()
    return changed


def laco_by_hand(model: Any, threshold: float, combined: int, interval: int) -> tuple[list[int], Weights]:
    """Algorithm 1 with whole copies of the model, no limit on what goes."""
    batch = random_batch()

    def cosines(candidate: Any) -> float:
        found = []
        for ids in pieces(batch):
            with torch.no_grad():
                ours, theirs = (
                    m.model(input_ids=ids, use_cache=False).last_hidden_state.flatten() for m in (candidate, model)
                )
            found.append(float(ours @ theirs / (ours.norm() * theirs.norm())))
        return sum(found) / len(found)

    def build(state: Weights, stack: list[int]) -> Any:
        child = deepcopy(model)
        child.load_state_dict(state, strict=False)
        return without(child, tuple(index for index in range(LAYERS) if index not in stack))

    state, stack = dict(model.state_dict()), list(range(LAYERS))
    place = LAYERS - combined
    while place >= 1:
        followers = stack[place + 1 : place + combined]
        trial = fold_by_hand(state, stack[place], followers)
        left = [layer for layer in stack if layer not in followers]
        if followers and cosines(build(trial, left)) > threshold:
            state, stack = trial, left
            place -= interval
            if place > len(stack) - combined:
                place = len(stack) - combined
        else:
            place -= 1
    return stack, state


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("combined", "interval"), [(2, 1), (3, 1)])
def test_laco_golden(family: str, combined: int, interval: int) -> None:
    """The same folds and the same weights as whole copies of the model give, folds of folds included."""
    model = model_of(family, layers=LAYERS)
    dense = outputs(model, [random_batch()])

    def similarity(merges: tuple[tuple[int, ...], ...]) -> float:
        with collapsed(model, merges):
            return mean_cosine(dense, outputs(model, [random_batch()]))

    threshold = similarity(((1, *range(2, 1 + combined)),)) - 1e-3
    merges = walk(LAYERS, similarity, threshold, combined=combined, interval=interval)
    stack, state = laco_by_hand(model, threshold, combined, interval)
    kept = tuple(index for index in range(LAYERS) if index not in folded(merges))
    assert merges and kept == tuple(stack)
    plan = replace(planned("deepest", model, len(kept)), layers=kept, merges=merges)
    child = apply_plan(model, plan)
    for place, index in enumerate(kept):
        for name in linears(state, index):
            ours = child.state_dict()[name.replace(f"layers.{index}.", f"layers.{place}.")]
            torch.testing.assert_close(ours, state[name], rtol=1e-5, atol=1e-5)


def test_laco_reaches_the_number_asked_for_at_the_highest_threshold() -> None:
    model = model_of("llama", layers=LAYERS)
    for removed in (1, 2, 3):
        found = search(model, [random_batch()], removed)
        assert len(found.layers) == LAYERS - removed and 0 in found.layers
        assert found.similarity > found.threshold

        def similarity(merges: tuple[tuple[int, ...], ...]) -> float:
            dense = outputs(model, [random_batch()])
            with collapsed(model, merges):
                return mean_cosine(dense, outputs(model, [random_batch()]))

        higher = walk(LAYERS, similarity, found.threshold + 2**-5, removed=removed)
        assert len(folded(higher)) < removed
    with pytest.raises(PlanError, match="cannot fold 6"):
        search(model, [random_batch()], 6)


def test_folds_of_folds_start_from_the_folded_weights() -> None:
    """(2, 3) and then (1, 2): layer 1 takes up what 3 does differently from 2, too."""
    weights = {0: 0.0, 1: 1.0, 2: 10.0, 3: 100.0}
    model = model_of("llama")
    with torch.no_grad():
        for index, value in weights.items():
            model.model.layers[index].mlp.down_proj.weight.fill_(value)
    plan = replace(planned("deepest", model, 2), layers=(0, 1), merges=((2, 3), (1, 2)))
    child = apply_plan(model, plan)
    assert child.model.layers[1].mlp.down_proj.weight[0, 0].item() == 1 + ((10 + (100 - 10)) - 1)


def test_merges_are_refused_where_they_cannot_be_carried_out() -> None:
    model = model_of("llama")
    plan = replace(planned("deepest", model, 2), layers=(0, 1), merges=((1, 2, 3),), method="laco")
    with pytest.raises(PlanError, match="cannot be repaired"):
        prune_with_repair(model, plan, [random_batch()])
    with pytest.raises(PlanError, match="cannot be masked"), mask_plan(model, plan):
        pass


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen2"])
def test_blockpruner_in_memory(family: str) -> None:
    """Halves go until the size is met; what is evaluated is the model without them, also when it generates."""
    model = model_of(family, layers=LAYERS)
    total = sum(p.numel() for p in model.parameters())
    half = sum(p.numel() for p in model.model.layers[1].mlp.parameters())
    paper_form = resolve(METHODS["greedy-blocks"].paper_form or "")(material(model), total - 2 * half)
    assert total - 4 * half < paper_form.parameters <= total - 2 * half
    assert paper_form.parameters == sum(p.numel() for p in paper_form.model.parameters())
    gone = [(i, half) for half in ("ffn", "kv_groups") for i, kept in enumerate(paper_form.kept[half]) if kept == 0]
    assert gone and not {0, LAYERS - 1} & {index for index, _ in gone}
    twin = model_of(family, layers=LAYERS)
    for index, kind in gone:
        path = "mlp.down_proj" if kind == "ffn" else "self_attn.o_proj"
        for parameter in twin.model.layers[index].get_submodule(path).parameters():
            parameter.data.zero_()
    assert plain_loss(paper_form.model, random_batch()) == pytest.approx(plain_loss(twin, random_batch()), rel=1e-5)
    kwargs = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(paper_form.model.generate(IDS[:1], **kwargs), twin.generate(IDS[:1], **kwargs))


@pytest.mark.parametrize("form", ["layers", "halves"])
def test_a_search_goes_on_where_a_larger_size_stopped(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of removal does not depend on the size: a smaller one adds steps, a larger one needs none."""
    from minigpt.methods.depth import greedy

    original, trials = greedy.trial_losses, list[int]()

    def counted(model: Any, batches: Any, gone: Any, parts: Any) -> list[float]:
        trials.append(len(parts))
        return original(model, batches, gone, parts)

    monkeypatch.setattr(greedy, "trial_losses", counted)
    before = arch.parameters_of(model_of("llama", layers=LAYERS))

    def removed(share: float, searches: Searches) -> Any:
        asked = material(model_of("llama", layers=LAYERS), searches=searches)
        if form == "layers":
            return resolve(METHODS["greedy-blocks"].layers or "")(asked, round(LAYERS * (1 - share)))
        return resolve(METHODS["greedy-blocks"].paper_form or "")(asked, round(before * (1 - share))).kept

    fresh = {share: removed(share, Searches()) for share in (1 / 6, 0.5)}
    trials.clear()
    searches = Searches(tmp_path / "searches")
    assert removed(1 / 6, searches) == fresh[1 / 6]
    first = len(trials)
    assert removed(0.5, searches) == fresh[0.5]
    assert len(trials) > first and trials == sorted(trials, reverse=True) and len(set(trials)) == len(trials)
    done = len(trials)
    assert removed(1 / 6, searches) == fresh[1 / 6] and removed(0.5, searches) == fresh[0.5]
    assert len(trials) == done
