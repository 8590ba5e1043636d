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
import torch

from minigpt.files import read_jsonl
from minigpt.healing import TokenText
from minigpt.tickets.delta import in_dtype, parameters_of
from minigpt.tickets.delta_settings import DeltaSettings
from minigpt.tickets.delta_store import make_ticket, write
from tests.support.deltas import changed_copy
from tests.support.tiny import tiny_model

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


class TinyBench:
    """A domain of random text, and a ticket that changes a twentieth of a tiny parent."""

    device = "cpu"

    def __init__(self, work: Path, name: str, seed: int) -> None:
        self.name, self.work = name, work / name
        self.parent = in_dtype(parameters_of(tiny_model("llama")), torch.bfloat16)
        self.ticket = changed_copy(self.parent, 0.05, seed=seed, scale=0.3)
        write(make_ticket(self.parent, self.ticket, base="tiny", domains=(name,)), self.work / "ticket")
        windows = tuple(tuple((seed * row + step) % 90 + 1 for step in range(20)) for row in range(30))
        self.domain_text, self.dev = (TokenText(windows=part, bytes=400) for part in (windows[:20], windows[20:]))
        self.tuned = self.ticket

    def fresh(self, weights: Any = None) -> Any:
        model = tiny_model("llama")
        for name, tensor in parameters_of(model).items():
            tensor.copy_((weights or self.parent)[name])
        return model

    def weights_of(self, _tag: str) -> Any:
        return self.ticket

    def measured(self, _tag: str, weights: Any) -> Any:
        return weights

    def against(self, tag: str, weights: Any, _references: Any) -> dict[str, Any]:
        return {self.name: {"tag": tag, "differs": any(not weights[name].equal(self.parent[name]) for name in weights)}}


def test_a_merge_is_healed_and_measured_beside_the_merge_itself(module: Any, tmp_path: Path) -> None:
    benches = [TinyBench(tmp_path, name, seed) for name, seed in (("one", 3), ("two", 7))]
    rows = module.Rows(tmp_path / "rows.jsonl", {}, time.perf_counter() + 1000)
    module.merge_rows(rows, benches, "ticket", [(4, 0.01)])
    merge, healed = read_jsonl(tmp_path / "rows.jsonl")
    assert (merge["tag"], healed["tag"]) == ("merge", "merge-healed-4-0.01")
    assert (healed["rule"], healed["scale"]) == (merge["rule"], merge["scale"])
    assert 0.04 < healed["changed"] < 0.1
    assert len(healed["dev_losses"]) > 1
    assert {row["tag"] for row in healed["measured"].values()} == {"merged-one-two-healed"}
    assert all(row["differs"] for row in healed["measured"].values())
    module.merge_rows(rows, benches, "ticket", [(4, 0.01)])
    assert len(read_jsonl(tmp_path / "rows.jsonl")) == 2
