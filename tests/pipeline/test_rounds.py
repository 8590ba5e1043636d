"""Builds with the method lottery: rounds, a smaller stock model, the report, and a resumed build."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt import assets
from minigpt.errors import ConfigError, UnsupportedModel
from minigpt.methods import method_named
from minigpt.methods.material import gather
from minigpt.methods.ranking import rank
from minigpt.pipeline import build as build_module
from minigpt.sweep.options import SweepOptions
from minigpt.sweep.run import sweep
from tests.support import tiny
from tests.support.archsuite import random_batch
from tests.support.building import build, folder_of, no_text
from tests.support.healing import Notes
from tests.support.worlds import World

LOTTERY = {
    "lottery.rounds": "2",
    "lottery.steps": "3",
    "lottery.layer_share": "0.25",
    "evaluation.general": "false",
    "heal.steps": "3",
    "tuned_parent": "false",
}


def test_a_build_leaves_a_smaller_stock_model_and_tells_its_rounds(world: World) -> None:
    from transformers import AutoModelForCausalLM

    options = world.options("lottery", method="lottery", overrides=LOTTERY)
    report = build(options)
    model = AutoModelForCausalLM.from_pretrained(folder_of(options) / "model")
    parent = AutoModelForCausalLM.from_pretrained(world.base)
    assert model.num_parameters() == report.stages[-1].parameters < 0.78 * parent.num_parameters()
    assert [row.number for row in report.rounds] == [0, 1, 2]
    assert [row.remaining for row in report.rounds] == sorted((row.remaining for row in report.rounds), reverse=True)
    assert report.rounds[0].remaining == 1.0 and all(row.steps == 3 for row in report.rounds)
    assert not (folder_of(options) / "work" / "rounds_work").exists()
    assert build(options) == report


def test_other_methods_have_no_rounds(world: World) -> None:
    options = world.options("contextual", overrides={"evaluation.general": "false", "heal.steps": "0"})
    assert build(options).rounds == ()


def test_without_a_build_the_method_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="minigpt build"):
        rank(method_named("lottery"), gather(tiny.tiny_model(), [random_batch()]))


def test_a_criterion_that_ranks_nothing_is_refused(world: World) -> None:
    options = world.options("shortgpt", method="lottery", overrides={**LOTTERY, "lottery.criterion": "shortgpt"})
    with pytest.raises(ConfigError, match="criterion"):
        build(options)


def test_families_that_rounds_cannot_rank_are_refused_before_any_text_is_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.tiny_model("mixtral", layers=2).save_pretrained(tmp_path / "parent")
    assets.load_tokenizer(world.base).save_pretrained(tmp_path / "parent")
    options = world.options("lottery-moe", method="lottery", base=str(tmp_path / "parent"), overrides=LOTTERY)
    monkeypatch.setattr(build_module, "read", no_text)
    with pytest.raises(UnsupportedModel, match="A ticket of whole units"):
        build(options)


@pytest.mark.parametrize("methods", [("random", "lottery"), ("lottery", "random")])
def test_a_sweep_leaves_out_what_rounds_cannot_do_and_goes_on(
    world: World, tmp_path: Path, methods: tuple[str, ...]
) -> None:
    tokenizer = assets.load_tokenizer(world.base)
    tiny.tiny_model("mixtral", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "parent")
    tokenizer.save_pretrained(tmp_path / "parent")
    built = world.options("x", overrides=LOTTERY)
    options = SweepOptions(
        domains=built.domains,
        methods=methods,
        sizes=(0.9,),
        base=str(tmp_path / "parent"),
        output_dir=tmp_path / "sweep",
        device="cpu",
        overrides=built.overrides,
        pictures=False,
    )
    notes = Notes()
    found = sweep(options, notes)
    [domain] = found.domains
    assert {row.method for row in domain.rows} == {"random"}
    assert any("A ticket of whole units" in reason for reason in domain.skipped.values())
