"""Four-bit rounding: ggml's grid, never worse than plain rounding, and statistics of the right inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from minigpt.errors import CorpusError
from minigpt.exporting.rounding import (
    gram_matrices,
    matrices_by_input,
    round_compensated,
    round_matrices,
    round_nearest,
    round_searched,
    row_errors,
)
from minigpt.exporting.rounding.model import matrix_names, matrix_of
from minigpt.transformer.batches import Batch, run_decoder
from tests.support.archsuite import EXPERTS, FAMILIES, STATES, random_batch
from tests.support.tiny import tiny_model

Q4 = GGMLQuantizationType.Q4_0


def correlated(rows: int = 48, columns: int = 128, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix and the Gram matrix of inputs whose columns move together."""
    torch.manual_seed(seed)
    inputs = torch.randn(600, columns) @ torch.randn(columns, columns) * torch.rand(columns)
    return torch.randn(rows, columns) * torch.rand(rows, 1), inputs.T @ inputs / len(inputs)


def test_plain_rounding_is_ggmls_own():
    weight, _ = correlated()
    expected = dequantize(quantize(weight.numpy(), Q4), Q4)
    assert np.array_equal(round_nearest(weight).values().numpy(), expected)


@pytest.mark.parametrize("value", [0.0, 1.5, -1.5])
def test_constant_blocks_survive(value: float):
    weight = torch.full((2, 64), value)
    for rounded in (round_nearest(weight), round_searched(weight), round_compensated(weight, torch.eye(64))):
        assert torch.allclose(rounded.values(), weight, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_searched_block_is_never_worse_in_its_weighted_error(seed: int):
    weight, gram = correlated(seed=seed)
    importance = gram.diagonal()

    def errors(values: torch.Tensor) -> torch.Tensor:
        return (importance * (weight - values).square()).unflatten(1, (-1, 32)).sum(-1)

    plain, searched = errors(round_nearest(weight).values()), errors(round_searched(weight, importance).values())
    assert (searched <= plain * (1 + 1e-5)).all()
    assert searched.sum() < 0.95 * plain.sum()


def test_search_finds_the_best_scale_of_a_grid_it_can_be_checked_on():
    torch.manual_seed(1)
    weight, importance = torch.randn(1, 32), torch.rand(32) + 0.1
    scales = torch.linspace(-0.6, 0.6, 4801).half().float()
    scales = scales[scales != 0]
    codes = (weight / scales.unsqueeze(1)).round().clamp(-8, 7)
    brute = (importance * (weight - codes * scales.unsqueeze(1)).square()).sum(1).min()
    searched = (importance * (weight - round_searched(weight, importance).values()).square()).sum()
    assert searched <= 1.03 * brute


@pytest.mark.parametrize("seed", range(3))
def test_compensation_is_never_worse_in_the_error_of_the_outputs(seed: int):
    weight, gram = correlated(seed=seed)
    both = (round_nearest(weight), round_compensated(weight, gram))
    plain, compensated = (row_errors(weight, rounded, gram) for rounded in both)
    assert (compensated <= plain * (1 + 1e-5)).all()
    assert compensated.sum() < 0.7 * plain.sum()


def test_output_errors_are_those_of_the_outputs():
    torch.manual_seed(0)
    weight, inputs = torch.randn(4, 64), torch.randn(50, 64)
    rounded = round_nearest(weight)
    written_out = (inputs @ (weight - rounded.values()).T).square().mean(0)
    assert torch.allclose(row_errors(weight, rounded, inputs.T @ inputs / 50), written_out, rtol=1e-4)


def test_compensation_without_correlation_is_a_search_on_its_own():
    weight, _ = correlated()
    compensated = round_compensated(weight, torch.eye(weight.shape[1]))
    assert torch.equal(compensated.values(), round_searched(weight).values())


def test_a_dead_input_does_not_stop_compensation():
    weight, gram = correlated()
    gram[5], gram[:, 5] = 0, 0
    assert torch.isfinite(round_compensated(weight, gram).values()).all()


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_gram_matrices_are_those_of_the_inputs(family: str):
    model = tiny_model(family, layers=2)
    ids = torch.randint(3, 512, (2, 12))
    segments = torch.ones_like(ids)
    segments[1, 8:] = 0
    positions = torch.arange(12).expand(2, 12)
    grams = gram_matrices(model, [Batch(input_ids=ids, position_ids=positions, segment_ids=segments)])
    seen: dict[str, torch.Tensor] = {}
    for name in ("self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        module = model.get_submodule(f"model.layers.1.{name}")
        module.register_forward_pre_hook(lambda _m, args, name=name: seen.__setitem__(name, args[0]))
    with torch.no_grad():
        model(ids)
    for name, inputs in seen.items():
        rows = torch.cat([inputs[0], inputs[1, :8]])
        assert torch.allclose(grams[f"model.layers.1.{name}.weight"], rows.T @ rows / 20, atol=1e-4), name
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim == 2 and "embed" not in name}
    assert set(grams) == matrices


def test_inputs_of_transposed_matrices_are_measured_where_they_are_wanted() -> None:
    """GPT-2 stores [inputs, outputs]; pruning reads rows of inputs only, rounding turns the matrices round."""
    model, batch = tiny_model("gpt2", layers=1), random_batch()
    assert not gram_matrices(model, [batch])
    grams = gram_matrices(model, [batch], transposed=True)
    assert {name.removeprefix("transformer.h.0.") for name in grams} == {
        "attn.c_attn.weight",
        "attn.c_proj.weight",
        "mlp.c_fc.weight",
        "mlp.c_proj.weight",
    }
    for name, gram in grams.items():
        assert matrix_of(model, name).shape[1] == len(gram)


@pytest.mark.parametrize("family", [*FAMILIES, *STATES])
def test_only_matrices_that_are_there_are_grouped(family: str) -> None:
    """Layers with experts have no FFN, and layers with a state no attention; each matrix has one upright form."""
    model = tiny_model(family, layers=2)
    groups = matrices_by_input(model, transposed=True)
    known = dict(model.named_parameters())
    grouped = [name for names in groups.values() for name in names]
    everything = list(matrix_names(model))
    assert set(grouped) <= set(known) and set(grouped) <= set(everything)
    assert family in STATES or any("attn" in name or "attention" in name for name in grouped)
    assert len(set(everything)) == len(everything)
    whole = [known[name] for name in everything if "[" not in name]
    assert all(matrix_of(model, name).ndim == 2 for name in everything)
    stacks = {name.partition("[")[0] for name in everything if "[" in name}
    assert bool(stacks) == (family in EXPERTS)
    numbers = sum(matrix_of(model, name).numel() for name in everything)
    assert numbers == sum(values.numel() for values in [*whole, *(known[name] for name in stacks)])


def test_experts_stand_upright_however_they_are_stored() -> None:
    """gpt-oss stores [inputs, outputs], Mixtral [outputs, inputs]."""
    for family, turned in (("gpt_oss", True), ("mixtral", False)):
        model = tiny_model(family, layers=1)
        stored = model.get_parameter("model.layers.0.mlp.experts.down_proj")[3]
        assert torch.equal(matrix_of(model, "model.layers.0.mlp.experts.down_proj[3]"), stored.T if turned else stored)


def test_matrices_with_one_input_are_rounded_as_if_alone():
    (first, gram), (second, other) = correlated(), correlated(seed=1)
    weights = {"a": first, "b": second[:16], "c": second}
    grams = {"a": gram, "b": gram, "c": other}
    threads = torch.get_num_threads()
    rounded, error_ratio = round_matrices(weights, grams)
    assert torch.get_num_threads() == threads
    errors = {"rounded": 0.0, "plain": 0.0}
    for name, weight in weights.items():
        alone = round_compensated(weight, grams[name])
        assert torch.equal(rounded[name].scales, alone.scales) and torch.equal(rounded[name].codes, alone.codes)
    for names in (("a", "b"), ("c",)):
        whole, shared = torch.cat([weights[name] for name in names]), grams[names[0]]
        outputs = torch.einsum("ri,ij,rj->", whole, shared, whole)
        for kind, values in (
            ("rounded", torch.cat([rounded[name].values() for name in names])),
            ("plain", round_nearest(whole).values()),
        ):
            gap = whole - values
            errors[kind] += float(torch.einsum("ri,ij,rj->", gap, shared, gap) / outputs)
    assert error_ratio == pytest.approx(errors["rounded"] / errors["plain"], rel=1e-3)


def test_many_rows_in_parts_are_as_one():
    torch.manual_seed(0)
    weight, (_, gram) = torch.randn(1000, 64), correlated(columns=64)
    errors = [
        row_errors(weight[rows], round_compensated(weight[rows], gram), gram)
        for rows in (slice(None), slice(950, None))
    ]
    assert len(errors[0]) == 1000
    assert torch.allclose(errors[0][950:].mean(), errors[1].mean(), rtol=0.02)


def test_no_text_is_an_error():
    empty = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(CorpusError, match="no text"):
        gram_matrices(tiny_model(layers=1), [Batch(input_ids=empty, position_ids=empty, segment_ids=empty)])


def test_a_layer_alone_is_measured_as_among_all_by_whatever_runs_it() -> None:
    model, batch = tiny_model(layers=3), random_batch()
    whole, numbers = gram_matrices(model, [batch, batch]), list[int]()

    def run(number: int) -> None:
        numbers.append(number)
        run_decoder(model, batch)

    alone = gram_matrices(model, [batch, batch], layer=1, run=run)
    assert numbers == [0, 1]
    assert all(torch.equal(gram, whole[name]) for name, gram in alone.items())
    assert {name.split(".")[2] for name in alone} == {"1"}
