"""Fused projections taken apart: parts are what transformers computes with, and nothing is lost on the way."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minigpt.errors import UnsupportedModel
from minigpt.transformer.arch import arch_of, decoder_layers
from minigpt.transformer.families import ARCHITECTURES
from minigpt.transformer.fused import separate_projections
from tests.support.archsuite import logits, model_of, random_batch

IDS = random_batch(pad=0).input_ids
FUSED = [name for name, spec in ARCHITECTURES.items() if spec.fused]


def attended(model: Any, token: int) -> list[list[Tensor]]:
    """Query, key and value of each layer for one token at position 0, where rotary embeddings change nothing."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    seen: list[list[Tensor]] = []

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append([states.transpose(1, 2).flatten() for states in (query, key, value)])
        return sdpa_attention_forward(module, query, key, value, *args, **kwargs)

    AttentionInterface.register("noted", attend)
    model.set_attn_implementation("noted")
    logits(model, torch.tensor([[token]]))
    model.set_attn_implementation("sdpa")
    return seen


@pytest.mark.parametrize("family", ["phi3", "gpt2", "gpt_neox"])
def test_parts_are_what_attention_gets(family: str) -> None:
    """Each part gives, feature by feature, what the stock layer hands to attention."""
    model = model_of(family)
    expected, spec = attended(model, 7), arch_of(model)
    for index, layer in enumerate(decoder_layers(model)):
        outputs: list[Tensor] = []
        with separate_projections(model):
            for path in (spec.query, *spec.key_value):
                layer.get_submodule(path).register_forward_hook(lambda m, a, o, kept=outputs: kept.append(o.flatten()))
            logits(model, torch.tensor([[7]]))
        for part, states in zip(outputs, expected[index], strict=True):
            torch.testing.assert_close(part, states, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["phi3", "glm4"])
def test_gate_and_up_are_the_halves(family: str) -> None:
    """The activation function is applied to the part that the table calls the gate."""
    model = model_of(family)
    mlp = decoder_layers(model)[1].get_submodule("mlp")
    gate, _up = mlp.gate_up_proj.weight.detach().chunk(2)
    activated: list[Tensor] = []
    mlp.activation_fn.register_forward_hook(lambda m, a, o: activated.append(a[0]))
    states = torch.randn(1, 3, 32)
    mlp(states)
    torch.testing.assert_close(activated[0], states @ gate.T)
    with separate_projections(model):
        assert torch.equal(mlp.gate_up_proj.gate.weight, gate)


@pytest.mark.parametrize("family", FUSED)
def test_nothing_changes_on_the_way(family: str) -> None:
    """Inside, the model computes the same with plain layers only; afterwards it holds the same bytes and objects."""
    model = model_of(family)
    before, parameters = deepcopy(model.state_dict()), list(model.parameters())
    expected, modules = logits(model, IDS), [type(module) for module in model.modules()]
    with separate_projections(model), separate_projections(model):
        torch.testing.assert_close(logits(model, IDS), expected, rtol=1e-5, atol=1e-5)
        spec, layer = arch_of(model), decoder_layers(model)[0]
        for path in (*spec.ffn_rows, spec.ffn_columns, spec.query, *spec.key_value, spec.output):
            assert type(layer.get_submodule(path)) is nn.Linear
        assert sum(p.numel() for p in model.parameters()) == sum(value.numel() for value in parameters_of(before))
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert [type(module) for module in model.modules()] == modules


def parameters_of(state: dict[str, Tensor]) -> list[Tensor]:
    """The tensors of a state dict, a tied one once."""
    return list({value.data_ptr(): value for value in state.values()}.values())


def test_changes_and_errors_are_kept() -> None:
    """What a block writes stands in the stored matrix, also where the block ends in an error."""
    model = model_of("gpt2")
    stored = decoder_layers(model)[0].attn.c_attn.weight
    expected = stored.detach().clone()
    expected[:, 32 + 5] = 0
    with pytest.raises(KeyError), separate_projections(model), torch.no_grad():
        decoder_layers(model)[0].attn.c_attn.key.weight[5] = 0
        raise KeyError
    assert torch.equal(stored, expected)


def test_quantized_matrices_are_refused() -> None:
    """A matrix of whole numbers has no parts that could be read."""
    model = model_of("phi3")
    mlp = decoder_layers(model)[0].get_submodule("mlp")
    mlp.gate_up_proj.weight = nn.Parameter(mlp.gate_up_proj.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedModel, match="unquantized"), separate_projections(model):
        pass
    assert type(decoder_layers(model)[0].self_attn.qkv_proj) is nn.Linear
