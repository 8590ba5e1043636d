from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minigpt.errors import AssetError
from minigpt.tickets.delta import (
    apply,
    changed_weights,
    changes_between,
    densities,
    digests,
    in_dtype,
    parameters_of,
    quantized,
)
from minigpt.tickets.delta_store import put_in
from tests.support.deltas import tiny_ticket
from tests.support.tiny import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_ticket_turns_the_parent_into_the_specialist_and_back_to_the_bit(family: str, tied: bool) -> None:
    model, result, ticket = tiny_ticket(Path("parent"), family, tied=tied)
    before = in_dtype(parameters_of(model), torch.bfloat16)
    undo = put_in(model, ticket)
    for name, tensor in parameters_of(model).items():
        assert torch.equal(tensor, result[name])
    if tied:
        assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    apply(parameters_of(model), undo)
    for name, tensor in parameters_of(model).items():
        assert torch.equal(tensor, before[name])


def test_only_changed_weights_are_counted_and_zero_signs_are_changes() -> None:
    parent = {"a": torch.tensor([0.0, 1.0, 2.0]), "b": torch.ones(4)}
    result = {"a": torch.tensor([-0.0, 1.0, 3.0]), "b": torch.ones(4)}
    changes = changes_between(parent, result)
    assert changed_weights(changes) == 2
    assert changes["a"].positions.tolist() == [0, 2]
    assert dict(densities(parent, changes)) == {"a": 2 / 3, "b": 0.0}
    apply(parent, changes)
    assert parent["a"].view(torch.int32).tolist() == result["a"].view(torch.int32).tolist()


@pytest.mark.parametrize(("values", "largest"), [("int8", 127), ("int4", 7)])
def test_rounded_differences_are_off_by_half_a_step_of_their_block(values: str, largest: int) -> None:
    generator = torch.Generator().manual_seed(0)
    parent = {"a": torch.randn(300, generator=generator)}
    result = {"a": parent["a"] + 0.01 * torch.randn(300, generator=generator)}
    changes = quantized(parent, changes_between(parent, result), values)  # type: ignore[arg-type]
    rounded = {"a": parent["a"].clone()}
    apply(rounded, changes)
    error = (rounded["a"] - result["a"]).abs()
    # Half a step of the coarsest block, and the rounding of its scale to bf16.
    step = (result["a"] - parent["a"]).abs().max() / largest
    assert error.max() <= 0.5 * step * 1.02 + largest * step / 256
    assert 0 < changed_weights(changes) <= 300


def test_the_parent_is_unchanged_by_making_a_ticket() -> None:
    model, result, ticket = tiny_ticket(Path("parent"))
    assert digests(parameters_of(model)) == ticket.record.parent
    assert ticket.record.changed == sum(int((result[n] != t).sum()) for n, t in parameters_of(model).items())


def test_another_parent_is_refused_and_left_as_it_is() -> None:
    _, _, ticket = tiny_ticket(Path("parent"))
    other, _, _ = tiny_ticket(Path("parent"))
    weight = other.model.layers[2].mlp.up_proj.weight.data
    weight[3, 4] += 1
    before = digests(parameters_of(other))
    with pytest.raises(AssetError, match=r"another parent: model\.layers\.2\.mlp\.up_proj\.weight differs"):
        put_in(other, ticket)
    assert digests(parameters_of(other)) == before


def test_a_model_of_other_shapes_is_refused() -> None:
    _, _, ticket = tiny_ticket(Path("parent"))
    other, _, _ = tiny_ticket(Path("parent"), "qwen3")
    with pytest.raises(AssetError, match="other tensors than the ticket's parent"):
        put_in(other, ticket)
