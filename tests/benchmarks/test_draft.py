"""The benchmark of drafts goes on where it was, shares its prompts, and counts what the trials showed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import draft as module
from minigpt.exporting import draft
from minigpt.exporting.draft import Trial
from minigpt.exporting.draft_map import Counts
from tests.support.exports import Shop, make_shop, trimmed_build


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    result = make_shop(tmp_path_factory.mktemp("bench"))
    trimmed_build(result)
    return result


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short texts."""
    monkeypatch.setattr(draft, "NEW_TOKENS", 4)
    monkeypatch.setattr(draft, "PIECE", 60)


def run(shop: Shop, results: Path, *more: str) -> list[dict[str, object]]:
    common = [str(shop.root / "build"), "--json", str(results), "--domain", shop.domain, "--device", "cpu"]
    module.main([*common, "--prompts", "4", *more])
    return module.read_lines(results)


def test_shards_share_the_prompts_and_a_second_run_has_nothing_to_do(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "out.jsonl"
    assert run(shop, results, "--limit-seconds", "0") == []
    assert [line["number"] for line in run(shop, results, "--shard", "1/2")] == [1, 3]
    with results.open("a") as stream:
        stream.write('{"domain": "torn')
    lines = run(shop, results)
    assert [line["number"] for line in lines] == [1, 3, 0, 2]
    assert all(line["same"] and line["gap"] is None for line in lines)
    monkeypatch.setattr(module, "load_pair", pytest.fail)
    assert run(shop, results) == lines
    assert "| 4 of 4 | 16 | 0 | – |" in capsys.readouterr().out.splitlines()[-1]


def line(number: int, *, alone: float, assisted: float, gap: float | None = None) -> dict[str, object]:
    counts = Counts(proposed=10, accepted=6, passes=4)
    trial = Trial(same=gap is None, gap=gap, alone=alone, assisted=assisted, tokens=10, counts=counts)
    common = {"domain": "d", "build": "b", "device": "cpu", "prompts": 2, "new_tokens": 10, "number": number}
    assert module.trial_of(module.line_of(trial)) == trial
    return common | module.line_of(trial)


def test_the_table_counts_each_trial_once_and_names_what_differs() -> None:
    lines = [line(0, alone=9.0, assisted=9.0), line(0, alone=2.0, assisted=1.0), line(1, alone=2.0, assisted=1.0)]
    row = module.table(lines).splitlines()[-1]
    assert row == "| d | cpu | 2 of 2 | 20 | 0 | – | 0.600 | 2.50 | 5.0 | 2.000× (2.000–2.000) | on |"
    row = module.table([line(0, alone=1.0, assisted=2.0, gap=0.002)]).splitlines()[-1]
    assert "| 1 | 0.002 |" in row and row.endswith("| off |")
    assert len(module.table([]).splitlines()) == 2


@pytest.mark.parametrize("text", ["1", "2/2", "a/b", "/2"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    assert module.shard("1/2") == (1, 2)
    with pytest.raises(argparse.ArgumentTypeError, match="0/4"):
        module.shard(text)


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"a": 1}\n{"a"')
    module.append(path, {"a": 2})
    assert module.read_lines(path) == [{"a": 1}, {"a": 2}]
    assert json.loads(path.read_text().splitlines()[-1]) == {"a": 2}
