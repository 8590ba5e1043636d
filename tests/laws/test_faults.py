"""Nothing is lost and nothing is silently wrong: builds that are killed, or find the disk full or their files damaged.

The short form strikes a few times. The long form (`-m slow`) strikes as often as MINIGPT_FAULTS says, and appends every
fault that ended badly to faults.jsonl, which the short form repeats from then on.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_server import Striker, fault_server
from tests.support.faults import Fault

SEEDS = Path(__file__).with_name("faults.jsonl")
KINDS = ("kill", "full", "broken", "flip", "cut")
LONG = int(os.environ.get("MINIGPT_FAULTS", "500"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")


@pytest.fixture(scope="module")
def striker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Striker]:
    with fault_server(tmp_path_factory.mktemp("faults")) as server:
        yield server


def remembered() -> list[Fault]:
    """Faults that once ended badly."""
    lines = SEEDS.read_text("utf-8").splitlines() if SEEDS.exists() else []
    return [Fault(kind=row["kind"], seed=row["seed"]) for row in map(json.loads, lines)]


SHORT = [Fault(kind=kind, seed=seed) for seed, kind in enumerate(KINDS)]


@pytest.mark.parametrize("fault", [*SHORT, *remembered()], ids=lambda fault: f"{fault.kind}-{fault.seed}")
def test_the_same_command_ends_as_if_nothing_had_happened(striker: Striker, fault: Fault) -> None:
    row = striker.strike(fault)
    assert row["end"] in ("same", "sentence"), row


@pytest.mark.slow
def test_hundreds_of_faults(striker: Striker) -> None:
    counts: Counter[str] = Counter()
    bad = []
    first = 1000 + len(remembered())
    for number in range(LONG):
        row = striker.strike(Fault(kind=KINDS[number % 5], seed=first + number))
        counts[f"{row['kind']}: {row['end']}"] += 1
        print(json.dumps(row), flush=True)
        if row["end"] not in ("same", "sentence"):
            bad.append(row)
            with SEEDS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"kind": row["kind"], "seed": row["seed"]}) + "\n")
    print(json.dumps({"operations": striker.operations, **dict(sorted(counts.items()))}, indent=1))
    assert not bad, bad
