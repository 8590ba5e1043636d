"""Lines of whole conditional models: what is kept of results, added once, and drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import conditional_page as page

GAP = {"low": -0.1, "value": 0.1, "high": 0.3}
ENDS = {"low": 0.9, "high": 1.1}


def metric(task: str, name: str, value: float) -> dict[str, Any]:
    return {"task": task, "metric": name, "value": value, "n": 7, "paired_difference_vs_parent": GAP}


@pytest.fixture
def results(tmp_path: Path) -> dict[str, Path]:
    """Small results of each benchmark."""
    dense = [metric("a", "bits_per_byte", 2.0), metric("a/other", "bits_per_byte", 4.0), metric("q", "accuracy", 0.5)]
    own = [metric("a", "bits_per_byte", 2.1), metric("a/other", "bits_per_byte", 4.1), metric("q", "accuracy", 0.4)]
    point = {"name": "topk 0.5", "kind": "topk", "visited_share": 0.5, "weights_share": 0.8333333, "metrics": own}
    speed = {"median": 1.0, **ENDS}
    cpu = {"decode_ratio": speed, "prefill_ratio": speed, "weights_share": 0.8, "bits_per_byte": 2.0}
    forms = [{"form": form, "visited_share": share, **cpu} for form, share in (("dense", 1), ("topk:0.5", 0.5))]
    contents = {
        "healed": {"settings": {"heal_steps": "600", "seed": "0"}, "dense": dense, "rows": [point]},
        "cpu": {"machine": {"threads": 1}, "rows": [*forms, {**forms[0], "form": "free", "visited_share": 0}]},
        "gpu": {"rows": [{"form": "topk:0.5", "tokens": 1, "visited": 0.5, "ratio": speed}]},
        "encoder": {
            "conditions": {"steps": 4, "distill": 8},
            "rows": [{"arm": "dense", "task": "term", "score": GAP}],
            "arms": [{"arm": "dense", "score": {"value": 0.1, "low": None, "high": None}}],
        },
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return {name: tmp_path / f"{name}.json" for name in contents}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["conditional_page", *arguments])
    page.main()


def test_results_are_added_once_beside_other_lines(
    results: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, other = tmp_path / "lines.jsonl", {"shape": "7b", "batch": 1, "kernel": "walk", "dtype": "bf16"}
    lines.write_text(json.dumps(other) + "\n", "utf-8")
    added = [f"{name}={path}" for name, path in results.items()]
    run(monkeypatch, str(lines), "--add", *added, "--tables")
    first = lines.read_text("utf-8")
    written = [json.loads(line) for line in first.splitlines()]
    assert written[0] == other and len(written) == 1 + 1 + 3 + 1 + 2
    assert "| topk 0.5 | 600 | 0 | 0.5 | 0.8333 | 1.05 (0.95 to 1.15) |" in capsys.readouterr().out
    run(monkeypatch, str(lines), "--add", *added)
    assert lines.read_text("utf-8") == first


def test_ratios_and_their_intervals_are_of_the_dense_model(results: dict[str, Path]) -> None:
    (line,) = page.swept(json.loads(results["healed"].read_text("utf-8")))
    assert line["bits"] == pytest.approx({"value": 1.05, "low": 0.95, "high": 1.15, "n": 7})
    assert line["other"] == pytest.approx({"value": 1.025, "low": 0.975, "high": 1.075, "n": 7})
    assert line["questions"] == {"value": 0.4, "dense": 0.5, "n": 7, "difference": GAP}


def test_a_speed_goes_with_the_healed_loss_of_its_share(
    results: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    lines = tmp_path / "lines.jsonl"
    lines.write_text("", "utf-8")
    added = [f"{name}={path}" for name, path in results.items()]
    run(monkeypatch, str(lines), "--add", *added, "--picture", str(tmp_path / "picture.svg"))
    assert "topk, healed" in (tmp_path / "picture.svg").read_text("utf-8")
    read = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    for name in ("cpu", "gpu"):
        ((loss, ratio),) = page.speeds(read, name, "topk")
        assert loss == 1.05 and ratio["median"] == 1.0
    assert not list(page.speeds(read, "cpu", "threshold"))


def test_an_unknown_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text("", "utf-8")
    with pytest.raises(SystemExit):
        run(monkeypatch, str(lines), "--add", "nothing=x.json")
