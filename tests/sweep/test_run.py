"""Sweeps of a small world: what is shared, what is left behind, how they resume; and the cross-domain matrix."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import minigpt
from minigpt import pipeline, report
from minigpt.cli import cli
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.files import read_json, read_jsonl
from minigpt.sweep import Matrix, SweepOptions, SweepReport, sweep
from minigpt.sweep.matrix import cross_domain
from minigpt.sweep.run import POINTS, claim
from tests.support.worlds import SMALL, World, make_world

FAST = {
    **SMALL,
    "heal.steps": "2",
    "heal.evaluate_every": "2",
    "repair.tokens": "0",
    "plan.kv_groups": "2",
    "evaluation.sample_tokens": "0",
}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def options(world: World, folder: str, **changes: Any) -> SweepOptions:
    values: dict[str, Any] = {
        "domains": (str(world.domain),),
        "methods": ("flap", "random"),
        "sizes": (0.9,),
        "base": str(world.base),
        "device": "cpu",
        "output_dir": world.root / folder,
        "overrides": FAST,
        "pictures": False,
    }
    return SweepOptions(**(values | changes))


@pytest.fixture(scope="module")
def done(world: World) -> tuple[SweepOptions, SweepReport]:
    sweep_options = options(world, "healed", healing="preset", pictures=True)
    return sweep_options, sweep(sweep_options)


def test_a_sweep_leaves_reports_lines_pictures_and_no_weights(done: tuple[SweepOptions, SweepReport]) -> None:
    sweep_options, result = done
    root = sweep_options.output_dir
    lines = read_jsonl(root / "points.jsonl")
    assert [line["id"] for line in lines] == ["flap-0.9-s0-preset", "random-0.9-s0-preset"]
    for line in lines:
        point_report = report.load(root / line["report"])
        assert [stage.stage for stage in point_report.stages] == ["parent", "pruned", "healed"]
        assert {stage.share for stage in point_report.stages} == {1.0}, "quick measures the pruned model on less"
        assert point_report.method == line["method"] and point_report.stages[-1].parameters == line["parameters"]
        healed = next(score for score in line["scores"] if (score["stage"], score["task"]) == ("healed", "words"))
        metric = next(metric for metric in point_report.stages[-1].metrics if metric.task == "words")
        assert healed["value"]["value"] == pytest.approx(metric.value)
    assert not list(root.glob("*/points/**/*.safetensors"))
    assert not [path for path in root.glob("*/shared/work") if path.stat().st_mode & 0o077], "it holds private text"
    assert (root / "index.html").exists() and (root / "plots" / "words-quality.png").exists()
    assert read_json(root / "sweep.json", SweepReport) == result
    (domain,) = result.domains
    assert len(domain.block_influence) == 4 and len(domain.angular) == 5
    assert {cell.stage for cell in domain.cells} == {"pruned", "healed"}


def test_the_same_sweep_again_computes_nothing(
    done: tuple[SweepOptions, SweepReport], made: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_options, result = done

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a model was loaded again")

    monkeypatch.setattr("minigpt.assets.load_model", fail)
    assert sweep(replace(sweep_options, pictures=False)) == replace(result, files=())
    assert not made


def test_a_sweep_grows_and_shares_what_it_can(
    done: tuple[SweepOptions, SweepReport], world: World, made: Counter[str]
) -> None:
    sweep_options = options(world, "grown", healing="none")
    sweep(sweep_options)
    assert made["corpus"] == made["measured_parent"] == made["statistics"] == 1
    assert made["plan"] == made["pruned"] == 2 and made["healed"] == 0
    grown = sweep(replace(sweep_options, methods=("magnitude", "random"), sizes=(0.9, 0.85)))
    assert made["statistics"] == made["measured_parent"] == 1
    assert made["plan"] == 5
    names = [line["id"] for line in read_jsonl(sweep_options.output_dir / "points.jsonl")]
    assert len(names) == len(set(names)) == 5
    assert len(grown.domains[0].rows) == 4


def test_other_general_text_to_heal_on_is_another_point(tmp_path: Path, made: Counter[str]) -> None:
    """Without a tuned parent no other part of a point's key depends on the general text that is mixed in."""
    world = make_world(tmp_path)
    mixed = {**FAST, "text.general": "1"}
    sweep_options = options(world, "mixed", methods=("random",), healing="preset", overrides=mixed)
    sweep(sweep_options)
    work = sweep_options.output_dir / "words" / "shared" / "work"
    read = read_jsonl(work / "corpus" / "general" / "train.jsonl")[0]["text"]
    (file,) = (path for path in (world.root / "general").iterdir() if read in path.read_text())
    file.write_text(f"{read} {read.upper()}")
    sweep(sweep_options)
    assert made["corpus"] == 2 and made["measured_parent"] == 1, "what is measured on must be the same"
    assert made["healed"] == 2


def test_sensitivity_is_measured_once_a_method(world: World, made: Counter[str]) -> None:
    """Points alternate between methods, and what one measured stays for its next size and seed."""
    overrides = {name: value for name, value in FAST.items() if name != "plan.kv_groups"}
    overrides |= {"plan.sensitivity": "measure", "plan.probe_tokens": "64"}
    sweep_options = options(world, "measured", methods=("wanda", "random"), sizes=(0.9, 0.85), overrides=overrides)
    sweep(sweep_options)
    assert made["pruned"] == 4
    assert {name: times for name, times in made.items() if name.startswith("sensitivity")} == {
        "sensitivity-wanda-s0": 1,
        "sensitivity-random-s0": 1,
    }


def test_a_killed_sweep_loses_at_most_the_point_it_was_at(
    world: World, made: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(world, "killed")
    from minigpt.sweep import run

    whole = run.specialize
    calls: list[str] = []

    def dying(point: Any, *rest: Any, **more: Any) -> Any:
        calls.append(point.options.method)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(point, *rest, **more)

    monkeypatch.setattr(run, "specialize", dying)
    with pytest.raises(KeyboardInterrupt):
        sweep(chosen)
    assert len(read_jsonl(chosen.output_dir / "points.jsonl")) == 1
    found = sweep(chosen)
    assert calls == ["flap", "random", "random"]
    assert len(found.domains[0].rows) == 2
    assert made["plan"] == 2


def test_a_size_that_cannot_be_met_is_skipped_and_said(world: World) -> None:
    result = sweep(options(world, "skipped", methods=("flap",), sizes=(0.9, 0.05)))
    assert list(result.domains[0].skipped) == ["flap-0.05-s0-none"]
    assert len(result.domains[0].rows) == 1


def test_a_folder_of_something_else_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(MiniGPTError, match="no sweep"):
        sweep(options(world, "x", output_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_a_killed_claim_leaves_does_not_block(tmp_path: Path) -> None:
    (tmp_path / f".{POINTS}.x1y2z3w4").write_text("")
    claim(tmp_path)
    assert (tmp_path / POINTS).exists()


def test_the_command_gives_json(done: tuple[SweepOptions, SweepReport]) -> None:
    sweep_options, _ = done
    sets = [part for name, value in FAST.items() for part in ("--set", f"{name}={value}")]
    arguments = ["sweep", "--domain", sweep_options.domains[0], "--methods", "flap,random", "--sizes", "90%"]
    arguments += ["--healing", "preset", "--base", sweep_options.base, "--device", "cpu"]
    arguments += ["--json", "-q", "--no-pictures"]
    result = CliRunner().invoke(cli, [*arguments, "--output-dir", str(sweep_options.output_dir), *sets])
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    assert [cell["method"] for cell in shown["domains"][0]["cells"]] == ["flap", "flap", "random", "random"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--domain", "law", "--methods", "flab", "--sizes", "0.9"], 1, "Did you mean 'flap'"),
        (["--domain", "lav", "--methods", "flap", "--sizes", "0.9"], 1, "Did you mean 'law'"),
        (["--domain", "law", "--methods", "flap", "--sizes", "2"], 2, "not a fraction"),
        (["--domain", "law", "--methods", ",", "--sizes", "0.5"], 2, "at least one"),
    ],
)
def test_wrong_arguments_are_said_at_once(arguments: list[str], code: int, said: str) -> None:
    result = CliRunner().invoke(cli, ["sweep", *arguments])
    assert result.exit_code == code
    assert said in result.stderr


@pytest.fixture(scope="module")
def builds(world: World) -> tuple[str, str]:
    """Two specialists of one domain, the second with a domain file of another name."""
    text = world.domain.read_text().replace("name: words", "name: speech")
    other = world.domain.with_name("speech.yaml")
    other.write_text(text)
    fast = {**FAST, "heal.steps": "0", "evaluation.general": "false", "evaluation.questions": "2"}
    for name, domain in (("one", world.domain), ("two", other)):
        sweep_options = world.options(name, overrides=fast, method="flap", target_size=0.9, domains=(str(domain),))
        pipeline.build_specialists(sweep_options)
    return str(world.root / "one"), str(world.root / "two")


def test_the_matrix_reads_every_specialist_on_every_domain(
    builds: tuple[str, str], world: World, tmp_path: Path, made: Counter[str]
) -> None:
    matrix = cross_domain(builds, output_dir=tmp_path / "m", device="cpu")
    assert matrix.models == builds and matrix.domains == ("words", "speech", "plain")
    assert [cell.own for cell in matrix.cells] == [True, False, False, False, True, False]
    alone = minigpt.evaluate(builds[0], str(world.domain), device="cpu")
    wanted = next(metric for metric in alone.metrics if (metric.task, metric.metric) == ("words", "bits_per_byte"))
    cell = matrix.at(builds[0], "words")
    assert cell.value.value == pytest.approx(wanted.value)
    assert cell.ratio.value == pytest.approx(cell.value.value / cell.parent)
    assert cell.n == wanted.n
    assert (tmp_path / "m" / "matrix.svg").exists()
    assert read_json(tmp_path / "m" / "matrix.json", Matrix) == matrix
    before = made.total()
    assert cross_domain(builds, output_dir=tmp_path / "m", device="cpu") == matrix
    assert made.total() == before, "items are kept"


def test_compare_matrix_prints_it(builds: tuple[str, str], tmp_path: Path) -> None:
    arguments = ["compare", *builds, "--matrix", "--output-dir", str(tmp_path), "--device", "cpu", "--no-pictures"]
    result = CliRunner().invoke(cli, [*arguments, "--limit", "3", "-q"])
    assert result.exit_code == 0, result.stderr
    assert "plain" in result.stdout and "×" in result.stdout
    refused = CliRunner().invoke(cli, [*arguments, "--fail-if", "bpb>1"])
    assert refused.exit_code == 2


def test_the_matrix_needs_builds(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a build folder"):
        cross_domain([str(world.base)], output_dir=tmp_path, pictures=False)


def test_paper_forms_are_swept(world: World) -> None:
    """With --masked all methods, and without it those that make no model that loads."""
    result = sweep(options(world, "masked", masked=True))
    lines = read_jsonl(world.root / "masked" / "points.jsonl")
    assert [line["id"] for line in lines] == ["flap-0.9-s0-none-masked", "random-0.9-s0-none-masked"]
    assert {cell.stage for cell in result.domains[0].cells} == {"pruned"}
    point_report = report.load(world.root / "masked" / lines[0]["report"])
    assert "FLAP as published" in point_report.notes[1] and point_report.stages[-1].parameters == lines[0]["parameters"]
    sweep(options(world, "sliced", methods=("slicegpt", "random")))
    lines = read_jsonl(world.root / "sliced" / "points.jsonl")
    assert [line["id"] for line in lines] == ["slicegpt-0.9-s0-none-masked", "random-0.9-s0-none"]
    with pytest.raises(ConfigError, match="cannot be healed"):
        options(world, "both", masked=True, healing="preset")
