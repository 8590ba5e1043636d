"""A build with text of other sources and with repeated wording: both are measured, shown and paired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from minigpt import report
from minigpt.corpus.dedup import words
from minigpt.evaluation import load_scores
from minigpt.evaluation.ratios import RECITATION_METRICS, TEXT_METRICS
from minigpt.pipeline import BuildOptions, plan_specialists
from minigpt.pipeline.groundwork import read
from minigpt.pipeline.run import resolve_run
from minigpt.pipeline.text import training_text
from minigpt.progress import SILENT
from minigpt.results import BuildReport
from tests.support.building import build, folder_of
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def options(world: World) -> BuildOptions:
    """Half of the documents end in one sentence; the last twelve come from another source, as do six general ones."""
    texts = world.root / "docs" / "texts.jsonl"
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    ending = " ".join(rows[0]["text"].split()[:20])
    for row in rows[:36:2]:
        row["text"] += f" {ending}"
    far = rows[36:]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows[:24]))
    domain = yaml.safe_load(world.domain.read_text())
    for name, part, split in (("exam", rows[24:36], "heldout"), ("far", far, "other")):
        (world.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        domain["corpus"].append({"name": name, "file": f"{name}.jsonl", "license": "CC0", "split": split})
    world.domain.write_text(yaml.safe_dump(domain))
    (world.root / "plain-other").mkdir()
    for number in range(6):
        (world.root / "general" / f"{number}.txt").rename(world.root / "plain-other" / f"{number}.txt")
    plain = yaml.safe_load((world.root / "plain.yaml").read_text())
    plain["corpus"].append({"name": "more", "file": "plain-other", "license": "CC0", "split": "other"})
    (world.root / "plain.yaml").write_text(yaml.safe_dump(plain))
    return world.options("other", overrides={**CONTROL, "evaluation.recitation": "8"})


@pytest.fixture(scope="module")
def finished(options: BuildOptions, tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT_HOME", str(tmp_path_factory.mktemp("home")))
        return build(options)


def runs(text: str) -> list[tuple[str, ...]]:
    tokens = words(text)
    return [tuple(tokens[place : place + 8]) for place in range(len(tokens) - 7)]


def unseen_documents(options: BuildOptions, folder: Path) -> tuple[set[str], float]:
    """Sources of held-out documents below 2 %, and the share of seen runs, by sets of words."""
    run = resolve_run(options.domains[0], BuildOptions(**{**fields(options), "output_dir": folder}), SILENT)
    corpora, suite = read(run)
    text = training_text(corpora, run.settings, seed=run.text_seed)
    known = {run for document in (*corpora.domain.calibration, *text.real) for run in runs(document.text)}
    shares, seen, total = {}, 0, 0
    for document in suite.texts["words"]:
        own = runs(document.text)
        hits = sum(item in known for item in own)
        shares[document.source] = hits / len(own)
        seen, total = seen + hits, total + len(own)
    return {source for source, share in shares.items() if share < 0.02}, seen / total


def fields(options: BuildOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def test_every_stage_has_other_sources_and_recitation_and_is_paired(finished: BuildReport) -> None:
    texts = {"words", "words/other", "general", "general/other"}
    for stage in finished.stages:
        measured = {(result.task, result.metric) for result in stage.metrics}
        assert {(task, metric) for task in texts for metric in TEXT_METRICS} <= measured
        assert {(task, metric) for task in ("words", "words/train") for metric in RECITATION_METRICS} <= measured
        for result in stage.metrics:
            assert result.task in finished.fingerprints
            if stage.stage != "parent" and result.metric == "bits_per_byte":
                assert result.paired_difference_vs_parent is not None
            if stage.stage in ("pruned", "healed") and result.metric in ("bits_per_byte", "recitation"):
                assert result.paired_difference_vs_tuned is not None
    counted = {(result.task, result.metric): result.n for result in finished.stages[0].metrics}
    assert counted["words/other", "bits_per_byte"] == 12 and counted["general/other", "bits_per_byte"] == 6
    assert counted["words/train", "recitation"] == 8


def test_documents_below_two_percent_are_a_task_from_the_same_measurement(
    options: BuildOptions, finished: BuildReport, tmp_path: Path
) -> None:
    unseen, share = unseen_documents(options, tmp_path / "again")
    coverage = {item.task: item for item in finished.coverage}
    assert set(coverage) == {"words", "words/other", "general", "general/other"}
    assert coverage["words"].share == pytest.approx(share) and 0.02 < share < 0.2
    assert coverage["words"].unseen == len(unseen) < coverage["words"].documents
    assert coverage["words/other"].share < 0.02
    assert len(unseen) >= 3
    for name in ("parent", "parent_tuned", "pruned", "healed"):
        items = load_scores(folder_of(options) / "work" / f"measured_{name}" / "scores.json").texts["words"]
        picked = [place for place, key in enumerate(items.keys) if key in unseen]
        expected = sum(items.bits[place] for place in picked) / sum(items.bytes[place] for place in picked)
        (stage,) = [stage for stage in finished.stages if stage.stage == name]
        (result,) = [r for r in stage.metrics if (r.task, r.metric) == ("words/unseen", "bits_per_byte")]
        assert (result.value, result.n) == (pytest.approx(expected), len(unseen))
        assert (result.paired_difference_vs_parent is None) == (name == "parent")


def test_the_report_reads_back_and_other_text_is_marked_as_measured_only(
    options: BuildOptions, finished: BuildReport
) -> None:
    assert report.load(folder_of(options)) == finished
    assert {item.name: item.measured_only for item in finished.attributions}["far"] is True


def test_a_plan_tells_the_coverage_before_anything_is_built(options: BuildOptions, tmp_path: Path) -> None:
    overrides = {**options.overrides, "control": "false"}
    changed = BuildOptions(**{**fields(options), "output_dir": tmp_path / "plan", "overrides": overrides})  # type: ignore[arg-type]
    (summary,) = plan_specialists(changed)
    _, share = unseen_documents(options, tmp_path / "again")
    (own,) = [item for item in summary.coverage if item.task == "words"]
    assert own.share == pytest.approx(share)
