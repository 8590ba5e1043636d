"""Whatever is kept, a flipped bit or a file that was cut off is never used: it is named, or made again.

The short form damages a few kinds of things a few times. The long form (`-m slow`) damages every kind as often as
MINIGPT_DAMAGES says, and appends each attempt to the file MINIGPT_FAULT_LOG; it goes on after the seeds that stand
there.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.laws.test_faults import GOOD, LOG, rows_of
from tests.support.kept import KINDS
from tests.support.pristine import pristine

LONG = int(os.environ.get("MINIGPT_DAMAGES", "40"))
QUICK = (
    "converted parent",
    "delta ticket",
    "rounds of a lottery",
    "parent's scores",
    "searches",
    "checkpoint",
    "teacher's answers",
)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGPT_HOME", os.environ["MINIGPT_HOME"])  # whatever the kinds set is undone


@pytest.mark.parametrize("kind", QUICK)
def test_damage_is_named_or_mended(kind: str, tmp_path: Path) -> None:
    thing = pristine(kind, tmp_path)
    rows = [thing.strike(seed) for seed in range(6)]
    assert [row for row in rows if row["end"] not in GOOD] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_every_kind_again_and_again(kind: str, tmp_path: Path) -> None:
    thing = pristine(kind, tmp_path)
    first = sum(row["kind"].endswith(f": {kind}") for row in rows_of(Path(LOG)))
    rows = [thing.strike(1000 + first + number) for number in range(LONG)]
    with Path(LOG).open("a", encoding="utf-8") as log:
        log.writelines(json.dumps(row) + "\n" for row in rows)
    print(kind, dict(Counter(row["end"] for row in rows)))
    assert [row for row in rows if row["end"] not in GOOD] == []
