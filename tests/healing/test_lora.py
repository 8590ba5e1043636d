"""LoRA: only adapters move, and what is left is a plain model of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from minigpt.errors import ConfigError
from minigpt.healing import Recipe, bits_per_byte, train
from minigpt.healing.adapters import check_adapter, trainable
from minigpt.pruning.apply import apply_plan
from minigpt.transformer import nf4
from minigpt.types import PrunePlan
from tests.support.healing import VOCABULARY, Killed, Killer, patterned, recipe
from tests.support.tiny import tiny_model

TEXT, DEV = patterned(80), patterned(12, seed=1)
LORA = {"adapter": "lora", "rank": 4, "learning_rate": 1e-2}


def fresh(family: str = "llama", tied: bool = True) -> Any:
    return tiny_model(family, vocab_size=VOCABULARY, tied=tied)


def pruned(family: str) -> Any:
    """Three of four layers, half of the neurons, one of two KV groups."""
    plan = PrunePlan(
        base_model="tiny",
        method="test",
        seed=0,
        layers=(0, 1, 3),
        ffn=(tuple(range(0, 64, 2)),) * 3,
        kv_groups=((1,),) * 3,
    )
    return apply_plan(fresh(family), plan)


def modules(model: Any) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules()}


@pytest.mark.parametrize("shape", ["whole", "pruned"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
def test_adapters_merge_into_a_plain_model(family: str, shape: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = fresh(family) if shape == "whole" else pruned(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = modules(model)
    result = train(model, TEXT, DEV, recipe(**LORA))
    assert result.best_step > 0
    assert list(model.state_dict()) == list(before) and modules(model) == kinds
    assert not any("peft" in name for name in vars(model)) and all(p.requires_grad for p in model.parameters())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
    best = min(loss for _, loss in result.dev_losses)
    assert bits_per_byte(model, DEV, precision="fp32") == pytest.approx(best, rel=1e-4)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert bits_per_byte(again, DEV, precision="fp32") == pytest.approx(best, rel=1e-4)


def test_only_adapters_are_trained() -> None:
    model = fresh()
    with trainable(model, recipe(**LORA)) as adapted:
        free = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
        linear = sum(isinstance(module, nn.Linear) for name, module in fresh().named_modules() if name != "lm_head")
        assert len(free) == 2 * linear and all(".lora_" in name for name in free)
        rank = 4
        sizes = [(p.in_features, p.out_features) for p in fresh().model.modules() if isinstance(p, nn.Linear)]
        assert sum(p.numel() for p in free.values()) == sum(rank * (a + b) for a, b in sizes)


def test_untied_heads_are_left_alone() -> None:
    model = fresh(tied=False)
    head = model.lm_head.weight.clone()
    train(model, TEXT, DEV, recipe(**LORA))
    assert torch.equal(model.lm_head.weight, head)


def test_an_interrupted_run_leaves_the_model_as_it_was() -> None:
    """So that the same process can train it again."""
    model = fresh()
    before, kinds = {name: value.clone() for name, value in model.state_dict().items()}, modules(model)
    with pytest.raises(Killed):
        train(model, TEXT, DEV, recipe(**LORA), reporter=Killer(3))
    assert modules(model) == kinds and list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training and not any("peft" in name for name in vars(model))


def test_chosen_targets_are_kept_to() -> None:
    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, TEXT, DEV, recipe(**LORA, targets=r".*\.(q|v)_proj"))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}


def test_targets_that_name_no_layer_are_refused_in_a_sentence() -> None:
    with (
        pytest.raises(ConfigError, match="'nope' of a training recipe name no layer"),
        trainable(tiny_model(), recipe(adapter="lora", targets="nope")),
    ):
        pass


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_recomputed_activations_train_the_same_weights(adapter: Literal["full", "lora"]) -> None:
    runs = []
    for saves_memory in (False, True):
        model = fresh()
        train(model, TEXT, DEV, recipe(steps=4, adapter=adapter), saves_memory=saves_memory)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_frozen_weights_may_stay_in_bf16() -> None:
    model = fresh().to(torch.bfloat16)
    train(model, TEXT, DEV, recipe(steps=2, adapter="lora"), saves_memory=True)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_adapters_are_refused_by_what_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nf4, "library", lambda: None)
    check_adapter(tiny_model(layers=2), Recipe(adapter="qlora", targets="ffn"))
    check_adapter(tiny_model("mixtral", layers=2), Recipe(adapter="full", targets="ffn"))
    with pytest.raises(ConfigError, match="one FFN in each layer"):
        check_adapter(tiny_model("mixtral", layers=2), Recipe(adapter="lora", targets="ffn"))
    with pytest.raises(ConfigError, match="no plain linear layer to hold in 4 bits"):
        check_adapter(tiny_model("gpt2", layers=2), Recipe(adapter="qlora"))
