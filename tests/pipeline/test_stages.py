"""Stages of whole small builds: their numbers, when a build is new, resumed, without healing, or only planned."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from minigpt.cli.console import PlainReporter
from minigpt.evaluation import Suite
from minigpt.files import read_json
from minigpt.pipeline import BuildOptions, plan_specialists
from minigpt.pipeline.lottery import with_rounds
from minigpt.pipeline.numbering import RECORD
from minigpt.pipeline.outlook import Sizes, sizes_of
from minigpt.pipeline.run import Run, load_parent, resolve_run
from minigpt.pipeline.stages import TICKET_ROWS, names_of, rows_of, works_of
from minigpt.pipeline.workspace import DONE
from minigpt.progress import SILENT
from minigpt.progress.stages import Prediction
from tests.support.building import FAST, build, folder_of
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")

NUMBER = re.compile(r"Stage (\d+) of (\d+): (.*?)( \.\.\.|\.)?$")


def names(options: BuildOptions) -> list[str]:
    """Names of the stages that a build goes through."""
    run = resolve_run(options.domains[0], options, SILENT)
    return [name for row in rows_of(run) for name in names_of(row, run)]


def stages(options: BuildOptions) -> list[tuple[int, int, str]]:
    """Number, count and title of the lines that begin the stages of a build."""
    stream = io.StringIO()
    build(options, PlainReporter(stream))
    lines = [NUMBER.match(line) for line in stream.getvalue().splitlines() if "done in" not in line]
    return [(int(match[1]), int(match[2]), match[3]) for match in lines if match]


def test_presets_count_what_they_run(world: World) -> None:
    quick = names(replace(world.options("names"), overrides={}))
    assert quick == [
        *("parent", "corpus", "measured_parent", "plan", "pruned", "measured_pruned"),
        *("healed", "measured_healed", "report"),
    ]
    standard = names(replace(world.options("names"), overrides={}, preset="standard"))
    assert standard == [
        *("parent", "corpus", "tuned_first", "sampled", "tuned", "measured_parent", "blended"),
        *("measured_parent_tuned", "plan", "pruned", "measured_pruned", "healed", "measured_healed", "report"),
    ]
    changes = {"heal.steps": "0", "tune.seeds": "3", "twin": "true", "blend": "0"}
    changed = names(replace(world.options("names"), overrides=changes, preset="standard"))
    assert "healed" not in changed
    assert "blended" not in changed
    assert {"tuned_seed1", "tuned_seed2", "distilled", "measured_parent_distilled"} <= set(changed)


def test_other_products_have_other_stages(world: World) -> None:
    options = world.options("names")
    assert names(replace(options, delta=0.1))[-6:-2] == ["delta_dense", "delta_1", "delta_2", "delta"]
    assert "plan" not in names(replace(options, masked=True))
    assert names(replace(options, conditional="fff"))[-1] == "measured_conditional"
    assert "rounds" in names(replace(options, method="lottery"))


def test_a_resumed_build_says_what_is_there(world: World) -> None:
    options = world.options("resumed", overrides=CONTROL)
    first = stages(options)
    count = len(names(options))
    assert {of for _, of, _ in first} == {count}
    assert sorted({number for number, _, _ in first}) == list(range(1, count + 1))
    assert (count - 1, count, "Evaluating the healed model") in first
    folder = folder_of(options)
    (folder / "report.json").unlink()
    for path in (folder / "work").glob(f"*/{DONE}"):
        if path.parent.name in ("healed", "measured_healed"):
            path.unlink()
    again = stages(options)
    assert (again[-1][0], again[-1][1]) == (count, count)
    assert any(title == "Evaluating the parent: there already" for _, _, title in again)
    assert (count - 1, count, "Evaluating the healed model") in again


def test_without_healing_no_stage_heals_and_predictions_are_kept(world: World) -> None:
    options = world.options("unhealed", overrides=FAST)
    lines = stages(options)
    assert {of for _, of, _ in lines} == {8}
    assert not any("Healing" in title for _, _, title in lines)
    records = {one.name: one for one in read_json(folder_of(options) / "work" / RECORD, tuple[Prediction, ...])}
    assert list(records) == names(options)
    last = records["measured_healed"]
    assert last.rate is not None
    assert last.predicted == pytest.approx(last.operations / last.rate)
    assert last.left is not None
    assert last.left <= last.predicted
    share = records["measured_healed"].operations / records["measured_parent"].operations
    assert share == pytest.approx(0.75, rel=0.01)


def test_a_plan_says_the_time_and_the_disk_of_the_build(world: World) -> None:
    (plan,) = plan_specialists(world.options("planned", overrides={"evaluation.batch_tokens": "64"}))
    assert plan.disk_needed is not None
    assert plan.disk_free is not None
    student = 2 * plan.parameters_after
    assert plan.disk_needed == pytest.approx(2 * student + 16 * plan.parameters_after, rel=0.02)
    assert plan.disk_free > plan.disk_needed
    assert plan.seconds_to_build is not None, "statistics of several batches have a speed"
    assert plan.seconds_to_build > 0


@pytest.mark.parametrize(("method", "probes"), [("contextual", 9), ("shortgpt", 0), ("magnitude", 5)])
def test_a_parent_without_shipped_costs_is_probed_and_probes_are_counted(
    world: World, method: str, probes: int
) -> None:
    options = replace(world.options("probed"), method=method)
    run = resolve_run(options.domains[0], options, SILENT)
    known = sizes_of(run, load_parent(run), Suite())
    assert known.probes == probes
    plan, rows = run.settings.plan, rows_of(run)
    works = works_of(run, rows, known)
    read = plan.tokens * (2 if plan.contrast else 1) + 3 * plan.probe_tokens * known.probes
    assert works["plan"].operations == pytest.approx(known.parent * read)


def sizes(options: BuildOptions) -> tuple[Run, Sizes]:
    """A build, and sizes of round numbers."""
    run = resolve_run(options.domains[0], options, SILENT)
    numbers = {"parent_bytes": 200, "student_bytes": 150, "student_parameters": 75}
    return run, Sizes(settings=run.settings, parent=100.0, student=75.0, tokens=1000.0, **numbers)


def test_rounds_of_a_delta_ticket_count_their_own_steps(world: World) -> None:
    changes = {"delta.steps": "400", "delta.rounds": "3", "delta.last": "0.5", "delta.distill": "1"}
    run, known = sizes(replace(world.options("works", overrides=changes), delta=0.1))
    works = works_of(run, rows_of(run), known)
    step = 256 * (3 * 100.0 + 100.0)
    assert [works[f"delta_{number}"].operations for number in (1, 2, 3)] == [100 * step, 100 * step, 200 * step]
    assert works["delta_1"].loop == "Round"


def test_rounds_of_a_lottery_ticket_count_every_training(world: World) -> None:
    changes = {
        "lottery.rounds": "3",
        "lottery.steps": "10",
        "lottery.rewind": "2",
        "heal.distill": "0",
        "lottery.rewinding": "weights",
    }
    run, known = sizes(replace(world.options("works", overrides=changes), method="lottery"))
    works = works_of(run, rows_of(run), known)
    assert works["rounds"].operations == pytest.approx((4 * 10 + 2) * 256 * 300.0)
    lottery = known.settings.lottery.for_weights(known.settings.heal.steps, across=False, rounds=4)
    whole = with_rounds(replace(known, settings=replace(known.settings, lottery=lottery)), 2)
    assert whole.student == 100.0
    ticket = works_of(run, TICKET_ROWS, whole)
    heal = known.settings.heal.steps
    scored = 100.0 * known.settings.plan.tokens * 2 * 2  # two prunings by Wanda, two passes each
    assert heal != 10 and ticket["healed"].operations == pytest.approx((2 * 10 + heal + 2) * 256 * 300.0 + scored)
    assert ticket["measured_healed"].operations == pytest.approx(1000 * 100.0)


def test_a_lottery_build_predicts_its_rounds_and_names_them(world: World) -> None:
    changes = {**FAST, "lottery.rounds": "2", "lottery.steps": "3"}
    options = world.options("rounds", method="lottery", overrides=changes)
    titles = [title for _, _, title in stages(options)]
    assert [title for title in titles if title.startswith("Round")] == [
        "Round 0: 100.0% of the weights",
        *(title for title in titles if title.startswith(("Round 1:", "Round 2:"))),
    ]
    assert not any("nothing to do" in title for title in titles if "ticket" in title)
    records = {one.name: one for one in read_json(folder_of(options) / "work" / RECORD, tuple[Prediction, ...])}
    assert records["rounds"].kind == "train"
    assert records["plan"].left is not None
