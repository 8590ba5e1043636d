"""Healing where the specialist is its teacher already: only tokens were removed, so nothing is left to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from minigpt.errors import ConfigError
from minigpt.healing.teacher import parent_ids_of, restricted_head
from minigpt.pipeline import BuildOptions, healing
from minigpt.pipeline.healing import NOTHING_TO_LEARN
from minigpt.pipeline.unchanged import only_tokens_are_missing
from minigpt.results import BuildReport, StageReport
from tests.support.building import build, folder_of, weights_of
from tests.support.healing import Notes
from tests.support.tiny import tiny_model
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")

# A source whose weights are the pruned model's exactly, and tuning that changes them.
FAST = {**CONTROL, "heal.distill": "1", "evaluation.general": "false", "evaluation.sample_tokens": "0"}

# Parameters of the parent without 256 tokens of 32 numbers.
FEWER_TOKENS = 176_416 - 256 * 32


def options(world: World, folder: str, **changes: Any) -> BuildOptions:
    overrides = FAST | changes.pop("overrides", {})
    return world.options(folder, overrides=overrides, **changes)


def healed_stage(made: BuildReport) -> StageReport:
    """The stage of the healed model, whose record says whether healing was left out."""
    healed = made.stage("healed")
    assert healed is not None and healed.training is not None
    assert ("left out" in healed.training.recipe) == (healed.training.steps == 0)
    return healed


def test_healing_is_left_out_where_only_tokens_were_removed(world: World) -> None:
    """The specialist is the pruned model, value by value, and the build says so."""
    notes = Notes()
    made = build(options(world, "tokens", kinds=("embedding",), target_params=FEWER_TOKENS), notes)
    healed, pruned = healed_stage(made), made.stage("pruned")
    assert healed.training is not None and healed.training.steps == 0
    assert NOTHING_TO_LEARN in notes.notes
    assert pruned is not None
    values = [[(one.task, one.metric, one.value) for one in stage.metrics] for stage in (pruned, healed)]
    assert values[0] and values[0] == values[1]
    assert any("Healing was left out" in note for note in made.notes)
    folder = folder_of(options(world, "tokens"))
    assert "healed on" not in (folder / "model" / "README.md").read_text("utf-8")
    assert weights_of(folder / "model")["model.embed_tokens.weight"].shape == (2048 - 256, 32)


def test_healing_trains_where_it_has_something_to_learn(world: World) -> None:
    """A build with fewer neurons learns from its teacher, and one with fewer tokens from the text itself."""
    text = {"kinds": ("embedding",), "target_params": FEWER_TOKENS, "overrides": {"heal.distill": "0.5"}}
    notes = Notes()
    for name, changes in {"text": text, "neurons": {"kinds": ("linear",), "target_size": 0.9}}.items():
        healed = healed_stage(build(options(world, name, **changes), notes))
        assert healed.training is not None and healed.training.steps == 6
    assert NOTHING_TO_LEARN not in notes.notes


def test_memory_for_a_healing_that_is_left_out_is_not_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the checkpoint of one kept that an older version had begun."""

    def refuse(*_: Any) -> None:
        raise ConfigError("Healing does not fit.")

    monkeypatch.setattr(healing, "healing_form", refuse)
    left = folder_of(options(world, "small")) / "work" / "healed.safetensors"
    notes = Notes()
    monkeypatch.setattr(notes, "note", lambda message: left.touch() if message == NOTHING_TO_LEARN else None)
    made = build(options(world, "small", kinds=("embedding",), target_params=FEWER_TOKENS), notes)
    assert healed_stage(made).bytes and not left.exists()
    with pytest.raises(ConfigError, match="does not fit"):
        build(options(world, "neurons-small", kinds=("linear",), target_size=0.9))


def test_the_twin_of_a_parent_that_was_not_tuned_is_trained(world: World) -> None:
    """It is the parent with another healing, whatever was removed from the specialist."""
    text = {"tuned_parent": "false", "twin": "true"}
    made = build(options(world, "twin", kinds=("embedding",), target_params=FEWER_TOKENS, overrides=text))
    twin = made.stage("parent_distilled")
    assert twin is not None and twin.training is not None and twin.training.steps == 6
    assert healed_stage(made).training.steps == 0
    assert any("healing that the specialist went without" in note for note in made.notes)


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_models_are_compared_by_the_tokens_that_both_have(tmp_path: Path, family: str) -> None:
    """A trimmed model gives its source's probabilities, by its own arithmetic; one changed weight is seen."""
    whole: Any = tiny_model(family, vocab_size=96)
    source, ids = saved(whole, tmp_path / "source"), (3, 4, 7, *range(20, 81))
    small: Any = AutoModelForCausalLM.from_pretrained(source)
    rows = torch.tensor(ids)
    embedding = small.get_input_embeddings()
    values = embedding.weight.detach()[rows].clone()
    head = small.get_output_embeddings().weight.detach()[rows].clone()
    small.resize_token_embeddings(len(ids))
    with torch.no_grad():
        small.get_input_embeddings().weight.copy_(values)
        small.get_output_embeddings().weight.copy_(head)
    pruned = saved(small, tmp_path / "pruned")
    assert only_tokens_are_missing(source, pruned, ids)
    assert not only_tokens_are_missing(source, pruned, None)
    assert not only_tokens_are_missing(source, pruned, (*ids[:-1], 95))
    assert only_tokens_are_missing(source, pruned, ids[:-2]), "rows behind the tokens stand for none of the source"
    half = saved(AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.bfloat16), tmp_path / "half")
    assert only_tokens_are_missing(source, half, ids)
    text = torch.arange(3, 33)[None]
    parent_ids = parent_ids_of(ids, len(ids))
    assert parent_ids is not None
    whole.set_output_embeddings(restricted_head(whole.get_output_embeddings(), parent_ids))
    theirs = whole(input_ids=parent_ids[text]).logits
    torch.testing.assert_close(small(input_ids=text).logits, theirs)

    path = pruned / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "layers.1" in name or "h.1" in name)
    weights[name].view(-1)[-1] += 0.01
    save_file(weights, path, metadata={"format": "pt"})
    assert not only_tokens_are_missing(source, pruned, ids)


def test_a_model_without_a_layer_or_without_files_is_another_one(tmp_path: Path) -> None:
    source = saved(tiny_model("llama"), tmp_path / "source")
    assert only_tokens_are_missing(source, source, None)
    shallow: Any = tiny_model("llama")
    shallow.model.layers = shallow.model.layers[:-1]
    shallow.config.num_hidden_layers -= 1
    assert not only_tokens_are_missing(source, saved(shallow, tmp_path / "shallow"), None)
    (tmp_path / "empty").mkdir()
    assert not only_tokens_are_missing(source, tmp_path / "empty", None)
