"""Least-squares repair: exact laws on random matrices, and on models that it must help and never break."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minigpt.errors import CorpusError
from minigpt.pruning.apply import apply_plan
from minigpt.pruning.leastsquares import default_ridge, repaired_columns, ridge_solution
from minigpt.pruning.repair import prune_with_repair
from minigpt.transformer.batches import Batch, run_decoder
from tests.support.archsuite import DENSE, FAMILIES, keep_all, logits, model_of, random_batch, some_plan

BATCHES = [random_batch(seed=seed, rows=4, length=48) for seed in range(6)]


def stream_error(parent: Any, child: Any, batch: Batch) -> float:
    """Mean squared distance of the final states of text positions."""
    with torch.no_grad():
        gap = run_decoder(parent, batch) - run_decoder(child, batch)
    return float(gap[batch.segment_ids != 0].square().mean())


def test_one_layer_form_golden() -> None:
    """Without a ridge it is numpy's least squares of the full output on the kept inputs."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(200, 6, generator=generator, dtype=torch.double), torch.randn(3, 6, generator=generator)
    kept = torch.tensor([0, 2, 5])
    expected = np.linalg.lstsq(x[:, kept].numpy(), (x @ w.T.double()).numpy(), rcond=None)[0].T
    np.testing.assert_allclose(repaired_columns(w, kept, x.T @ x, 0.0).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_keeping_every_column_is_the_identity() -> None:
    """Whatever the ridge: it pulls toward the weights that are there, not toward zero."""
    x, w = torch.randn(50, 4), torch.randn(3, 4)
    assert torch.equal(repaired_columns(w, torch.arange(4), x.T @ x, 0.5), w)


def test_a_large_ridge_keeps_the_original_columns() -> None:
    """The limit of no trust in the data is plain slicing."""
    x, w, kept = torch.randn(50, 4), torch.randn(3, 4), torch.tensor([1, 3])
    torch.testing.assert_close(repaired_columns(w, kept, x.T @ x, 1e9), w[:, kept])


def test_dead_and_duplicate_inputs_are_solved() -> None:
    """Singular Gram matrices: zero inputs give no correction, repeated ones a finite one."""
    assert torch.equal(ridge_solution(torch.ones(2, 3), torch.zeros(3, 3), 0.01), torch.zeros(2, 3))
    column = torch.randn(20, 1)
    twice = torch.cat([column, column], dim=1)
    assert bool(ridge_solution(torch.ones(2, 2), twice.T @ twice, 0.0).isfinite().all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("target", ["output", "stream"])
def test_sequential_keep_all_refits_to_the_same_weights(family: str, target: Any) -> None:
    """With no layer, neuron or group removed every gap is zero; the last layer goes, to get past the short cut."""
    model = model_of(family)
    everything = keep_all(model)
    units = {name: getattr(everything, name)[:3] for name in ("layers", "ffn", "kv_groups", "experts")}
    plan = replace(everything, **units)
    expected = apply_plan(deepcopy(model), plan).state_dict()
    child, report = prune_with_repair(model, plan, BATCHES[:1], target=target)
    for name, value in child.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)
    assert max(report.ffn_before + report.attention_before) < 1e-8


def test_keep_all_changes_no_byte() -> None:
    """The identity plan needs no text."""
    model = model_of("llama")
    before = deepcopy(model.state_dict())
    child, report = prune_with_repair(model, keep_all(model), [])
    assert all(torch.equal(before[name], value) for name, value in child.state_dict().items())
    assert report.tokens == 0 and report.ffn_after == ()


@pytest.mark.parametrize("family", DENSE)
@pytest.mark.parametrize("sequential", [True, False])
def test_repair_beats_plain_slicing(family: str, sequential: bool) -> None:
    """On the calibration text the repaired network stays nearer to the parent, by stock classes' shapes."""
    parent = model_of(family)
    plan = some_plan(parent, layers=(0, 1, 2, 3), neurons=48, groups=2)
    sliced = apply_plan(deepcopy(parent), plan)
    child, report = prune_with_repair(deepcopy(parent), plan, BATCHES, sequential=sequential, ridge=1e-3)
    assert {name: value.shape for name, value in child.state_dict().items()} == {
        name: value.shape for name, value in sliced.state_dict().items()
    }
    assert child.config.to_dict() == sliced.config.to_dict()
    whole = [stream_error(parent, model, BATCHES[0]) for model in (sliced, child)]
    assert whole[1] < 0.9 * whole[0]
    assert all(after <= before + 1e-6 for before, after in zip(report.ffn_before, report.ffn_after, strict=True))
    assert len(report.ffn_after) == len(report.attention_after) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_are_cut_on_the_way(family: str) -> None:
    """A cut attention runs before the config has its new width; the result has the shapes of plain cutting."""
    parent = model_of(family)
    plan = some_plan(parent, layers=(0, 2, 3))
    sliced = apply_plan(deepcopy(parent), plan)
    child, report = prune_with_repair(deepcopy(parent), plan, BATCHES[:1])
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (child, sliced)]
    assert shapes[0] == shapes[1] and child.config.to_dict() == sliced.config.to_dict()
    assert sum(report.attention_after) < sum(report.attention_before)


def test_reported_error_is_the_error_of_the_model() -> None:
    """The last layer's error, from Gram matrices, equals the error measured by running both networks."""
    parent = model_of("llama")
    plan = some_plan(parent, layers=(0, 1, 2, 3), neurons=40, groups=1)
    child, report = prune_with_repair(deepcopy(parent), plan, BATCHES, target="output")
    seen: dict[str, list[torch.Tensor]] = {"parent": [], "child": []}
    for name, model in (("parent", parent), ("child", child)):
        rows = seen[name]
        for batch in BATCHES:
            keep = batch.segment_ids != 0
            handle = model.model.layers[3].mlp.down_proj.register_forward_hook(
                lambda m, a, o, rows=rows, keep=keep: rows.append(o[keep])
            )
            with torch.no_grad():
                run_decoder(model, batch)
            handle.remove()
    wanted, got = torch.cat(seen["parent"]), torch.cat(seen["child"])
    expected = float((wanted - got).square().sum() / wanted.square().sum())
    assert report.ffn_after[3] == pytest.approx(expected, rel=1e-3)


def test_padding_does_not_count() -> None:
    """More padding, other batches: the same weights."""
    plan = some_plan(model_of("llama"))
    one = Batch(**{k: torch.cat([getattr(b, k) for b in BATCHES[:2]]) for k in BATCHES[0].__slots__})
    padded = Batch(**{k: torch.nn.functional.pad(getattr(one, k), (0, 7)) for k in one.__slots__})
    first, report = prune_with_repair(model_of("llama"), plan, BATCHES[:2])
    second, _ = prune_with_repair(model_of("llama"), plan, [padded])
    assert report.tokens == 2 * 4 * 45
    ids = BATCHES[0].input_ids
    torch.testing.assert_close(logits(first, ids), logits(second, ids), rtol=1e-2, atol=1e-2)


def test_stream_target_corrects_for_dropped_layers() -> None:
    """With a layer gone, fitting the parent's residual stream lands nearer to it than fitting outputs."""
    parent = model_of("llama")
    plan = some_plan(parent, layers=(0, 2, 3), neurons=64, groups=2)
    errors = {}
    for target in ("output", "stream"):
        child, report = prune_with_repair(deepcopy(parent), plan, BATCHES, target=target)
        errors[target] = stream_error(parent, child, BATCHES[0])
        assert report.target == target
    assert errors["stream"] < errors["output"]


def test_sample_size_is_kept_and_reported() -> None:
    """`max_tokens` uses whole windows from the front."""
    model = model_of("llama")
    _, report = prune_with_repair(model, some_plan(model), BATCHES, max_tokens=100)
    assert report.tokens == 3 * 45 and report.tokens_per_neuron == pytest.approx(3 * 45 / 32)


def test_no_text_is_refused_and_nothing_leaks() -> None:
    """A failure leaves no replaced forward and no hook behind."""
    model = model_of("llama")
    with pytest.raises(CorpusError, match="no text"):
        prune_with_repair(model, some_plan(model), [])
    for module in model.modules():
        assert "forward" not in vars(module) and not module._forward_hooks


def test_repaired_model_trains() -> None:
    """No weight was made under inference mode."""
    child, _ = prune_with_repair(model_of("qwen3"), some_plan(model_of("qwen3")), BATCHES[:1])
    child(input_ids=BATCHES[0].input_ids, labels=BATCHES[0].input_ids).loss.backward()
    assert child.model.layers[0].self_attn.o_proj.weight.grad is not None


def test_default_ridge_does_not_overfit_small_samples() -> None:
    """On unseen inputs the default helps with 2 rows a column, where a small ridge does harm, and with many."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(8, 40, generator=generator) * 0.3
    weight, kept = torch.randn(10, 40, generator=generator), torch.arange(28)

    def sample(rows: int) -> torch.Tensor:
        shared = torch.randn(rows, 8, generator=generator) @ mixing
        return shared + torch.randn(rows, 40, generator=generator)

    unseen = sample(4000)

    def error(columns: torch.Tensor) -> float:
        return float((unseen @ weight.T - unseen[:, kept] @ columns.T).square().mean())

    for rows in (56, 2000):
        x = sample(rows)
        fitted = error(repaired_columns(weight, kept, x.T @ x, default_ridge(len(kept), rows)))
        assert fitted < error(weight[:, kept])
        if rows == 56:
            assert error(repaired_columns(weight, kept, x.T @ x, 0.001)) > error(weight[:, kept])
    assert default_ridge(1000, 10**7) == 0.01 and default_ridge(1000, 0) == 3.0
