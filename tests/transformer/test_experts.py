"""Experts: routing, statistics by tokens, cutting, and healing, on tiny random models of every family that has some."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.healing import Recipe
from minigpt.healing.adapters import trainable
from minigpt.pruning.apply import apply_plan, mask_plan
from minigpt.transformer import arch, stats
from minigpt.transformer.batches import Batch, run_decoder
from minigpt.transformer.experts import expert_outputs, expert_spec, route, router_parameters
from minigpt.transformer.families import ARCHITECTURES
from minigpt.types import PrunePlan
from tests.support.archsuite import DENSE, EXPERTS, keep_all, logits, model_of, random_batch, some_plan

IDS = random_batch(pad=0).input_ids


def block_input(model: Any, batch: Batch, index: int) -> Tensor:
    """Text rows of what the experts of a layer read, caught by a hook of the test's own."""
    rows: list[Tensor] = []
    layer = arch.decoder_layers(model)[index]
    block = layer.get_submodule(expert_spec(model).block)
    handle = block.register_forward_pre_hook(lambda _module, args: rows.append(args[0]))
    with torch.no_grad():
        run_decoder(model, batch)
    handle.remove()
    return rows[0][batch.segment_ids != 0]


def by_hand(model: Any, layer: Any, state: Tensor, expert: int) -> Tensor:
    """Output of one expert for one token, from the stored matrices (SwiGLU; gpt-oss with its clamps and biases)."""
    experts = layer.get_submodule(expert_spec(model).experts)
    gate_up, down = experts.gate_up_proj[expert], experts.down_proj[expert]
    if model.config.model_type != "gpt_oss":
        gate, up = (gate_up @ state).chunk(2)
        return down @ (torch.nn.functional.silu(gate) * up)
    inner = state @ gate_up + experts.gate_up_proj_bias[expert]
    gate, up = inner[::2].clamp(max=7.0), inner[1::2].clamp(-7.0, 7.0)
    return ((up + 1) * gate * torch.sigmoid(1.702 * gate)) @ down + experts.down_proj_bias[expert]


def routing_by_hand(model: Any, layer: Any, state: Tensor, removed: int | None = None) -> dict[int, float]:
    """Weights of the two best experts of a token, by the family's rule, without one that is removed."""
    router, family = layer.get_submodule(expert_spec(model).router), model.config.model_type
    scores = router.weight @ state + (router.bias if family == "gpt_oss" else 0)
    if removed is not None:
        scores[removed] = float("-inf")
    best = scores.topk(2).indices
    # Qwen2-MoE and OLMoE do not divide by the sum of the two.
    everything = torch.softmax(scores, 0)
    normed = torch.softmax(scores[best], 0)
    weights = everything[best] if family in {"olmoe", "qwen2_moe"} else normed
    return {int(expert): float(weight) for expert, weight in zip(best, weights, strict=True)}


@pytest.mark.parametrize("family", EXPERTS)
@torch.no_grad()
def test_statistics_equal_their_formulas(family: str) -> None:
    """Share, REAP and reconstruction loss of layer 1 equal sums over single tokens; padding does not count."""
    model, batch = model_of(family), random_batch(rows=1)
    layer = arch.decoder_layers(model)[1]
    share, gated, loss = torch.zeros(4), torch.zeros(4), torch.zeros(4)
    states = block_input(model, batch, 1)
    assert len(states) == 21
    for state in states:
        outputs = torch.stack([by_hand(model, layer, state, expert) for expert in range(4)])
        routed = routing_by_hand(model, layer, state)
        whole = sum(weight * outputs[expert] for expert, weight in routed.items())
        for expert, weight in routed.items():
            share[expert] += 1
            gated[expert] += weight * outputs[expert].norm()
            others = routing_by_hand(model, layer, state, removed=expert)
            without = sum(weight * outputs[index] for index, weight in others.items())
            loss[expert] += (whole - without).square().sum()
    measured = stats.collect(model, [batch])
    torch.testing.assert_close(measured.expert_share[1], share / 21)
    torch.testing.assert_close(measured.expert_gated[1], gated / share.clamp_min(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(measured.expert_loss[1], loss / 21, rtol=1e-3, atol=1e-4)
    assert float(measured.expert_share.sum()) == pytest.approx(2 * 4), "two experts a token in each of four layers"


@pytest.mark.parametrize("family", EXPERTS)
def test_batching_padding_and_neighbours_change_no_statistic(family: str) -> None:
    """The same text in two batches or with more padding gives the same means, and documents see only themselves."""
    model, batch = model_of(family), random_batch()
    halves = [Batch(**{k: getattr(batch, k)[i : i + 1] for k in batch.__slots__}) for i in range(2)]
    padded = Batch(**{k: torch.nn.functional.pad(getattr(batch, k), (0, 9)) for k in batch.__slots__})
    alone = [part for half in halves for part in (_piece(half, 1), _piece(half, 2))]
    whole = stats.collect(model, [batch])
    for other in (stats.collect(model, halves), stats.collect(model, [padded]), stats.collect(model, alone)):
        for name in ("expert_share", "expert_gated", "expert_loss"):
            torch.testing.assert_close(getattr(other, name), getattr(whole, name), rtol=1e-3, atol=1e-4)


def _piece(batch: Batch, number: int) -> Batch:
    """One piece of text of a row, as a batch of its own."""
    keep = batch.segment_ids[0] == number
    return Batch(**{name: getattr(batch, name)[:, keep] for name in batch.__slots__})


def test_statistics_are_stored_and_older_ones_are_read(tmp_path: Any) -> None:
    model = model_of("mixtral")
    measured = stats.collect(model, [random_batch()])
    stats.save(measured, tmp_path / "new")
    assert torch.equal(stats.load(tmp_path / "new").expert_loss, measured.expert_loss)
    dense = stats.collect(model_of("llama"), [random_batch()])
    assert dense.expert_share.shape == (0, 0)
    stats.save(dense, tmp_path / "old")
    assert stats.load(tmp_path / "old").expert_gated.numel() == 0


@pytest.mark.parametrize("family", EXPERTS)
def test_cutting_equals_logits_of_minus_infinity(family: str) -> None:
    """A router whose removed experts get minus infinity, written by hand, gives what cutting gives."""
    model = model_of(family)
    plan = replace(keep_all(model), experts=((0, 1, 3), (1, 2, 3), (0, 2), (0, 1, 2, 3)))
    plan = replace(plan, experts=tuple(row[:2] for row in plan.experts))
    handles = []
    for layer, kept in zip(arch.decoder_layers(model), plan.experts, strict=True):
        router = layer.get_submodule(expert_spec(model).router)
        handles.append(router.register_forward_hook(_masking(model, set(range(4)) - set(kept))))
    expected = logits(model, IDS)
    for handle in handles:
        handle.remove()
    with mask_plan(model, plan):
        torch.testing.assert_close(logits(model, IDS), expected, rtol=1e-4, atol=1e-4)
    child = apply_plan(model, plan)
    torch.testing.assert_close(logits(child, IDS), expected, rtol=1e-4, atol=1e-4)
    assert arch.shape_of(child).experts == 2 and child.num_experts == 2
    assert sum(parameter.numel() for parameter in child.parameters()) == arch.parameters_of(child)


def _masking(model: Any, removed: set[int]) -> Any:
    """A hook on a router that chooses again from its logits, by the family's rule."""
    family = model.config.model_type

    def hook(_module: Any, _args: Any, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        scores = output[0].float().clone()
        scores[:, sorted(removed)] = float("-inf")
        best, indices = scores.topk(2, dim=-1)
        whole = family in {"olmoe", "qwen2_moe"}
        weights = torch.softmax(scores, -1).gather(1, indices) if whole else torch.softmax(best, -1)
        return scores, weights, indices

    return hook


def test_layers_keep_equally_many_experts_and_enough_for_every_token() -> None:
    """Uneven counts, too few, and numbers out of range are refused in a sentence; older plans name no experts."""
    model = model_of("mixtral")
    everything = keep_all(model)
    for experts, message in (
        (((0, 1, 2), (0, 1), (0, 1), (0, 1)), "same number"),
        (((0,),) * 4, "choose 2 to 4"),
        (((0, 4),) * 4, "below 4"),
        (((0, 1),) * 3, "each kept layer"),
    ):
        with pytest.raises(PlanError, match=message):
            apply_plan(model, replace(everything, experts=experts))
    with pytest.raises(PlanError, match="removes neurons inside of experts"):
        apply_plan(model, replace(everything, ffn=tuple(row[:32] for row in everything.ffn)))
    apply_plan(model, replace(everything, experts=()))
    assert arch.shape_of(model).experts == 4


def test_plans_of_dense_families_name_no_experts() -> None:
    """A plan file without the field is read, and one that names experts of a dense model is refused."""
    model = model_of("llama")
    plan = some_plan(model)
    fields = {name: getattr(plan, name) for name in ("base_model", "method", "seed", "layers", "ffn", "kv_groups")}
    assert PrunePlan(**fields).experts == () and arch.shape_of(model).experts == 0
    with pytest.raises(PlanError, match="experts must be ascending"):
        apply_plan(model, replace(plan, experts=((0,),) * 3))
    for family in DENSE:
        assert ARCHITECTURES[family].axes == {"vocab", "ffn", "kv_groups", "layers"}


def test_the_shared_expert_is_kept() -> None:
    model = model_of("qwen2_moe")
    before = deepcopy(arch.decoder_layers(model)[0].mlp.shared_expert.state_dict())
    child = apply_plan(model, some_plan(model, layers=(0, 1, 2, 3), groups=2))
    after = arch.decoder_layers(child)[0].mlp.shared_expert.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())


@torch.no_grad()
def test_routing_among_some_counts_all() -> None:
    """Indices keep their meaning, and single outputs are those of the layer's own experts."""
    model = model_of("qwen3_moe")
    layer = arch.decoder_layers(model)[0]
    states = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    routing = route(layer.mlp.gate, states, (1, 3))
    assert {int(index) for index in routing.indices.flatten()} == {1, 3}
    outputs = expert_outputs(layer.mlp.experts, states, routing.indices)
    expected = by_hand(model, layer, states[2], int(routing.indices[2, 1]))
    torch.testing.assert_close(outputs[2, 1], expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_router_gets_no_gradient() -> None:
    """Healing may leave the routers as they are; without the setting, and after the run, they can be trained."""
    model = model_of("mixtral")
    routers = router_parameters(model)
    assert len(routers) == 4 and not router_parameters(model_of("llama"))
    with trainable(model, Recipe(router="frozen")) as trained:
        trained(input_ids=IDS, labels=IDS).loss.backward()
        assert all(parameter.grad is None for parameter in routers)
        assert trained.model.layers[0].mlp.experts.down_proj.grad is not None
    assert all(parameter.requires_grad for parameter in routers)
    with trainable(model, Recipe()) as trained:
        trained(input_ids=IDS, labels=IDS).loss.backward()
        assert all(parameter.grad is not None for parameter in routers)
    assert "routers frozen" in Recipe(router="frozen").describe()


@pytest.mark.parametrize("field", ["mlp_only_layers", "decoder_sparse_step"])
def test_layers_of_two_kinds_are_refused(field: str) -> None:
    config = model_of("qwen3_moe").config
    setattr(config, field, [0] if field == "mlp_only_layers" else 2)
    with pytest.raises(UnsupportedModel, match=field):
        arch.arch_of(config)
