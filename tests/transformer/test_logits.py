"""Logits at chosen places: those of the whole pass, for every family, and nothing is left behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.transformer.logits import Packing, logits_at, states_before_head
from tests.support.archsuite import FAMILIES, model_of, random_batch

IDS = random_batch(pad=0).input_ids


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_they_are_those_of_the_whole_pass(family: str) -> None:
    """Soft caps and scales of a family included, in the order of the places, repeats allowed."""
    model = model_of(family)
    places = torch.tensor([5, 0, IDS.numel() - 1, 5])
    whole = model(input_ids=IDS, use_cache=False).logits.flatten(0, 1)
    torch.testing.assert_close(logits_at(model, places, input_ids=IDS), whole[places], rtol=1e-5, atol=1e-6)
    assert not model.get_output_embeddings()._forward_pre_hooks


@torch.no_grad()
def test_the_head_makes_them_of_the_states() -> None:
    model = model_of("llama")
    states = states_before_head(model, input_ids=IDS)
    assert states.shape == (IDS.numel(), model.config.hidden_size)
    places = torch.arange(IDS.numel())
    made = model.get_output_embeddings()(states)
    torch.testing.assert_close(made, logits_at(model, places, input_ids=IDS), rtol=1e-5, atol=1e-6)


def test_a_model_without_a_head_of_its_own_gives_them_all() -> None:
    """An exported runtime has no module to hand hidden states to."""
    logits = torch.arange(24.0).view(2, 3, 4)

    class Exported:
        def get_output_embeddings(self) -> None:
            return None

        def __call__(self, **_inputs: Any) -> Any:
            return SimpleNamespace(logits=logits)

    assert torch.equal(logits_at(Exported(), torch.tensor([4]), input_ids=IDS), logits.view(6, 4)[[4]])


def test_the_hook_goes_when_the_model_fails() -> None:
    model = model_of("llama")
    with pytest.raises(ValueError, match="input_ids"):
        logits_at(model, torch.tensor([0]), input_ids=None, inputs_embeds=None)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_packing_names_what_flash_attention_reads() -> None:
    starts = torch.tensor([0, 3, 5], dtype=torch.int32)
    packing = Packing(positions=torch.tensor([[0, 1, 2, 0, 1]]), starts=starts, longest=3)
    arguments = packing.arguments
    assert arguments["cu_seq_lens_q"] is starts and arguments["max_length_k"] == 3
    assert arguments["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
