"""The benchmark of whole conditional models: names of models, points of a sweep, and one sweep of a small world."""

from __future__ import annotations

import json

import pytest

from benchmarks import conditional_models as bench
from tests.support.worlds import World


def test_names_of_models() -> None:
    asset = "pypi:llm==0.1/a/b.gguf"
    assert bench.named(["parent=runs/a", asset, "runs/b=c"]) == {
        "parent": "runs/a",
        asset: asset,
        "runs/b=c": "runs/b=c",
    }


def test_relu_is_swept_by_its_penalty_and_all_others_by_their_share() -> None:
    points = bench.points_of(["relu", "topk"], [0.5, 0.25], [0.0, 0.1])
    assert [point.name for point in points] == ["topk 0.5", "topk 0.25", "relu l1=0", "relu l1=0.1"]


@pytest.mark.usefixtures("home")
def test_speed_and_a_sweep_that_goes_on(world: World, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    out = world.root / "sweep.json"
    shared = ["--json", str(out), "--models", str(world.base), "--domain", str(world.domain), "--limit", "4"]
    small = ["--tokens", "300", "--distill-steps", "2", "--distill-tokens", "64", "--window", "64", "--kinds", "topk"]
    arguments = ["sweep", *shared, *small, "--visited", "0.5", "--heal-steps", "1", "--heal-tokens", "128"]
    monkeypatch.setattr("sys.argv", ["conditional_models", *arguments])
    bench.main()
    first = json.loads(out.read_text("utf-8"))["rows"]
    assert [row["name"] for row in first] == ["topk 0.5"]
    assert first[0]["visited_share"] == pytest.approx(0.5, abs=0.02)
    assert 0.5 < first[0]["weights_share"] < 1
    monkeypatch.setattr("sys.argv", ["conditional_models", *arguments, "--visited", "0.5", "1.0"])
    bench.main()
    rows = json.loads(out.read_text("utf-8"))["rows"]
    assert rows[0] == first[0]
    assert [row["name"] for row in rows] == ["topk 0.5", "topk 1"]
    speeds = ["speed", *shared, "--prompt", "8", "--decode", "3", "--repeats", "2"]
    monkeypatch.setattr("sys.argv", ["conditional_models", *speeds])
    bench.main()
    (row,) = json.loads(out.read_text("utf-8"))["rows"]
    assert row["decode"] > 0 and row["ratios"] == {"prefill": 1.0, "decode": 1.0}
    assert {one["metric"] for one in row["metrics"]} >= {"bits_per_byte"}
