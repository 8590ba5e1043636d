"""What every kind of conditional layer promises, against the plain references."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from minigpt.conditional.layers import build
from minigpt.conditional.reference import leaf_ffn_soft
from tests.support.conditional import CASES, HIDDEN, layer_of, plain, tokens

SOFT = [case for case in CASES if "leaves" in case]
EXACT = [case for case in CASES if case not in SOFT]
WITH_X = ("relu", "threshold")


@pytest.mark.parametrize("case", CASES)
def test_the_hard_form_is_the_reference(case: str) -> None:
    layer, x = layer_of(case), tokens(40)
    torch.testing.assert_close(layer.hard_forward(x), plain(layer, x))
    torch.testing.assert_close(layer.eval()(x.view(5, 8, HIDDEN)), plain(layer, x).view(5, 8, HIDDEN))


@pytest.mark.parametrize("case", EXACT)
def test_the_training_form_computes_the_same(case: str) -> None:
    layer, x = layer_of(case).train(), tokens(40)
    torch.testing.assert_close(layer(x), plain(layer, x))


@pytest.mark.parametrize("case", SOFT)
def test_the_training_form_of_leaves_is_their_mixture(case: str) -> None:
    layer, x = layer_of(case).train(), tokens()
    names = ("w_node", "b_node", "w_in", "b_in", "w_gate", "w_out", "b_out")
    weights = [getattr(layer, name) for name in names]
    settings = layer.settings
    soft = leaf_ffn_soft(x, *weights, depth=settings.depth, activation=settings.activation)
    torch.testing.assert_close(layer(x), soft)
    assert not torch.allclose(layer(x), layer.hard_forward(x))


@pytest.mark.parametrize("form", ["training_forward", "hard_forward"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_reference_and_of_differences(case: str, form: str) -> None:
    layer, x = layer_of(case), tokens(4).requires_grad_()
    forward, weights = getattr(layer, form), list(layer.parameters())

    def by_weights(x: torch.Tensor, *_weights: torch.Tensor) -> torch.Tensor:
        return forward(x)

    assert torch.autograd.gradcheck(by_weights, (x, *weights), eps=1e-7, atol=1e-5)
    if case in SOFT and form == "training_forward":
        return
    direction = tokens(4, seed=2)
    ours = torch.autograd.grad((forward(x) * direction).sum(), (x, *weights), allow_unused=True)
    reference = torch.autograd.grad((plain(layer, x) * direction).sum(), (x, *weights), allow_unused=True)
    for one, other, weight in zip(ours, reference, (x, *weights), strict=True):
        zero = torch.zeros_like(weight)
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other)


@pytest.mark.parametrize("case", CASES)
def test_bf16_and_fp32_stay_near_fp64(case: str) -> None:
    # Decisions of rounded weights are taken in fp64 too, so that the paths agree but for ties.
    x = tokens(64, dtype=torch.bfloat16)
    layer = layer_of(case, dtype=torch.bfloat16)
    exact = copy.deepcopy(layer).double().hard_forward(x.double())
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 4e-2)):
        rounded = copy.deepcopy(layer).to(dtype)
        for form in (rounded.hard_forward,) if case in SOFT else (rounded.hard_forward, rounded.training_forward):
            out = form(x.to(dtype))
            assert out.dtype == dtype
            far = ((out.double() - exact).abs() > tolerance * exact.abs().clamp(min=1)).any(-1)
            assert far.double().mean() <= (0.0 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("case", CASES)
def test_no_tokens_and_one_token(case: str) -> None:
    layer = layer_of(case)
    for form in (layer.training_forward, layer.hard_forward):
        assert form(tokens(0)).shape == (0, HIDDEN)
        assert form(tokens(1)[0]).shape == (HIDDEN,)


@pytest.mark.parametrize("case", CASES)
def test_a_layer_can_be_copied_after_a_training_step(case: str) -> None:
    layer = layer_of(case).train()
    (layer(tokens()).square().sum() + layer.penalty()).backward()
    again = copy.deepcopy(layer)
    torch.testing.assert_close(again.hard_forward(tokens()), layer.hard_forward(tokens()))
    assert float(again.penalty()) == 0.0


def test_a_noted_penalty_is_not_copied() -> None:
    layer = build(replace(CASES["leaves"], hardening=1.0)).double().train()
    layer(tokens())
    assert layer.penalty().requires_grad
    assert float(copy.deepcopy(layer).penalty()) == 0.0


@pytest.mark.parametrize("case", CASES)
def test_counts_do_not_exceed_the_layer(case: str) -> None:
    layer, x = layer_of(case), tokens(30).view(3, 10, HIDDEN)
    assert 0 < layer.visited_neurons(x) <= layer.total_neurons()
    assert 0 < layer.visited_weights(x) <= layer.total_weights()
    matrices = {name: value for name, value in layer.named_parameters() if name.startswith("w_")}
    assert layer.total_weights() == sum(value.numel() for value in matrices.values())


@pytest.mark.parametrize("case", EXACT)
def test_the_output_depends_on_visited_neurons_only(case: str) -> None:
    # Counted from outside: neurons whose output row has a gradient add to the output.
    layer, x = layer_of(case), tokens(10)
    counts = []
    for token in x:
        gradient = torch.autograd.grad(layer.training_forward(token).sum(), layer.w_out)[0]
        counts.append(int((gradient.reshape(-1, HIDDEN).abs().sum(-1) > 0).sum()))
    assert sum(counts) / len(counts) == pytest.approx(layer.visited_neurons(x))


def test_the_same_seed_gives_the_same_new_weights() -> None:
    one, other = layer_of("trees", seed=3), layer_of("trees", seed=3)
    torch.testing.assert_close(one.w_in, other.w_in, rtol=0, atol=0)
    assert not torch.equal(one.w_in, layer_of("trees", seed=4).w_in)
