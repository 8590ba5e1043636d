"""SliceGPT: exact with nothing sliced, and with something sliced equal to projecting the dense model's stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.methods import METHODS
from minigpt.methods.material import gather
from minigpt.methods.slicegpt import paper_form, parameters_at, rotate_and_slice
from minigpt.transformer.arch import parameters_of
from minigpt.transformer.batches import run_decoder
from tests.support.archsuite import logits, model_of, random_batch

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3")


def biased_llama() -> Any:
    from tests.methods.test_golden import llama_with_biases

    return llama_with_biases()


@pytest.mark.parametrize("family", [*FAMILIES, "llama+biases"])
def test_with_nothing_sliced_the_model_is_the_parent(family: str) -> None:
    model = biased_llama() if family == "llama+biases" else model_of(family)
    ids = random_batch(seed=7).input_ids
    before = logits(model, ids)
    rotate_and_slice(model, [random_batch()], 32)
    torch.testing.assert_close(logits(model, ids), before, rtol=1e-4, atol=1e-4)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters_at(model, 32)


def projector(states: Tensor, text: Tensor, width: int) -> Tensor:
    """Onto the principal directions of the text rows, by singular values."""
    directions = torch.linalg.svd(states.flatten(0, -2)[text].double()).Vh[:width].float()
    return directions.T @ directions


class Projected:
    """The dense model with its stream projected at every place; the projections are found on the first pass."""

    def __init__(self, model: Any, width: int) -> None:
        self.model, self.width = model, width
        self.found: dict[tuple[int, str], Tensor] = {}
        batch = random_batch()
        self.text = (batch.segment_ids != 0).flatten()
        for index, layer in enumerate(model.model.layers):
            layer.forward = self.forward(index, layer)
        with torch.no_grad():
            run_decoder(model, batch)

    def at(self, index: int, place: str, states: Tensor) -> Tensor:
        key = (index, place)
        if key not in self.found:
            self.found[key] = projector(states, self.text, self.width)
        return states @ self.found[key]

    def forward(self, index: int, layer: Any) -> Any:
        def run(hidden_states: Tensor, **kwargs: Any) -> Tensor:
            states = self.at(0, "embedding", hidden_states) if index == 0 else hidden_states
            attended = layer.self_attn(hidden_states=layer.input_layernorm(states), **kwargs)[0]
            states = self.at(index, "middle", states + attended)
            return self.at(index, "end", states + layer.mlp(layer.post_attention_layernorm(states)))

        return run


@pytest.mark.parametrize("family", FAMILIES)
def test_sliced_it_is_the_parent_with_a_projected_stream(family: str) -> None:
    """Slicing to k directions is projecting on them: no rotation, no fused norm and no shortcut in the reference."""
    ids = random_batch(seed=7).input_ids
    expected = logits(Projected(model_of(family), 16).model, ids)
    sliced = rotate_and_slice(model_of(family), [random_batch()], 16)
    torch.testing.assert_close(logits(sliced, ids), expected, rtol=2e-3, atol=2e-3)
    assert sliced.model.layers[0].self_attn.q_proj.weight.shape[1] == 16
    assert not torch.allclose(expected, logits(model_of(family), ids), atol=0.05)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_size_is_reached_from_below_and_the_sliced_model_speaks(family: str) -> None:
    model = model_of(family)
    target = round(0.9 * parameters_of(model))
    found = paper_form(gather(model, [random_batch()]), target)
    assert found.parameters == sum(p.numel() for p in found.model.parameters()) <= target
    assert parameters_at(model_of(family), 24) > target or "24 of 32" in found.note
    ids = random_batch(seed=2, pad=0).input_ids[:1, :6]
    out = found.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    again = logits(found.model, out)[0, :-1].argmax(-1)
    assert out[0, 6:].tolist() == again[5:].tolist()[: len(out[0]) - 6]


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(UnsupportedModel, match=r"RMS norms in front of .* gemma2"):
        rotate_and_slice(model_of("gemma2"), [random_batch()], 16)
    model = model_of("llama")
    with pytest.raises(PlanError, match=r"leaves at least [0-9,]+ parameters, and the target is 100;"):
        paper_form(gather(model, [random_batch()]), 100)
    assert not METHODS["slicegpt"].ships
