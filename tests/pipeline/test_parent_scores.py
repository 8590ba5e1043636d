"""Whole builds that read the parent's scores of an earlier build, and that measure the pruned model on a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt import report
from minigpt.evaluation import load_scores
from minigpt.results import BuildReport, MetricResult
from tests.support.building import NO_HEALING, build, folder_of
from tests.support.healing import Notes
from tests.support.worlds import World

PART = {**NO_HEALING, "evaluation.pruned_share": "0.5", "evaluation.questions": "null"}


def metrics(made: BuildReport, stage: str) -> dict[tuple[str, str], MetricResult]:
    """The numbers of a stage by task and metric."""
    (record,) = (each for each in made.stages if each.stage == stage)
    return {(metric.task, metric.metric): metric for metric in record.metrics}


def test_a_second_build_measures_the_parent_no_more(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another method on the same texts reads all scores; the numbers are those that measuring gives."""
    first = build(world.options("first", overrides=NO_HEALING))
    assert len(list((home / "home" / "scores").iterdir())) == 5
    notes = Notes()
    second = build(world.options("second", overrides=NO_HEALING, method="magnitude"), notes)
    assert "Measured by an earlier build: words, general, words/next." in notes.notes
    assert metrics(second, "parent") == metrics(first, "parent")
    monkeypatch.setattr("minigpt.evaluation.kept._read", lambda suite, keys: pytest.fail("read in spite of --force"))
    forced = build(world.options("second", overrides=NO_HEALING, method="magnitude", force=True))
    assert metrics(forced, "parent") == metrics(first, "parent")


def test_another_batch_size_or_a_smaller_text_is_measured_again(world: World, home: Path) -> None:
    build(world.options("one", overrides=NO_HEALING))
    notes = Notes()
    build(world.options("two", overrides={**NO_HEALING, "evaluation.batch_tokens": "256"}), notes)
    assert not any("earlier build" in note for note in notes.notes)
    build(world.options("three", overrides={**NO_HEALING, "evaluation.heldout_bytes": "2000"}), notes)
    assert "Measured by an earlier build: general, words/next." in notes.notes, "general text is shorter than that"


def test_the_pruned_model_is_compared_on_the_part_it_read(world: World, home: Path) -> None:
    options = world.options("part", overrides=PART)
    made = build(options)
    pruned, parent, healed = (metrics(made, stage) for stage in ("pruned", "parent", "healed"))
    assert pruned.keys() == parent.keys() == healed.keys()
    assert [stage.share for stage in made.stages] == [1.0, 0.5, 1.0]
    assert report.load(folder_of(options) / "report.json") == made
    assert any("about 50 % of the texts" in note for note in made.notes)
    key = ("words", "bits_per_byte")
    scores = {
        stage: load_scores(folder_of(options) / "work" / f"measured_{stage}" / "scores.json").texts["words"]
        for stage in ("parent", "pruned")
    }
    bits, sizes = (
        {**dict(zip(scores["parent"].keys, column, strict=True))}
        for column in (scores["parent"].bits, scores["parent"].bytes)
    )
    common = scores["pruned"].keys
    assert len(common) == pruned[key].n <= parent[key].n
    expected = scores["pruned"].bits_per_byte - sum(bits[name] for name in common) / sum(sizes[name] for name in common)
    difference = pruned[key].paired_difference_vs_parent
    assert difference is not None
    assert difference.value == pytest.approx(expected)
    assert healed[key].n == parent[key].n
