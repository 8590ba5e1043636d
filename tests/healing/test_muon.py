"""Muon: its step against one written out, the parameters left to AdamW, and training with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from minigpt.healing import muon, train
from minigpt.healing.muon import Muon, optimizer_for, orthogonalize
from minigpt.transformer.arch import decoder_layers
from tests.support.healing import VOCABULARY, patterned, recipe
from tests.support.tiny import tiny_model

TEXT, DEV = patterned(80), patterned(12, seed=1)


def model_of(family: str = "llama") -> Any:
    return tiny_model(family, vocab_size=VOCABULARY, layers=2)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_singular_values_become_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    matrices[1] *= 1e3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    core = left.mT @ orthogonalize(matrices) @ right.mT
    values = core.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.6 and values.max() < 1.3
    assert (core - torch.diag_embed(values)).abs().max() < 0.05


def written_out(gradients: list[np.ndarray[Any, Any]], rate: float) -> np.ndarray[Any, Any]:
    """Return what Muon adds to a matrix over these steps, from the iteration on its singular values in float64."""
    total, momentum = np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient
        left, values, right = np.linalg.svd(0.05 * gradient + 0.95 * momentum, full_matrices=False)
        values = values / np.sqrt((values**2).sum())
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        total -= rate * 0.2 * math.sqrt(max(gradient.shape)) * (left * values) @ right
    return total


def test_steps_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "has_fast_bf16", lambda _device: False)
    torch.manual_seed(1)
    matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in ((5, 8), (8, 5), (5, 8))]
    before = [matrix.detach().clone() for matrix in matrices]
    optimizer = Muon(matrices, [torch.nn.Parameter(torch.zeros(3))], recipe(learning_rate=0.1, optimizer="muon"))
    seen: list[list[Any]] = [[] for _ in matrices]
    for _ in range(3):
        for place, matrix in enumerate(matrices):
            matrix.grad = torch.randn(matrix.shape)
            seen[place].append(matrix.grad.double().numpy())
        optimizer.step()
    for matrix, start, gradients in zip(matrices, before, seen, strict=True):
        expected = written_out(gradients, 0.1)
        error = np.linalg.norm((matrix.detach() - start).numpy() - expected) / np.linalg.norm(expected)
        assert error < 1e-4


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_what_is_no_matrix_of_the_decoder_moves_as_with_adamw(family: str) -> None:
    moved: dict[str, dict[str, torch.Tensor]] = {}
    for name in ("adamw", "muon"):
        model = model_of(family)
        optimizer = optimizer_for(model, list(model.parameters()), recipe(optimizer=name))
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
        moved[name] = {key: value.detach().clone() for key, value in model.named_parameters()}
    matrices = {id(parameter) for parameter in decoder_layers(model).parameters() if parameter.ndim == 2}
    inside = {key for key, value in model.named_parameters() if id(value) in matrices}
    assert inside and inside != set(moved["muon"])
    assert {key for key in moved["muon"] if not torch.equal(moved["muon"][key], moved["adamw"][key])} == inside


def test_it_trains_and_says_so() -> None:
    result = train(model_of(), TEXT, DEV, recipe(steps=24, optimizer="muon"))
    assert result.dev_losses[-1][1] < 0.8 * result.dev_losses[0][1]
    assert "Muon 0.003" in result.recipe and "AdamW" in train(model_of(), TEXT, DEV, recipe(steps=1)).recipe


@pytest.mark.parametrize("together", [1, 64 * 32 * 3, 1 << 27])
def test_how_many_are_taken_together_changes_nothing(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    weights = []
    for size in (1 << 27, together):
        monkeypatch.setattr(muon, "MAX_ELEMENTS", size)
        model = model_of()
        train(model, TEXT, DEV, recipe(steps=3, optimizer="muon"))
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    for first, second in zip(*weights, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_adapters_are_trained_by_adamw() -> None:
    settings = recipe(steps=2, optimizer="muon", adapter="lora", rank=2)
    model = model_of()
    assert type(optimizer_for(model, list(model.parameters()), settings)) is torch.optim.AdamW
    assert "AdamW" in train(model_of(), TEXT, DEV, settings).recipe
