"""Tickets of single weights: found in a world, measured, stored with honest bytes, and restored."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minigpt import assets, locks
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.pipeline import lottery
from minigpt.pipeline.lottery import find_ticket, levels_of, restore_ticket, usable_score
from minigpt.pipeline.workspace import LOCK
from minigpt.tickets.masks import Pattern, prunable
from tests.support.building import no_text
from tests.support.commands import run as command
from tests.support.healing import Notes
from tests.support.tiny import tiny_model
from tests.support.worlds import World

SMALL = {"lottery.rounds": "2", "lottery.steps": "3", "evaluation.general": "false", "tuned_parent": "false"}


@pytest.mark.parametrize(("pattern", "share"), [("global", 0.3), ("layer", 0.4), ("2:4", 0.5)])
def test_a_ticket_is_stored_measured_and_restored(world: World, tmp_path: Path, pattern: str, share: float) -> None:
    options = world.options(f"ticket-{share}", overrides=SMALL)
    report = find_ticket(options, pattern, share)
    folder = world.root / f"ticket-{share}"
    assert report.remaining == share and report.rounds[-1].remaining == pytest.approx(share, abs=0.005)
    assert [stage.stage for stage in report.stages] == ["parent", "healed"]
    assert report.stages[-1].bytes == report.stored.file == (folder / "ticket" / "ticket.safetensors").stat().st_size
    assert report.stored.matrices < 0.7 * report.stored.dense_matrices
    assert find_ticket(options, pattern, share) == report
    restore_ticket(folder, tmp_path / "dense")
    model = assets.load_model(tmp_path / "dense")
    assets.load_tokenizer(tmp_path / "dense")
    weights = dict(model.named_parameters())
    zeros = sum(int((weights[name] == 0).sum()) for name in prunable(model))
    assert zeros / sum(weights[name].numel() for name in prunable(model)) == pytest.approx(1 - share, abs=0.01)
    assert bool(model(torch.arange(3, 20)[None]).logits.isfinite().all())
    with pytest.raises(MiniGPTError, match="exists"):
        restore_ticket(folder, tmp_path / "dense")


def test_a_flipped_bit_in_a_ticket_is_named_and_the_ticket_is_made_again(world: World, tmp_path: Path) -> None:
    options = world.options("ticket-flip", overrides=SMALL)
    report = find_ticket(options, "global", 0.3)
    folder = world.root / "ticket-flip"
    weights = folder / "ticket" / "ticket.safetensors"
    before = {name: tensor.clone() for name, tensor in load_file(weights).items()}  # not a view of the file
    flipped = bytearray(weights.read_bytes())
    flipped[-7] ^= 16
    weights.write_bytes(bytes(flipped))
    with pytest.raises(MiniGPTError, match="is damaged"):
        restore_ticket(folder, tmp_path / "dense")
    notes = Notes()
    again = find_ticket(options, "global", 0.3, notes)
    assert any("made again" in note for note in notes.notes) and list(folder.glob("ticket.damaged-*"))
    after = load_file(weights)  # the order of the file's metadata is another one each time
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert [stage.metrics for stage in again.stages] == [stage.metrics for stage in report.stages]
    with locks.hold(folder / "work" / LOCK, "it"), pytest.raises(MiniGPTError, match="in use by process"):
        find_ticket(options, "global", 0.3)


def test_another_ticket_or_a_senseless_share_is_refused(world: World) -> None:
    options = world.options("ticket-0.3", overrides=SMALL)
    find_ticket(options, "global", 0.3)
    with pytest.raises(MiniGPTError, match="something else"):
        find_ticket(options, "global", 0.4)
    with pytest.raises(ConfigError, match="share"):
        find_ticket(options, "global", 1.0)


def test_single_weights_go_by_wanda_and_the_last_training_is_that_of_healing(world: World) -> None:
    changes = {**SMALL, "heal.steps": "5"}
    report = find_ticket(world.options("ticket-wanda", overrides=changes), "layer", 0.3)
    assert [row.steps for row in report.rounds] == [3, 3, 5]
    masks = load_file(world.root / "ticket-wanda" / "ticket" / "ticket.safetensors")
    assert masks
    restore_ticket(world.root / "ticket-wanda", world.root / "wanda-dense")
    model = assets.load_model(world.root / "wanda-dense")
    known = dict(model.named_parameters())
    for name in prunable(model):  # Wanda compares the weights of a row, so that every row keeps as many
        left = (known[name] != 0).sum(1)
        assert int(left.max()) - int(left.min()) <= 1, name


def test_rounds_keep_other_weights_by_another_score(world: World, tmp_path: Path) -> None:
    zeros = {}
    for score in ("magnitude", "wanda", "sparsegpt"):
        changes = {**SMALL, "lottery.score": score, "lottery.last": "2"}
        report = find_ticket(world.options(f"ticket-{score}-score", overrides=changes), "layer", 0.3)
        assert report.rounds[-1].steps == 2
        restore_ticket(world.root / f"ticket-{score}-score", tmp_path / score)
        model = assets.load_model(tmp_path / score)
        weights = dict(model.named_parameters())
        zeros[score] = [weights[name] == 0 for name in prunable(model)]
    for one, other in combinations(zeros.values(), 2):
        assert any(not torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_rounds_whose_masks_have_settled_end_early(world: World) -> None:
    changes = {**SMALL, "lottery.steps": "9", "lottery.early": "0.9", "lottery.last": "2"}
    report = find_ticket(world.options("ticket-early", overrides=changes), "layer", 0.3)
    assert [row.steps for row in report.rounds] == [6, 6, 2]  # five looks behind one step of warm-up


@pytest.mark.parametrize("score", ["wanda", "sparsegpt"])
def test_scores_of_one_matrix_are_refused_across_matrices_before_any_work(world: World, score: str) -> None:
    options = world.options("ticket-refused", overrides={**SMALL, "lottery.score": score})
    with pytest.raises(ConfigError, match=rf"{score} compares the weights of one matrix.*Choose --pattern layer"):
        find_ticket(options, "global", 0.3)
    assert not (world.root / "ticket-refused").exists()


def test_levels_of_groups_give_up_one_weight_a_round() -> None:
    assert levels_of(Pattern("2:4"), 0.1, 9) == (0.75, 0.5)
    assert levels_of(Pattern("2:4"), 0.1, 1) == (0.5,)
    assert len(levels_of(Pattern("layer"), 0.1, 9)) == 9


@pytest.mark.usefixtures("home")
def test_the_command_prints_rounds_and_bytes(world: World, tmp_path: Path) -> None:
    settings = [part for name, value in {**SMALL, **_overrides(world)}.items() for part in ("--set", f"{name}={value}")]
    options = ["--domain", str(world.domain), "--base", str(world.base), "--device", "cpu", *settings]
    result = command("lottery", *options, "--output-dir", str(tmp_path / "t"), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["pattern"] == "layer"
    shown = command("lottery", *options, "--output-dir", str(tmp_path / "t"))
    assert "on disk instead of" in " ".join(shown.stdout.split())
    restored = command("lottery", "--restore", str(tmp_path / "t"), "--output-dir", str(tmp_path / "m"))
    assert restored.exit_code == 0 and (tmp_path / "m" / "model.safetensors").exists()
    assert command("lottery").exit_code == 2
    ignored = command("lottery", "--restore", str(tmp_path / "t"), *options, "--output-dir", str(tmp_path / "n"))
    assert ignored.exit_code == 2 and "--base, --device, --set, --domain would do nothing" in " ".join(
        ignored.output.split()
    )
    twice = command("lottery", *options, "--pattern", "2:4", "--remaining", "0.3")
    assert twice.exit_code == 2 and "leave --remaining out" in twice.output


def _overrides(world: World) -> dict[str, str]:
    return dict(world.options("x").overrides)


def test_one_shot_is_one_round_without_training_before_it(world: World) -> None:
    one_shot = {"lottery.rounds": "1", "lottery.steps": "null", "lottery.last": "3", "lottery.score": "sparsegpt"}
    report = find_ticket(world.options("ticket-once", overrides={**SMALL, **one_shot}), "2:4", 0.5)
    assert [(row.steps, row.remaining) for row in report.rounds] == [(0, 1.0), (3, 0.5)]
    assert report.score == "sparsegpt"


def test_a_ticket_without_any_training_is_pruned_and_stored(world: World) -> None:
    none = {"lottery.rounds": "1", "lottery.steps": "0", "lottery.last": "0"}
    report = find_ticket(world.options("ticket-untrained", overrides={**SMALL, **none}), "layer", 0.5)
    assert [row.steps for row in report.rounds] == [0, 0] and report.rounds[-1].remaining == pytest.approx(
        0.5, abs=0.01
    )


def test_a_family_that_has_no_inputs_to_read_goes_by_magnitude_or_is_refused() -> None:
    transposed, notes = tiny_model("gpt2", layers=2), Notes()
    assert usable_score(transposed, "wanda", notes) == "magnitude"
    assert notes.notes == ["Rounds go by magnitude: wanda cannot read the matrices of this family as they are stored."]
    with pytest.raises(ConfigError, match=r"lottery.score=sparsegpt cannot read.*Choose lottery.score=magnitude"):
        usable_score(transposed, "sparsegpt")
    assert usable_score(transposed, "magnitude") == "magnitude"
    assert usable_score(tiny_model("llama", layers=2), "sparsegpt") == "sparsegpt"


def test_weights_that_sparsegpt_moves_are_not_put_back(world: World) -> None:
    changes = {**SMALL, "lottery.score": "sparsegpt", "lottery.rewinding": "weights"}
    with pytest.raises(ConfigError, match="rewinding=weights would put them back"):
        find_ticket(world.options("ticket-back", overrides=changes), "layer", 0.5)


def test_a_restored_ticket_has_all_files_of_the_model(world: World, tmp_path: Path) -> None:
    """Whoever restores a chat model gets its ends and sampling, the names for older readers, and all templates."""
    parent = tmp_path / "parent"
    model, tokenizer = assets.load_model(world.base), assets.load_tokenizer(world.base)
    model.generation_config.update(do_sample=True, temperature=0.6, eos_token_id=[2, 1])
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    model.save_pretrained(parent)
    tokenizer.save_pretrained(parent)
    find_ticket(world.options("ticket-chat", base=str(parent), overrides=SMALL), "layer", 0.3)
    restore_ticket(world.root / "ticket-chat", tmp_path / "dense")
    stored = world.root / "ticket-chat" / "ticket"
    kept = {path.relative_to(stored) for path in stored.rglob("*") if path.is_file()}
    assert Path("additional_chat_templates/tool_use.jinja") in kept
    for path in kept - {Path("ticket.safetensors"), Path("sums.json")}:
        assert (tmp_path / "dense" / path).read_bytes() == (stored / path).read_bytes(), path
    generation = json.loads((tmp_path / "dense" / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["temperature"]) == ([2, 1], 0.6)
    assert "rope_theta" in json.loads((tmp_path / "dense" / "config.json").read_text())
    modes = {path.stat().st_mode for path in (tmp_path / "dense").iterdir() if path.is_file()}
    assert len(modes) == 1


def test_what_cannot_become_a_ticket_is_refused_before_text_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lottery, "read", no_text)
    for folder, pattern, changes in (("rows", "3:5", {}), ("adapter", "layer", {"heal.adapter": "lora"})):
        options = world.options(f"ticket-{folder}", overrides={**SMALL, **changes})
        with pytest.raises(ConfigError, match=r"groups of 5|heal\.adapter"):
            find_ticket(options, pattern, 0.5)


def test_a_forced_search_leaves_no_ticket_of_the_one_before(world: World, tmp_path: Path) -> None:
    find_ticket(world.options("ticket-forced", overrides=SMALL), "layer", 0.3)
    with pytest.raises(ConfigError, match="groups of 5"):
        find_ticket(world.options("ticket-forced", overrides=SMALL, force=True), "3:5", 0.3)
    with pytest.raises(MiniGPTError):
        restore_ticket(world.root / "ticket-forced", tmp_path / "dense")
