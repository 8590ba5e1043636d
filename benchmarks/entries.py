"""Results of `benchmarks/methods.py` put together by domain, with intervals computed from the items."""

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
from minigpt.results import StageName
from minigpt.sweep.cells import scores_of
from minigpt.sweep.records import Cell, Score

ITEMS = TypeAdapter(ItemScores)
Key = tuple[str, float]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method at a size on a domain, before or after healing: the result lines of its seeds and the parent's items."""

    rows: tuple[Mapping[str, Any], ...]
    parent: ItemScores
    stage: StageName

    @cached_property
    def runs(self) -> list[ItemScores]:
        """Items of each seed, completed with what the parent's line says about the documents."""
        return [expanded(row["items"][self.stage], self.parent) for row in self.rows]

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """Scores of every task and metric, with intervals."""
        return scores_of(self.stage, self.runs, self.parent)

    def score(self, task: str, metric: str) -> Score | None:
        """Return the score of a task and metric, or None where it was not measured."""
        return next((score for score in self.scores if (score.task, score.metric) == (task, metric)), None)

    def cell(self, domain: str, name: Key) -> Cell:
        """Convert the entry to a cell of a sweep, which the pictures are drawn from."""
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
    """Results on one domain's documents: the unpruned models, and entries by healing steps and (method, size).

    `name` separates suites of one domain that have another parent, a tuned parent, or other documents.
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
    """Restore full items from the compact ones of a result line."""
    texts = {task: replace(parent.texts[task], bits=tuple(bits)) for task, bits in items["texts"].items()}
    questions = {
        task: replace(parent.questions[task], picks=tuple(raw), picks_norm=tuple(norm))
        for task, (raw, norm) in items["questions"].items()
    }
    return ItemScores(texts=texts, questions=questions)


def read_suites(*paths: Path) -> list[Suite]:
    """Read results and group them by domain.

    Where a point is in several files, the last file counts.

    Raises:
        MiniGPTError: the parent's line is missing, or one label has a point twice with different settings.
    """
    lines = list({(row["suite"], row["key"]): row for path in paths for row in read_jsonl(path)}.values())
    files = ", ".join(map(str, paths))
    unpruned = {(row["suite"], row["method"]): row for row in lines if "control" in row}
    groups: dict[str, dict[int, dict[Key, list[Any]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in lines:
        if "control" not in row:
            if (row["suite"], "parent") not in unpruned:
                raise MiniGPTError(f"{files}: points of {row['domain']} without its parent's line; run it again.")
            name = " ".join(part for part in (row["method"], row["label"], "(masked)" * row["masked"]) if part)
            seeds = groups[row["suite"]][row["heal_steps"]][name, row["size"]]
            if row["seed"] in {earlier["seed"] for earlier in seeds}:
                raise MiniGPTError(
                    f"{files}: {name} at {row['size']:g} on {row['domain']} is there twice with seed {row['seed']}. "
                    "Give runs with other settings another --label."
                )
            seeds.append(row)
    suites: list[Suite] = []
    for suite, kind in unpruned:
        if kind == "parent":
            name = str(unpruned[suite, kind]["domain"]) + "-tuned" * ((suite, "parent_tuned") in unpruned)
            earlier = sum(other.name == name or other.name.startswith(f"{name}-again") for other in suites)
            suites.append(_suite(suite, f"{name}-again{earlier}" if earlier else name, groups[suite], unpruned))
    return suites


def _suite(suite: str, name: str, group: Mapping[int, Mapping[Key, list[Any]]], unpruned: Mapping[Any, Any]) -> Suite:
    """Build a suite from its result lines and from those of the unpruned models."""
    line, tuned = unpruned[suite, "parent"], unpruned.get((suite, "parent_tuned"))
    parent = ITEMS.validate_python(line["control"])
    entries: dict[int, dict[Key, Entry]] = {}
    skipped: dict[int, dict[Key, str]] = {}
    for steps, points in sorted(group.items()):
        stage: StageName = "healed" if steps else "pruned"
        for key, rows in points.items():
            measured = [row for row in rows if "items" in row]
            if measured:
                entries.setdefault(steps, {})[key] = Entry(rows=tuple(measured), parent=parent, stage=stage)
            else:
                skipped.setdefault(steps, {})[key] = rows[0]["skipped"]
    # The parent's line has no size, so it follows from any pruned model's size and share.
    sample = next((entry for points in entries.values() for entry in points.values()), None)
    size = round(sample.rows[0]["parameters"] / sample.rows[0]["kept"]) if sample else 0
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
            dict.fromkeys(_machine(row) for points in group.values() for rows in points.values() for row in rows)
        ),
    )


def _machine(row: Mapping[str, Any]) -> str:
    """Name the device and the package versions that a line was measured with."""
    packages = ", ".join(f"{name} {row['versions'][name]}" for name in ("torch", "transformers") if "versions" in row)
    return f"{row.get('device', 'unknown')} ({packages})"
