"""Families whose layers carry a state: sizes, statistics, cutting layers and neurons, loading, healing, refusals."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import minigpt
from minigpt.errors import ConfigError, ExportError, MiniGPTError, PlanError, UnsupportedModel
from minigpt.exporting.gguf_arch import family_of
from minigpt.methods import METHODS
from minigpt.methods.material import gather
from minigpt.methods.ranking import choose, rank
from minigpt.pruning.apply import apply_plan, mask_plan
from minigpt.pruning.repair import prune_with_repair
from minigpt.runtimes.pytorch import TorchRuntime
from minigpt.transformer import arch, stats
from minigpt.transformer.batches import Batch, apart, run_decoder
from minigpt.transformer.estimate import estimate
from minigpt.types import PrunePlan
from tests.support.archsuite import STATES, keep_all, logits, model_of, random_batch
from tests.support.tiny import SENTENCES, tiny_config, tiny_tokenizer
from tests.support.whole_way import SETTINGS, check_the_whole_way
from tests.support.worlds import documents, words

IDS = random_batch(pad=0).input_ids
# A method that needs attention, or removes nothing that the family has.
REFUSAL = r"needs attention in each layer, and layers of .* carry a state|models have none of these to remove"
HYBRIDS = ("lfm2", "qwen3_5_text")


def plan_of(model: Any, layers: tuple[int, ...] = (0, 1, 3), neurons: int = 16) -> PrunePlan:
    """Return a plan without layer 2, and with a different choice of neurons in every layer of a hybrid."""
    shape, generator = arch.shape_of(model), torch.Generator().manual_seed(5)
    width = neurons if "ffn" in arch.arch_of(model).axes else 1
    picks = [torch.randperm(shape.intermediate_size, generator=generator)[:width] for _ in layers]
    return PrunePlan(
        base_model="tiny",
        method="test",
        seed=0,
        layers=layers,
        ffn=tuple(tuple(sorted(pick.tolist())) for pick in picks),
        kv_groups=((0,),) * len(layers),
    )


@pytest.mark.parametrize("family", STATES)
@pytest.mark.parametrize("tied", [True, False])
def test_formula_counts_what_transformers_makes(family: str, tied: bool) -> None:
    model = model_of(family, tied=tied)
    assert sum(parameter.numel() for parameter in model.parameters()) == arch.parameters_of(model)
    plan = plan_of(model)
    shape = replace(arch.shape_of(model), layers=3, intermediate_size=len(plan.ffn[0]))
    expected = arch.parameters_of(model, shape)
    child = apply_plan(model, plan)
    assert arch.shape_of(child) == shape
    assert sum(parameter.numel() for parameter in child.parameters()) == expected == arch.parameters_of(child)


@pytest.mark.parametrize("family", STATES)
def test_slice_equals_mask_and_loads_in_stock_classes(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    plan, dense = plan_of(model), logits(model, IDS)
    with mask_plan(model, plan):
        masked = logits(model, IDS)
    assert torch.equal(logits(model, IDS), dense)
    child = apply_plan(model, plan)
    torch.testing.assert_close(logits(child, IDS), masked, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(masked, dense, atol=1e-2)
    child.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(loaded, IDS), logits(child, IDS), rtol=1e-5, atol=1e-5)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    text = loaded.generate(IDS[:1], **options)
    assert torch.equal(text, child.generate(IDS[:1], **options))
    rows, following = logits(loaded, text[:, :-1])[0], text[0, IDS.shape[1] :]
    assert torch.equal(rows[IDS.shape[1] - 1 :].argmax(-1), following), "what is remembered equals reading all again"


@pytest.mark.parametrize("family", STATES)
def test_keep_all_changes_no_byte(family: str) -> None:
    model = model_of(family)
    logits(model, IDS)
    before, config = deepcopy(model.state_dict()), model.config.to_dict()
    apply_plan(model, keep_all(model))
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert model.config.to_dict() == config


@pytest.mark.parametrize("family", STATES)
def test_statistics_of_packed_text_are_those_of_its_documents(family: str) -> None:
    """A state would run on into the next document; each piece is read alone, and Block Influence is its definition."""
    model, batch = model_of(family), random_batch()
    measured = stats.collect(model, [batch])
    pieces = [batch.input_ids[row][batch.segment_ids[row] == piece] for row in range(2) for piece in (1, 2)]
    total, tokens = torch.zeros(4, dtype=torch.float64), 0
    layers, seen = arch.decoder_layers(model), []
    handles = [layer.register_forward_hook(lambda _m, a, o: seen.append((a[0], o))) for layer in layers]
    for ids in pieces:
        seen.clear()
        logits(model, ids[None])
        for index, (before, after) in enumerate(seen):
            after = after[0] if isinstance(after, tuple) else after
            total[index] += (1 - torch.cosine_similarity(before, after, -1)).sum().double()
        tokens += len(ids)
    for handle in handles:
        handle.remove()
    assert measured.tokens == tokens and measured.segments == 4
    torch.testing.assert_close(measured.layer_cos.double(), total / tokens, rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match="would mix the documents"):
        run_decoder(model, batch)


def test_pieces_keep_their_tokens_and_positions() -> None:
    batch = random_batch()
    unpacked = next(iter(apart(tiny_config("lfm2"), [batch])))
    assert unpacked.tokens == batch.tokens and int(unpacked.segment_ids.max()) == 1
    text, all_text = unpacked.segment_ids != 0, batch.segment_ids != 0
    for name in ("input_ids", "position_ids"):
        assert torch.equal(getattr(unpacked, name)[text], getattr(batch, name)[all_text])
    assert next(iter(apart(tiny_config("llama"), [batch]))) is batch


@pytest.mark.parametrize("family", HYBRIDS)
def test_neurons_are_measured_as_the_formula_says(family: str) -> None:
    """The mean magnitude of SiLU of the gate, also where the activation is no module."""
    model, batch = model_of(family), random_batch(rows=1, pad=0)
    batch = Batch(
        input_ids=batch.input_ids,
        position_ids=torch.arange(24)[None],
        segment_ids=torch.ones(1, 24, dtype=torch.long),
    )
    spec, layer, inputs = arch.arch_of(model), arch.decoder_layers(model)[1], []
    gate: Any = layer.get_submodule(spec.ffn_rows[0])
    handle = gate.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    measured = stats.collect(model, [batch])
    handle.remove()
    with torch.no_grad():
        expected = torch.nn.functional.silu(inputs[0].clone() @ gate.weight.T).abs().mean((0, 1))
    torch.testing.assert_close(measured.act_abs[1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", STATES)
@pytest.mark.parametrize("method", ["shortgpt", "contextual", "random"])
def test_layers_that_stay_are_never_chosen(family: str, method: str) -> None:
    """Attention layers of a hybrid, and RWKV's first layer with its own norm, stay whatever their scores are."""
    model = model_of(family)
    material = gather(model, [random_batch()])
    fewest = max(2, len(arch.fixed_layers(model)))
    row = METHODS[method]
    shape = replace(arch.shape_of(model), layers=fewest)
    plan = choose(row, material, shape, rank(row, material), base_model="tiny")
    assert len(plan.layers) == fewest and set(arch.fixed_layers(model)) <= set(plan.layers)
    child = apply_plan(model, plan)
    assert logits(child, IDS).isfinite().all()
    assert sum(parameter.numel() for parameter in child.parameters()) == arch.parameters_of(child)


@pytest.mark.parametrize(("family", "layers"), [("lfm2", (0, 2, 3)), ("qwen3_5_text", (0, 2, 3)), ("rwkv", (1, 2, 3))])
def test_plans_that_remove_fixed_layers_are_refused(family: str, layers: tuple[int, ...]) -> None:
    model = model_of(family)
    with pytest.raises(PlanError, match=r"removes layer .*choose a method that leaves it"):
        apply_plan(model, plan_of(model, layers=layers))


@pytest.mark.parametrize("family", STATES)
def test_what_needs_attention_is_refused_in_a_sentence(family: str) -> None:
    model, texts = model_of(family), list(SENTENCES) * 4
    size = arch.parameters_of(model) * 9 // 10
    for method in ("mini-gpt", "flap", "llm-pruner"):
        with pytest.raises(MiniGPTError, match=REFUSAL):
            minigpt.plan(model, tiny_tokenizer(), texts, params=size, method=method, settings=SETTINGS)
    with pytest.raises(UnsupportedModel, match=r"The repair needs attention.*prune without it, and heal\.$"):
        prune_with_repair(model, plan_of(model), [random_batch()])
    with pytest.raises(UnsupportedModel, match=r"The estimate needs.*`minigpt build --plan-only` gives"):
        estimate(model.config)


def test_a_family_that_no_runtime_knows_has_no_gguf_file() -> None:
    with pytest.raises(ExportError, match="have no GGUF writer"):
        family_of(model_of("rwkv").config)


@pytest.mark.parametrize("family", STATES)
def test_a_state_is_handed_from_step_to_step(family: str, tmp_path: Path) -> None:
    """The runtime of PyTorch gives the logits of the whole text, token by token."""
    model = model_of(family)
    worker = TorchRuntime(model, tiny_tokenizer(), folder=tmp_path)
    steps = [worker.begin(IDS[0, :10].tolist()), *(worker.step(int(token)) for token in IDS[0, 10:])]
    wanted = logits(model, IDS[:1])[0, 9:]
    torch.testing.assert_close(torch.stack([torch.tensor(step) for step in steps]), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", STATES)
def test_a_family_is_planned_pruned_saved_and_healed(family: str, tmp_path: Path) -> None:
    """Fewer tokens, layers and neurons; the repair is left out, stock classes load the result, healing trains it."""
    draw = Random(0)
    texts = documents(draw, words(draw, 300), 8)
    model = model_of(family)
    size = arch.parameters_of(model, replace(arch.shape_of(model), layers=3))
    check_the_whole_way(model, texts, size, tmp_path)


def test_variants_of_rwkv_that_change_weights_while_reading_are_refused() -> None:
    config = tiny_config("rwkv")
    config.rescale_every = 6
    with pytest.raises(UnsupportedModel, match=r"rescale_every=6.*set rescale_every to 0 in its config.json"):
        arch.arch_of(config)
    assert not arch.has_state(SimpleNamespace(model_type="llama")) and arch.has_state(tiny_config("rwkv"))
