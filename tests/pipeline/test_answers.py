"""A build with tasks: training prompts join the healing text, held-out ones are measured, the page shows answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from minigpt.pipeline import build_specialists
from minigpt.pipeline.groundwork import read
from minigpt.pipeline.run import resolve_run
from minigpt.pipeline.text import training_text
from minigpt.progress import SILENT
from minigpt.report.figures import metric_of
from minigpt.results import BuildReport
from tests.support.worlds import World, make_world

TASKS = {"evaluation.answers": "4", "evaluation.samples": "3", "text.answers": "5"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small world whose domain has a rule's task, and its general text instructions."""
    world = make_world(tmp_path_factory.mktemp("answers"))
    root = world.root
    rows = [
        {"prompt": "Say it in one sentence.", "constraints": [{"kind": "sentences", "value": 1}]},
        {"prompt": "Write a number.", "constraints": [{"kind": "number"}]},
    ]
    (root / "say.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    domain = yaml.safe_load(world.domain.read_text())
    domain["tasks"] = [{"name": "blank", "rule": "missing_word", "max_tokens": 3, "shots": 1}]
    world.domain.write_text(yaml.safe_dump(domain))
    general = yaml.safe_load((root / "plain.yaml").read_text())
    general["tasks"] = [{"name": "say", "file": "say.jsonl", "chat": True, "split": "heldout", "max_tokens": 3}]
    (root / "plain.yaml").write_text(yaml.safe_dump(general))
    return world


@pytest.fixture(scope="module")
def report(world: World) -> BuildReport:
    """The report of a build."""
    (built,) = build_specialists(world.options("build", overrides=TASKS))
    return built


def test_prompts_that_measure_are_never_trained_on(world: World) -> None:
    run = resolve_run(str(world.domain), world.options("text", overrides=TASKS), SILENT)
    corpora, suite = read(run)
    text = training_text(corpora, run.settings, seed=0)
    assert 0 < len(text.answers) <= 5
    task = suite.answers["words/blank"]
    trained = "\n".join(document.text for document in (*text.real, *text.answers))
    assert len(task.prompts) == 4
    assert not any(item.prompt in trained for item in task.prompts)
    heldout = {document.source for document in corpora.domain.heldout}
    assert {item.source for item in task.prompts} <= heldout
    assert not {document.source for document in text.answers} & heldout
    without = training_text(corpora, replace(run.settings, text=replace(run.settings.text, answers=0)), seed=0)
    assert without.answers == ()
    assert without.key != text.key


def test_parent_and_specialist_are_asked_and_paired(report: BuildReport) -> None:
    for task, metric in (
        ("words/blank", "exact_match"),
        ("words/blank", "format_compliance"),
        ("general/say", "instructions_followed"),
    ):
        parent, ours = (metric_of(report.stage(name), task, metric) for name in ("parent", "healed"))  # type: ignore[arg-type]
        assert parent is not None and ours is not None
        assert parent.n == ours.n == (4 if task == "words/blank" else 2)
        assert ours.paired_difference_vs_parent is not None
        assert ours.value - parent.value == pytest.approx(ours.paired_difference_vs_parent.value)
        assert metric_of(report.stage("pruned"), task, metric) is None, "nobody uses the model before healing"
        assert task in report.fingerprints
    assert any("were trained on with their answers" in note for note in report.notes)
    assert any(note.startswith("blank: Derived") for note in report.notes)


def test_samples_and_answers_stand_on_the_page_and_on_no_card(report: BuildReport, world: World) -> None:
    assert len(report.sample_prompts) == 3
    for name in ("parent", "healed"):
        stage = report.stage(name)  # type: ignore[arg-type]
        assert stage is not None and len(stage.samples) == 3
    counted = {entry.task: entry for entry in report.exchanges}
    assert set(counted) == {"words/blank", "general/say", "words/next"}
    blank = counted["words/blank"]
    assert blank.both + blank.won + blank.lost + blank.neither == 4
    page = (world.root / "build" / "report.html").read_text()
    card = (world.root / "build" / "model" / "README.md").read_text()
    for prompt in report.sample_prompts:
        assert prompt in page
        assert prompt not in card


def test_the_same_build_again_returns_the_same_report(report: BuildReport, world: World) -> None:
    assert build_specialists(world.options("build", overrides=TASKS)) == (report,)


def test_nothing_is_asked_where_the_settings_say_so(world: World) -> None:
    options = world.options("none", overrides={"evaluation.answers": "0", "evaluation.samples": "0"})
    _, suite = read(resolve_run(str(world.domain), options, SILENT))
    assert suite.answers == {}
    assert suite.samples == ()


def test_the_recipe_repeats_the_tasks(report: BuildReport, world: World) -> None:
    domain = yaml.safe_load((world.root / "build" / "domain.yaml").read_text())
    assert domain["tasks"][0]["name"] == "blank"
    assert "answers: 4" in Path(world.root / "build" / "recipe.yaml").read_text()
