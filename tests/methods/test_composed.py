"""Mini-GPTs' evidence and the default method, from what the projections saw to the scores, in several families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt.methods import METHODS
from minigpt.methods.material import gather
from minigpt.methods.ranking import rank
from tests.methods.test_golden import ATTENTION, FAMILIES, GROUP, LAYER, MLP, NEURON, scored, weight
from tests.support.archsuite import model_of, random_batch
from tests.support.reading import read

COLUMNS = slice(16, 32)
"""Inputs of o that belong to group 1: two query heads of 8."""


def mean_magnitudes(model: Any, *places: tuple[str, int]) -> list[Tensor]:
    """Mean |x| over the tokens of the inputs (0) or outputs (1) of modules of one layer's FFN."""
    seen = read(model, random_batch())
    return [seen[MLP + name][side].abs().mean(0) for name, side in places]


@pytest.mark.parametrize("family", FAMILIES)
def test_linear(family: str) -> None:
    """The weakest of three places, each against its mean over the layer; groups by what enters o."""
    model = model_of(family)
    found = scored("linear", model)
    places = mean_magnitudes(model, ("gate_proj", 1), ("up_proj", 1), ("down_proj", 0))
    expected = min(float(values[NEURON] / values.mean()) for values in places)
    assert float(found.ffn[LAYER, NEURON]) == pytest.approx(expected, rel=1e-4)
    entering = read(model, random_batch())[f"{ATTENTION}o_proj"][0]
    assert float(found.kv_groups[LAYER, GROUP]) == pytest.approx(float(entering[:, COLUMNS].abs().mean()), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_activation(family: str) -> None:
    """What the activation function gives out, on average."""
    model = model_of(family)
    (expected,) = mean_magnitudes(model, ("act_fn", 1))
    torch.testing.assert_close(scored("activation", model).ffn[LAYER], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_contextual(family: str) -> None:
    """Root of the mean energy that a unit sends through the columns it owns."""
    model = model_of(family)
    seen, found = read(model, random_batch()), scored("contextual", model)
    inputs, down = seen[f"{MLP}down_proj"][0], weight(model, f"{MLP}down_proj")
    sent = inputs[:, NEURON, None] * down[:, NEURON]
    assert float(found.ffn[LAYER, NEURON]) == pytest.approx(float(sent.square().sum(1).mean().sqrt()), rel=1e-4)
    inputs, output = seen[f"{ATTENTION}o_proj"][0], weight(model, f"{ATTENTION}o_proj")
    energy = sum(float((inputs[:, j, None] * output[:, j]).square().sum(1).mean()) for j in range(16, 32))
    assert float(found.kv_groups[LAYER, GROUP]) == pytest.approx(energy**0.5, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_magnitude(family: str) -> None:
    """Norm of all weights that go with a neuron, biases aside."""
    model = model_of(family)
    parts = [weight(model, f"{MLP}{name}")[NEURON] for name in ("gate_proj", "up_proj")]
    parts.append(weight(model, f"{MLP}down_proj")[:, NEURON])
    expected = float(torch.cat(parts).norm())
    assert float(scored("magnitude", model).ffn[LAYER, NEURON]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma"])
def test_contrast_prefers_what_general_text_does_not_need(family: str) -> None:
    """z(domain) - lambda z(general), by layer; lambda 0 is the plain method."""
    model = model_of(family)
    general = [random_batch(seed=9)]
    plain, other = scored("contextual", model), gather(model, general)
    apart = scored("contextual", model, general=general, contrast=0.5)
    theirs = rank(METHODS["contextual"], other)
    assert theirs is not None
    for ours, base, against in zip(apart.ffn, plain.ffn, theirs.ffn, strict=True):
        expected = (base - base.mean()) / base.std() - 0.5 * (against - against.mean()) / against.std()
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(scored("contextual", model, general=general).ffn, plain.ffn)
