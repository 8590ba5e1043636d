"""The method benchmark: one line a point, grown over runs, and the tables made from the items."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minigpt import pipeline
from minigpt.errors import MiniGPTError
from minigpt.evaluation import ItemScores
from minigpt.files import read_jsonl, to_plain, write_jsonl
from tests.support.sweeping import items
from tests.support.worlds import SMALL, World

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SETTINGS = {name: SMALL[name] for name in ("plan.tokens", "plan.probe_tokens", "text.dev_bytes", "heal.window")}
SETTINGS |= {"heal.tokens_per_step": "256", "heal.warmup": "1"}


@pytest.fixture(scope="module")
def modules() -> Any:
    """The scripts as modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import methods
        import tables

        yield methods, tables
        for name in ("methods", "tables", "held", "digest", "entries"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def benchmark(
    modules: tuple[ModuleType, ModuleType], world: World, results: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> list[Any]:
    arguments = ["--domain", str(world.domain), "--base", str(world.base), "--results", str(results)]
    arguments += ["--device", "cpu", "--question-set", "next", "--work", str(world.root / "work"), *more]
    for name, value in SETTINGS.items():
        arguments += ["--set", f"{name}={value}"]
    monkeypatch.setattr(sys, "argv", ["methods.py", *arguments])
    modules[0].main()
    return read_jsonl(results) if results.exists() else []


@pytest.fixture(scope="module")
def first(modules: tuple[ModuleType, ModuleType], world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two depth methods at one size, healed for two steps."""
    results = tmp_path_factory.mktemp("results") / "r.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        benchmark(
            modules, world, results, patch,
            "--methods", "shortgpt,deepest", "--sizes", "0.75", "--heal-steps", "0,2", "--tune-steps", "2",
        )  # fmt: skip
    return results


def test_every_point_is_one_line_with_its_items(first: Path) -> None:
    rows = read_jsonl(first)
    assert [row["method"] for row in rows[:2]] == ["parent", "parent_tuned"]
    points = rows[2:]
    assert [(row["method"], row["heal_steps"]) for row in points] == [
        ("shortgpt", 0),
        ("deepest", 0),
        ("shortgpt", 2),
        ("deepest", 2),
    ]
    for row in points:
        assert row["suite"] == rows[0]["suite"]
        assert row["kept"] < 1 and row["layers_removed"] > 0 and len(row["layers"]) == row["shape"]["layers"]
        assert set(row["items"]) == ({"pruned", "healed"} if row["heal_steps"] else {"pruned"})
        assert (row["training"] is None) == (row["heal_steps"] == 0)
    assert points[0]["items"]["pruned"] == points[2]["items"]["pruned"], "the same cut, healed or not"


def test_a_point_is_what_a_build_of_it_gives(
    modules: tuple[ModuleType, ModuleType], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = benchmark(modules, world, tmp_path / "r.jsonl", monkeypatch, "--methods", "shortgpt", "--sizes", "0.75")
    overrides = {**SETTINGS, "heal.steps": "1", "control": "false", "corpus.relevance": "false"}
    chosen = world.options("built", overrides=None, method="shortgpt", target_size=0.75, preset="standard")
    (made,) = pipeline.build_specialists(
        replace(chosen, overrides={**overrides, "evaluation.sample_tokens": "0", "text.sampled": "0"})
    )
    pruned = made.stage("pruned")
    assert pruned is not None
    wanted = next(each for each in pruned.metrics if (each.task, each.metric) == ("words", "bits_per_byte"))
    assert rows[-1]["pruned"]["bits_per_byte"] == pytest.approx(wanted.value, abs=1e-4)
    assert rows[-1]["parameters"] == pruned.parameters


def test_what_is_there_is_skipped_and_the_limit_holds(
    modules: tuple[ModuleType, ModuleType],
    world: World,
    first: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "r.jsonl"
    copy.write_bytes(first.read_bytes())
    before = len(read_jsonl(copy))
    more = ("--sizes", "0.75", "--heal-steps", "0,2", "--tune-steps", "2")

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a model was measured or tuned again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("held.scores_of", fail)
        patch.setattr("held.train", fail)
        rows = benchmark(modules, world, copy, monkeypatch, "--methods", "shortgpt,deepest", *more)
    assert len(rows) == before
    assert "All points are there." in capsys.readouterr().out
    late = ("--methods", "deepest", "--sizes", "0.5", "--limit-seconds", "0")
    benchmark(modules, world, tmp_path / "x.jsonl", monkeypatch, *late)
    assert not (tmp_path / "x.jsonl").exists()
    assert "left" in capsys.readouterr().out


def test_a_later_run_prunes_the_same_tuned_parent(
    modules: tuple[ModuleType, ModuleType], world: World, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tuned once and kept: the control's line and points of other runs speak of the same weights."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("tuned again")

    monkeypatch.setattr("held.train", fail)
    more = ("--methods", "deepest", "--sizes", "0.75", "--tune-steps", "2")
    rows = benchmark(modules, world, tmp_path / "r.jsonl", monkeypatch, *more)
    before = {row["key"]: row for row in read_jsonl(first)}
    assert [row["method"] for row in rows] == ["parent", "parent_tuned", "deepest"]
    assert rows[1]["control"] == before[rows[1]["key"]]["control"]
    assert rows[2]["items"] == before[rows[2]["key"]]["items"]


def test_half_a_last_line_is_computed_again(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"key": "a"}\n{"key": "b", "ite')
    results = modules[0].Results(path)
    assert results.keys == {"a"}
    results.add({"key": "b"})
    assert [row["key"] for row in read_jsonl(path)] == ["a", "b"]


def test_time_is_left_for_what_took_longest(
    modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 s in all, 60 s gone: a job of 30 s fits, one of 40 s does not, nor one of a kind that took 50 s before."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = modules[0].Clock(100.0, 30.0)
    now[0] = 60.0
    assert clock.allows(0)
    clock.took(modules[0].DOMAIN, 50.0)
    clock.took(600, 40.0)
    assert clock.allows(0) and not clock.allows(600) and not clock.allows(modules[0].DOMAIN)


def test_a_size_that_cannot_be_met_is_a_line_too(
    modules: tuple[ModuleType, ModuleType], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = benchmark(modules, world, tmp_path / "r.jsonl", monkeypatch, "--methods", "shortgpt", "--sizes", "0.1")
    assert "skipped" in rows[-1] and "items" not in rows[-1]
    (suite,) = modules[1].read_suites(tmp_path / "r.jsonl")
    assert suite.skipped[0]["shortgpt", 0.1]


def lines(modules: tuple[ModuleType, ModuleType], levels: dict[str, tuple[float, int]], path: Path) -> Any:
    """Results by hand: the parent at 1.0, methods at the given bits per byte and right answers."""
    compact = modules[0].compact
    parent = items(1.0, noise=0.1, right=12)
    rows: list[dict[str, Any]] = [
        {"key": "p", "suite": "s", "domain": "medical", "method": "parent", "base": "b", "control": to_plain(parent)}
    ]
    for method, (level, right) in levels.items():
        found: ItemScores = items(level, noise=0.1, right=right)
        rows.append(
            {
                "key": method, "suite": "s", "domain": "medical", "method": method, "label": "", "masked": False,
                "size": 0.75, "seed": 0, "heal_steps": 0, "parameters": 70, "kept": 0.7, "layers_removed": 0.2,
                "removed": {"layers": 3}, "items": {"pruned": compact(found)},
            }
        )  # fmt: skip
    write_jsonl(path, rows)
    return modules[1].read_suites(path)


def test_the_table_marks_the_best_and_what_is_tied(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    tables = modules[1]
    levels = {"contextual": (1.2, 12), "flap": (1.2, 11), "random": (1.6, 2)}
    (suite,) = lines(modules, levels, tmp_path / "r.jsonl")
    text = tables.table(suite.entries[0], "medical", "bits_per_byte")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines()[2:]}
    assert "**1.196 (" in rows["contextual"] and "[70.0%]" in rows["contextual"]
    assert rows["flap"].rstrip(" |").endswith("= [70.0%]")
    assert "=" not in rows["random"]
    asked = tables.table(suite.entries[0], "medical/glossary", "accuracy")
    assert "**0.600" in asked and "−0.500 (" in asked


def test_one_label_with_two_settings_is_refused(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    """Averaged like seeds they would be a number of no setting at all."""
    lines(modules, {"flap": (1.2, 11)}, tmp_path / "r.jsonl")
    rows = read_jsonl(tmp_path / "r.jsonl")
    write_jsonl(tmp_path / "r.jsonl", [*rows, rows[-1] | {"key": "other"}])
    with pytest.raises(MiniGPTError, match="--label"):
        modules[1].read_suites(tmp_path / "r.jsonl")


def test_suites_of_one_domain_are_told_apart(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    lines(modules, {"flap": (1.2, 11)}, tmp_path / "r.jsonl")
    rows = read_jsonl(tmp_path / "r.jsonl")
    write_jsonl(tmp_path / "r.jsonl", [*rows, *(row | {"suite": "other"} for row in rows)])
    found = modules[1].read_suites(tmp_path / "r.jsonl")
    assert [suite.name for suite in found] == ["medical", "medical-again1"]
    page = modules[1].document(found, "flap", {"medical": ["a.svg"], "medical-again1": ["b.svg"]})
    assert page.index("a.svg") < page.index("## medical-again1") < page.index("b.svg")


def test_a_later_file_overrules_an_earlier_one(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    """Points measured again stand beside those they replace, and the rest of both files counts."""
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    lines(modules, {"contextual": (1.2, 12), "flap": (2.4, 3)}, old)
    lines(modules, {"flap": (1.3, 9), "random": (1.6, 2)}, new)
    (suite,) = modules[1].read_suites(old, new)
    assert {method for method, _ in suite.entries[0]} == {"contextual", "flap", "random"}
    score = suite.entries[0]["flap", 0.75].score("medical", "bits_per_byte")
    assert score is not None and score.value.value == pytest.approx(1.3, abs=0.05)


def test_all_domains_stand_in_one_table(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    """The overview has the best of a column in bold, marks what the notes explain, and leaves gaps where nothing is."""
    lines(modules, {"contextual": (1.2, 12), "flap": (1.4, 11)}, tmp_path / "one.jsonl")
    lines(modules, {"contextual": (1.5, 12)}, tmp_path / "two.jsonl")
    rows = read_jsonl(tmp_path / "two.jsonl")
    write_jsonl(tmp_path / "two.jsonl", [row | {"suite": "other", "size": 0.9} for row in rows])
    found = modules[1].read_suites(tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    page = modules[1].document(found, "contextual", {}, notes="What to know.", stale=["flap"])
    head, _, ours, theirs = page[page.index("| method |") :].splitlines()[:4]
    assert head == "| method | medical 75% | medical-again1 90% |"
    ratio = items(1.2, noise=0.1, right=12).texts["medical"].bits_per_byte
    ratio /= items(1.0, noise=0.1, right=12).texts["medical"].bits_per_byte
    assert ours.startswith(f"| contextual | **{ratio:.3f}** | **")
    assert theirs.startswith("| flap † | 1.") and theirs.endswith("| – |")
    assert page.index("What to know.") < page.index("| method |")


@pytest.mark.parametrize(
    ("best", "metric", "sentence"),
    [
        ([["a"], ["a", "b"]], "bits_per_byte", "Smaller is better, and `a` has the best value in every column:"),
        (
            [["a", "b"], ["b", "a"]],
            "accuracy",
            "Larger is better, and `a` and `b` have the best value in every column:",
        ),
        ([["a"], ["a"], ["b"]], "accuracy", "Larger is better, and `a` has the best value in most columns:"),
        ([["a"], ["b"]], "accuracy", "Larger is better, and no method has the best value in most columns:"),
    ],
)
def test_a_sentence_before_a_table_names_its_best_method(
    modules: tuple[ModuleType, ModuleType], best: list[list[str]], metric: str, sentence: str
) -> None:
    assert modules[1].takeaway(best, metric) == sentence


def test_every_number_is_in_the_csv(
    modules: tuple[ModuleType, ModuleType], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "methods.md"
    monkeypatch.setattr(sys, "argv", ["tables.py", "--results", str(first), "--output", str(output)])
    modules[1].main()
    with output.with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    points = [row for row in read_jsonl(first) if "items" in row]
    assert {(row["method"], int(row["heal_steps"])) for row in rows} == {
        (row["method"], row["heal_steps"]) for row in points
    }
    point = points[0]
    (found,) = [
        row
        for row in rows
        if (row["method"], row["heal_steps"], row["task"], row["metric"])
        == (point["method"], "0", "words", "bits_per_byte")
    ]
    assert float(found["value"]) == pytest.approx(point["pruned"]["bits_per_byte"], abs=1e-4)
    assert float(found["low"]) <= float(found["value"]) <= float(found["high"])
    assert int(found["layers"]) == point["shape"]["layers"] and int(found["parameters"]) == point["parameters"]


def test_lost_cells_are_listed(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    tables = modules[1]
    (suite,) = lines(modules, {"contextual": (1.4, 12), "flap": (1.2, 12), "random": (1.6, 2)}, tmp_path / "r.jsonl")
    told = tables.standing([suite], "contextual")
    assert told.startswith("`contextual` is significantly beaten in 1 of 2 cells:")
    assert "medical, 75% kept, before healing, medical: flap" in told


def test_the_page_and_its_pictures_are_written(
    modules: tuple[ModuleType, ModuleType], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "docs" / "methods.md"
    monkeypatch.setattr(sys, "argv", ["tables.py", "--results", str(first), "--output", str(output)])
    modules[1].main()
    page = output.read_text("utf-8")
    assert "## words-tuned" in page and "after 2 steps of healing" in page and "Tuned parent" in page
    for name in ("methods-words-tuned-quality.svg", "methods-words-tuned-collapse.svg"):
        assert name in page and (output.parent / name).exists()
