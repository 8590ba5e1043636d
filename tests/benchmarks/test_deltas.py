"""The benchmark of delta tickets: dev loss chooses line by line, rows are kept, and time is respected."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minigpt.files import read_jsonl
from minigpt.tickets.delta_settings import DeltaSettings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = ("deltas", "delta_bench", "delta_merging", "reading")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import deltas

    yield deltas
    for name in SCRIPTS:
        sys.modules.pop(name, None)


def loss(settings: DeltaSettings) -> float:
    """A loss whose best settings are known."""
    rate = {1e-3: 0.0}.get(settings.learning_rate, 0.1)
    distill, fisher = 0.2 * (1 - settings.distill), 0.05 * (settings.score == "fisher")
    return 1 + rate + distill + fisher + 0.01 * abs(settings.rounds - 5)


def test_settings_are_chosen_by_dev_loss_line_by_line_and_rows_are_kept(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[DeltaSettings] = []

    def ticket_row(_bench: Any, _tag: str, _fraction: float, settings: DeltaSettings, _budget: Any) -> dict[str, Any]:
        tried.append(settings)
        return {"dev": loss(settings)}

    monkeypatch.setattr(module, "ticket_row", ticket_row)
    bench, start = SimpleNamespace(name="words"), DeltaSettings()
    expected = replace(start, learning_rate=1e-3, distill=1.0, rounds=5)
    for _ in range(2):
        rows = module.Rows(tmp_path / "rows.jsonl", {"base": "b"}, time.perf_counter() + 1000)
        assert module.choose(rows, bench, start, None) == expected
    assert len(tried) == len(set(map(repr, tried))) == len(read_jsonl(tmp_path / "rows.jsonl"))
    assert read_jsonl(tmp_path / "rows.jsonl")[0]["settings"] == asdict(start)


def test_nothing_is_started_that_would_end_too_late(module: Any, tmp_path: Path) -> None:
    rows = module.Rows(tmp_path / "rows.jsonl", {}, time.perf_counter() + 1)
    assert rows.get("words", "x", {}, lambda: pytest.fail("was started")) is None
