"""The benchmark of depth and 4 bits: no choice of layers is healed twice, and what is there is not computed again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigpt.files import read_jsonl, write_jsonl
from tests.support.worlds import World

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.usefixtures("home")

HEAL = '{"steps": "2", "evaluate_every": "2", "tokens_per_step": "256", "window": "64", "rank": "2", "warmup": "1"}'


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import depth4bit

    yield depth4bit
    for name in ("depth4bit", "reading"):
        sys.modules.pop(name, None)


def test_one_healing_for_both_orders_and_none_for_what_is_there(
    module: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, trained = tmp_path / "r.jsonl", []
    original = module.train

    def counted(*arguments: Any, **options: Any) -> Any:
        trained.append(arguments[0])
        return original(*arguments, **options)

    monkeypatch.setattr(module, "train", counted)
    arguments = ["--domain", str(world.domain), "--base", str(world.base), "--methods", "deepest", "--device", "cpu"]
    arguments += ["--fractions", "0.25,0.5", "--heal", HEAL, "--tokens", "512", "--limit", "2000"]
    monkeypatch.setattr(sys, "argv", ["depth4bit.py", *arguments, "--results", str(results)])
    module.main()
    rows = read_jsonl(results)
    assert len(rows) == 2 + 2 * 2 * 4 and len(trained) == 2
    first, second = rows[2:6], rows[6:10]
    assert [row["order"] for row in (first[0], second[0])] == list(module.ORDERS)
    assert [(row["state"], row["weights"]) for row in first] == [
        ("pruned", "bf16"),
        ("pruned", "nf4"),
        ("healed", "bf16"),
        ("healed", "nf4"),
    ]
    for one, other in zip(first, second, strict=True):
        assert one["bits"] == other["bits"] and one["accuracy"] == other["accuracy"]
    module.main()
    assert read_jsonl(results) == rows and len(trained) == 2
    write_jsonl(results, rows[:-1])
    module.main()
    assert len(trained) == 3 and len(read_jsonl(results)) == len(rows) - 1 + 4
