"""The lines of `benchmarks/methods.py` put together: what was measured on a domain, with intervals from the items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from minigpt.errors import MiniGPTError
from minigpt.evaluation import ItemScores
from minigpt.files import read_jsonl
from minigpt.sweep.cells import scores_of
from minigpt.sweep.records import Cell, Score
from minigpt.types import StageName

ITEMS = TypeAdapter(ItemScores)
Key = tuple[str, float]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method at a size on a domain, with or without healing: the items of its seeds and the parent's."""

    rows: tuple[Mapping[str, Any], ...]
    parent: ItemScores
    stage: StageName

    @cached_property
    def runs(self) -> list[ItemScores]:
        """The items of each seed, put together with what the parent's line says about the documents."""
        return [expanded(row["items"][self.stage], self.parent) for row in self.rows]

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """Every number with its interval."""
        return scores_of(self.stage, self.runs, self.parent)

    def score(self, task: str, metric: str) -> Score | None:
        """One of them, or None."""
        return next((each for each in self.scores if (each.task, each.metric) == (task, metric)), None)

    def cell(self, domain: str, name: Key) -> Cell:
        """The same as a cell of a sweep, which the pictures are drawn from."""
        first, count = self.rows[0], len(self.rows)
        return Cell(
            domain=domain,
            method=name[0],
            size=name[1],
            stage=self.stage,
            parameters=round(sum(row["parameters"] for row in self.rows) / count),
            kept=sum(row["kept"] for row in self.rows) / count,
            layers_removed=first["layers_removed"],
            only_layers={kind for kind, removed in first["removed"].items() if removed} == {"layers"},
            points=tuple(row["key"] for row in self.rows),
            spread=tuple(run.texts[domain].bits_per_byte for run in self.runs),
            scores=self.scores,
        )


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What was measured on one domain's documents: controls, and entries by budget and (method, size).

    `name` tells suites of one domain apart: other parents, tuned or not, other documents.
    """

    name: str
    domain: str
    base: str
    parent: ItemScores
    tuned: ItemScores | None
    parameters: int
    entries: Mapping[int, Mapping[Key, Entry]]
    skipped: Mapping[int, Mapping[Key, str]]
    devices: tuple[str, ...] = ()


def expanded(items: Mapping[str, Any], parent: ItemScores) -> ItemScores:
    """Full items from the compact ones of a line."""
    texts = {task: replace(parent.texts[task], bits=tuple(bits)) for task, bits in items["texts"].items()}
    asked = {
        task: replace(parent.questions[task], picks=tuple(raw), picks_norm=tuple(norm))
        for task, (raw, norm) in items["questions"].items()
    }
    return ItemScores(texts=texts, questions=asked)


def suites(*paths: Path) -> list[Suite]:
    """The lines of the results, by domain; of a point that stands in several files, the last file's line counts.

    Raises:
        MiniGPTError: points whose parent's line is missing, or one point with two settings under one label.
    """
    lines = list({(row["suite"], row["key"]): row for path in paths for row in read_jsonl(path)}.values())
    files = ", ".join(map(str, paths))
    controls = {(row["suite"], row["method"]): row for row in lines if "control" in row}
    groups: dict[str, dict[int, dict[Key, list[Any]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in lines:
        if "control" not in row:
            if (row["suite"], "parent") not in controls:
                raise MiniGPTError(f"{files}: points of {row['domain']} without its parent's line; run it again.")
            name = " ".join(part for part in (row["method"], row["label"], "(masked)" * row["masked"]) if part)
            same = groups[row["suite"]][row["heal_steps"]][name, row["size"]]
            if row["seed"] in {each["seed"] for each in same}:
                raise MiniGPTError(
                    f"{files}: {name} at {row['size']:g} on {row['domain']} stands there twice with seed "
                    f"{row['seed']}: give runs with other settings a --label of their own."
                )
            same.append(row)
    found: list[Suite] = []
    for suite, kind in controls:
        if kind == "parent":
            name = str(controls[suite, kind]["domain"]) + "-tuned" * ((suite, "parent_tuned") in controls)
            earlier = sum(each.name == name or each.name.startswith(f"{name}-again") for each in found)
            found.append(_suite(suite, f"{name}-again{earlier}" if earlier else name, groups[suite], controls))
    return found


def _suite(suite: str, name: str, group: Mapping[int, Mapping[Key, list[Any]]], controls: Mapping[Any, Any]) -> Suite:
    line, tuned = controls[suite, "parent"], controls.get((suite, "parent_tuned"))
    parent = ITEMS.validate_python(line["control"])
    entries: dict[int, dict[Key, Entry]] = {}
    skipped: dict[int, dict[Key, str]] = {}
    for steps, found in sorted(group.items()):
        stage: StageName = "healed" if steps else "pruned"
        for key, rows in found.items():
            made = [row for row in rows if "items" in row]
            if made:
                entries.setdefault(steps, {})[key] = Entry(rows=tuple(made), parent=parent, stage=stage)
            else:
                skipped.setdefault(steps, {})[key] = rows[0]["skipped"]
    some = next((each for found in entries.values() for each in found.values()), None)
    size = round(some.rows[0]["parameters"] / some.rows[0]["kept"]) if some else 0
    return Suite(
        name=name,
        domain=line["domain"],
        base=line["base"],
        parent=parent,
        tuned=ITEMS.validate_python(tuned["control"]) if tuned else None,
        parameters=size,
        entries=entries,
        skipped=skipped,
        devices=tuple(
            dict.fromkeys(_machine(row) for found in group.values() for rows in found.values() for row in rows)
        ),
    )


def _machine(row: Mapping[str, Any]) -> str:
    """What a line was measured with."""
    used = ", ".join(f"{name} {row['versions'][name]}" for name in ("torch", "transformers") if "versions" in row)
    return f"{row.get('device', 'unknown')} ({used})"
