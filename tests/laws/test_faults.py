"""Nothing is lost and nothing is silently wrong: builds that are killed, or find the disk full or their files damaged.

The short form strikes a few times. The long form (`-m slow`) strikes as often as MINIGPT_FAULTS says, or for as many
seconds as MINIGPT_FAULT_SECONDS says, with the kinds of MINIGPT_FAULT_KINDS. It appends every strike to the file
MINIGPT_FAULT_LOG and goes on after the seeds that stand there, so that a long run may be done in pieces. So does the
one that strikes every border of a stage. Faults that
ended badly are appended to faults.jsonl, which the short form repeats from then on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_server import Striker, fault_server
from tests.support.faults import Fault

SEEDS = Path(__file__).with_name("faults.jsonl")
COMMON = "kill,full,broken,flip,cut,border,force,unreadable,neighbours,twins,clock"
LONG = int(os.environ.get("MINIGPT_FAULTS", "500"))
SECONDS = float(os.environ.get("MINIGPT_FAULT_SECONDS", "inf"))
LONG_KINDS = os.environ.get("MINIGPT_FAULT_KINDS", COMMON).split(",")
LOG = os.environ.get("MINIGPT_FAULT_LOG", os.devnull)
GOOD = ("same", "sentence")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")


@pytest.fixture(scope="module")
def striker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Striker]:
    with fault_server(tmp_path_factory.mktemp("faults")) as server:
        yield server


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of faults."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def remembered() -> list[Fault]:
    """Faults that once ended badly."""
    return [Fault(kind=row["kind"], seed=row["seed"]) for row in rows_of(SEEDS)]


SHORT = [Fault(kind=kind, seed=seed) for seed, kind in enumerate(("kill", "full", "broken", "flip", "cut", "border"))]


@pytest.mark.parametrize("fault", [*SHORT, *remembered()], ids=lambda fault: f"{fault.kind}-{fault.seed}")
def test_the_same_command_ends_as_if_nothing_had_happened(striker: Striker, fault: Fault) -> None:
    row = striker.strike(fault)
    assert row["end"] in GOOD, row


@pytest.mark.slow
def test_builds_are_killed_at_every_border_of_a_stage(striker: Striker) -> None:
    """Borders whose seeds stand in the log are not struck again; every border must have ended well in the end."""
    rows = {row["seed"]: row for row in rows_of(Path(LOG)) if row["kind"] == "border"}
    until = time.monotonic() + SECONDS
    left = [fault for fault in striker.borders if fault.seed not in rows]
    while left and time.monotonic() < until:
        fault = left.pop(0)
        row = rows[fault.seed] = striker.strike(fault)
        with Path(LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
    ends = [rows[fault.seed] for fault in striker.borders if fault.seed in rows]
    assert [row for row in ends if row["end"] not in GOOD] == []
    assert left or len({row["at"] for row in ends}) >= 30


@pytest.mark.slow
def test_hundreds_of_faults(striker: Striker) -> None:
    done = Counter(row["kind"] for row in rows_of(Path(LOG)))
    counts: Counter[str] = Counter()
    bad = []
    until = time.monotonic() + SECONDS
    for number in range(LONG):
        kind = LONG_KINDS[number % len(LONG_KINDS)]
        if time.monotonic() > until:
            break
        row = striker.strike(Fault(kind=kind, seed=1000 + done[kind]))
        done[kind] += 1
        counts[f"{row['kind']}: {row['end']}"] += 1
        with Path(LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        if row["end"] not in GOOD:
            bad.append(row)
            with SEEDS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"kind": row["kind"], "seed": row["seed"]}) + "\n")
    print(json.dumps({"operations": striker.operations, **dict(sorted(counts.items()))}, indent=1))
    assert not bad, bad
