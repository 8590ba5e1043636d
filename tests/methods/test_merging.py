"""Merging experts and narrowing them: neurons in any order, groups by hand, cutting equals masking, stock classes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

import minigpt
from minigpt.errors import PlanError, UnsupportedModel
from minigpt.healing import Recipe
from minigpt.methods import METHODS
from minigpt.methods.expert_width import narrowed
from minigpt.methods.material import gather
from minigpt.methods.merging import clusters, lifetimes, matching, merged_by_outputs, merged_by_router, nearest, shares
from minigpt.methods.ranking import choose, rank
from minigpt.planning.settings import PlanSettings
from minigpt.pruning.expert_neurons import contributions, inner_outputs, narrow_experts, set_parameters, taken
from minigpt.transformer import arch
from minigpt.transformer.experts import expert_inputs, expert_spec
from tests.support.archsuite import EXPERTS, keep_all, logits, model_of, random_batch
from tests.support.tiny import SENTENCES, tiny_tokenizer
from tests.support.worlds import documents, words

IDS = random_batch(pad=0).input_ids
SETTINGS = PlanSettings(tokens=512, probe_tokens=128, sensitivity="measure")
RECIPE = Recipe(tokens_per_step=256, window=64, learning_rate=1e-3, warmup=1, evaluate_every=2, router="frozen")


def stack_of(model: Any, layer: int = 0) -> Any:
    """Return the stacked experts of a layer."""
    return arch.decoder_layers(model)[layer].get_submodule(expert_spec(model).experts)


def inner_by_hand(model: Any, state: Tensor, expert: int) -> Tensor:
    """Outputs of the neurons of an expert of layer 0 for a token (SwiGLU; gpt-oss with clamps and biases)."""
    experts = stack_of(model)
    if model.config.model_type != "gpt_oss":
        gate, up = (experts.gate_up_proj[expert] @ state).chunk(2)
        return torch.nn.functional.silu(gate) * up
    inner = state @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
    gate, up = inner[::2].clamp(max=7.0), inner[1::2].clamp(-7.0, 7.0)
    return (up + 1) * gate * torch.sigmoid(1.702 * gate)


@pytest.mark.parametrize("family", EXPERTS)
@torch.no_grad()
def test_the_order_of_neurons_changes_nothing(family: str) -> None:
    """All rows and columns of a neuron move together, in every form in which experts are stored."""
    model = model_of(family)
    before, generator = logits(model, IDS), torch.Generator().manual_seed(3)
    for layer in range(4):
        module = stack_of(model, layer)
        orders = [torch.randperm(64, generator=generator) for _ in range(4)]
        set_parameters(module, [taken(module, expert_spec(model), *pair) for pair in enumerate(orders)])
    torch.testing.assert_close(logits(model, IDS), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", EXPERTS)
@torch.no_grad()
def test_neurons_give_what_the_formula_says(family: str) -> None:
    """The family's own experts with the identity in place of down; contributions are sums over single tokens."""
    model = model_of(family)
    spec, states = expert_spec(model), torch.randn(7, 32, generator=torch.Generator().manual_seed(1))
    layer = arch.decoder_layers(model)[0]
    expected = torch.stack([inner_by_hand(model, state, 2) for state in states])
    torch.testing.assert_close(inner_outputs(stack_of(model), spec, states, 2), expected, rtol=1e-4, atol=1e-4)
    _, weights, indices = layer.get_submodule(spec.router)(states)
    down = stack_of(model).down_proj
    columns = down.norm(dim=2) if family == "gpt_oss" else down.norm(dim=1)
    squares, counts = torch.zeros(4, 64), torch.zeros(4)
    for token, (best, factors) in enumerate(zip(indices.tolist(), weights, strict=True)):
        for expert, factor in zip(best, factors, strict=True):
            squares[expert] += (factor * inner_by_hand(model, states[token], expert)).square()
            counts[expert] += 1
    wanted = torch.where(counts[:, None] > 0, (squares / counts[:, None].clamp_min(1)).sqrt() * columns, columns)
    torch.testing.assert_close(contributions(model, layer, states), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", EXPERTS)
def test_narrow_experts_equal_masked_ones(family: str, tmp_path: Path) -> None:
    """Removing neurons equals zeros in their columns of down, keeping all changes no byte, stock classes load it."""
    model = model_of(family)
    width, dim = 24, 1 if family == "gpt_oss" else 2
    generator, layers = torch.Generator().manual_seed(4), arch.decoder_layers(model)
    before = deepcopy(model.state_dict())
    for layer in layers:
        narrow_experts(model, layer, [torch.arange(64)] * 4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    kept = [[torch.randperm(64, generator=generator)[:width].sort().values for _ in range(4)] for _ in range(4)]
    masked = deepcopy(model)
    with torch.no_grad():
        for layer in range(4):
            for expert in range(4):
                removed = torch.tensor(sorted(set(range(64)) - set(kept[layer][expert].tolist())))
                stack_of(masked, layer).down_proj[expert].index_fill_(dim - 1, removed, 0)
    for layer, neurons in zip(layers, kept, strict=True):
        narrow_experts(model, layer, neurons)
    setattr(model.config, arch.arch_of(model).width, width)
    torch.testing.assert_close(logits(model, IDS), logits(masked, IDS), rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    attention = model.config._attn_implementation
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=attention).eval()
    torch.testing.assert_close(logits(loaded, IDS), logits(model, IDS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", EXPERTS)
def test_each_expert_keeps_the_neurons_that_add_most(family: str) -> None:
    """The method's cut keeps the highest contributions of every expert, and leaves everything else."""
    model = model_of(family)
    material = gather(model, [random_batch()])
    whole, inputs = deepcopy(model), expert_inputs(model, [random_batch()])
    wanted = [contributions(model, *pair) for pair in zip(arch.decoder_layers(model), inputs, strict=True)]
    plan = replace(keep_all(model), ffn=(tuple(range(16)),) * 4)
    child = narrowed(material, plan)
    assert arch.shape_of(child) == replace(arch.shape_of(whole), intermediate_size=16)
    assert sum(parameter.numel() for parameter in child.parameters()) == arch.parameters_of(child)
    for layer, scores in enumerate(wanted):
        for expert in range(4):
            neurons = scores[expert].topk(16).indices.sort().values
            stored = taken(stack_of(whole, layer), expert_spec(whole), expert, neurons)
            assert torch.equal(stored["down_proj"], stack_of(child, layer).down_proj[expert])


@pytest.mark.parametrize("family", EXPERTS)
@pytest.mark.parametrize("merge", [merged_by_router, merged_by_outputs])
def test_copies_of_an_expert_merge_into_it(family: str, merge: Any) -> None:
    """Two experts and their copies with other orders of neurons: both survive exactly, and so does the router."""
    model, spec = model_of(family), expert_spec(model_of(family))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in range(4):
            module, router = stack_of(model, layer), arch.decoder_layers(model)[layer].get_submodule(spec.router)
            orders = [torch.arange(64), torch.randperm(64, generator=generator)]
            set_parameters(module, [taken(module, spec, expert, order) for expert in (0, 3) for order in orders])
            for value in router.parameters():
                value.copy_(value[[0, 0, 3, 3]].clone())
    whole = deepcopy(model)
    material = gather(model, [random_batch()])
    plan = replace(keep_all(model), experts=((0, 2),) * 4)
    child = merge(material, plan)
    assert arch.shape_of(child).experts == 2
    for layer in range(4):
        new, old = stack_of(child, layer), stack_of(whole, layer)
        for place, center in enumerate((0, 2)):
            order = matching(old, spec, center, center + 1)
            copy = taken(old, spec, center + 1, order)
            for name, value in new.named_parameters(recurse=False):
                # The one that more tokens go to stands for both; the copies tie, so that it is the first.
                torch.testing.assert_close(value[place], dict(old.named_parameters())[name][center])
                torch.testing.assert_close(copy[name], dict(old.named_parameters())[name][center])


def test_averages_are_weighted_by_tokens() -> None:
    """Each parameter is the mean with the shares of tokens as weights, after the neurons are matched."""
    model = model_of("mixtral")
    material = gather(model, [random_batch()])
    whole, share = deepcopy(model), material.statistics.expert_share
    child = merged_by_router(material, replace(keep_all(model), experts=((0, 1),) * 4))
    spec, layer = expert_spec(whole), 1
    rows = arch.decoder_layers(whole)[layer].get_submodule(spec.router).weight.detach()
    groups = nearest(rows @ expert_inputs(whole, [random_batch()])[layer].T, (0, 1))
    for place, members in groups.items():
        weights = shares(share[layer], members)
        total = torch.zeros(32, 64)
        for member, weight in zip(members, weights, strict=True):
            order = matching(stack_of(whole, layer), spec, place, member)
            total += weight * stack_of(whole, layer).down_proj[member][:, order]
        torch.testing.assert_close(stack_of(child, layer).down_proj[place], total, rtol=1e-4, atol=1e-5)
        row = arch.decoder_layers(child)[layer].get_submodule(spec.router).weight[place]
        torch.testing.assert_close(row, (weights[:, None] * rows[list(members)]).sum(0), rtol=1e-4, atol=1e-5)
    assert shares(torch.zeros(3), (0, 2)).tolist() == [0.5, 0.5]


def test_groups_by_hand() -> None:
    """Cosines of router logits; average linkage on a line, where the expert with more tokens stands for a cluster."""
    assert nearest(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [-0.1, 3.0]]), (0, 1)) == {0: (0, 2), 1: (1, 3)}
    points, share = np.array([[0.0], [1.0], [5.0], [5.5]]), [0.1, 0.4, 0.2, 0.3]
    # Joins: 2 and 3 (3 stands for both), 0 and 1 (1 stands), then both clusters (1 stands).
    assert lifetimes(points, share) == [1.0, 4.0, 0.0, 2.0]
    assert clusters(points, share, 3) == {0: (0,), 1: (1,), 3: (2, 3)}
    assert clusters(points, share, 2) == {1: (0, 1), 3: (2, 3)}
    assert clusters(points, share, 4) == {0: (0,), 1: (1,), 2: (2,), 3: (3,)}


@given(st.integers(2, 9), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_the_kept_experts_stand_for_the_clusters(count: int, seed: int) -> None:
    """The n highest scores name the clusters when n are left, for every n."""
    draw = np.random.default_rng(seed)
    points, share = draw.normal(size=(count, 3)), draw.random(count).tolist()
    scores = lifetimes(points, share)
    for left in range(1, count + 1):
        groups = clusters(points, share, left)
        assert set(groups) == set(np.argsort(scores)[::-1][:left].tolist())
        assert sorted(member for members in groups.values() for member in members) == list(range(count))


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
@pytest.mark.parametrize("method", ["m-smoe", "hc-smoe", "expert-width"])
def test_a_family_is_planned_cut_saved_and_healed(family: str, method: str, tmp_path: Path) -> None:
    """The plan's arithmetic is exact, stock classes load the result with the same logits, healing trains it."""
    draw = Random(0)
    texts = documents(draw, words(draw, 300), 6)
    model, tokenizer = model_of(family), tiny_tokenizer()
    shape = arch.shape_of(model)
    smaller = replace(shape, intermediate_size=32) if method == "expert-width" else replace(shape, experts=2)
    size = arch.parameters_of(model, smaller)
    plan = minigpt.plan(model, tokenizer, texts, params=size, method=method, settings=SETTINGS)
    assert plan.parameters_after == size and sum(plan.removed_parameters.values()) == plan.parameters_before - size
    pruned, short = minigpt.prune(model, tokenizer, plan, repair=texts[:4])
    assert arch.shape_of(pruned) == smaller
    pruned.save_pretrained(tmp_path)
    attention = pruned.config._attn_implementation
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=attention).eval()
    torch.testing.assert_close(logits(loaded, IDS), logits(pruned, IDS), rtol=1e-5, atol=1e-5)
    if family != "mixtral":
        return
    router = arch.decoder_layers(pruned)[0].get_submodule(expert_spec(pruned).router).weight.detach().clone()
    training = minigpt.heal(pruned, short, texts[:4], dev=texts[4:], steps=2, recipe=RECIPE, plan=plan)
    assert training.steps == 2 and training.dev_losses[-1][1] != training.dev_losses[0][1]
    assert torch.equal(arch.decoder_layers(pruned)[0].get_submodule(expert_spec(pruned).router).weight, router)


@pytest.mark.parametrize("method", ["m-smoe", "hc-smoe"])
def test_the_shared_expert_is_kept(method: str) -> None:
    model = model_of("qwen2_moe")
    before = deepcopy(arch.decoder_layers(model)[0].mlp.shared_expert.state_dict())
    material, row = gather(model, [random_batch()]), METHODS[method]
    shape = replace(arch.shape_of(model), experts=2)
    plan = choose(row, material, shape, rank(row, material), base_model="tiny")
    child = {"m-smoe": merged_by_router, "hc-smoe": merged_by_outputs}[method](material, plan)
    after = arch.decoder_layers(child)[0].mlp.shared_expert.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_dense_parents_and_other_methods_are_told_so() -> None:
    """Nothing to merge or to narrow in a Llama; neurons of experts stay with methods that know nothing of them."""
    llama, tokenizer, texts = model_of("llama"), tiny_tokenizer(), list(SENTENCES) * 3
    with pytest.raises(PlanError, match="m-smoe removes experts, and llama models have none"):
        minigpt.plan(llama, tokenizer, texts, size=0.9, method="m-smoe", settings=SETTINGS)
    with pytest.raises(UnsupportedModel, match="narrows experts, and llama has none; choose contextual"):
        minigpt.plan(llama, tokenizer, texts, size=0.9, method="expert-width", settings=SETTINGS)
    with pytest.raises(PlanError, match=r"a mixtral has no ffn to remove"):
        fixed = replace(SETTINGS, intermediate_size=32)
        minigpt.plan(model_of("mixtral"), tokenizer, texts, size=0.9, method="contextual", settings=fixed)
