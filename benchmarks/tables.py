"""Tables and pictures of `benchmarks/methods.py`: every method at every size, with intervals, and who wins.

All numbers are computed from the items in the results: seeds are averaged first, then a bootstrap over documents or
questions gives 95 % intervals, paired wherever two models are compared.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from minigpt.errors import MiniGPTError
from minigpt.evaluate import ItemScores
from minigpt.evaluate.paired import averaged, paired
from minigpt.figures import ENOUGH_ITEMS, HEADLINE
from minigpt.files import read_jsonl, write_text
from minigpt.sweep.cells import scores_of
from minigpt.sweep.plots import collapse, quality, save_figure
from minigpt.sweep.records import Cell, Pareto, Score, Swept
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


def expanded(items: Mapping[str, Any], parent: ItemScores) -> ItemScores:
    """Full items from the compact ones of a line."""
    texts = {task: replace(parent.texts[task], bits=tuple(bits)) for task, bits in items["texts"].items()}
    asked = {
        task: replace(parent.questions[task], picks=tuple(raw), picks_norm=tuple(norm))
        for task, (raw, norm) in items["questions"].items()
    }
    return ItemScores(texts=texts, questions=asked)


def suites(path: Path) -> list[Suite]:
    """The lines of the results, by domain.

    Raises:
        MiniGPTError: points whose parent's line is missing, or one point with two settings under one label.
    """
    lines = [row for row in read_jsonl(path)]
    controls = {(row["suite"], row["method"]): row for row in lines if "control" in row}
    groups: dict[str, dict[int, dict[Key, list[Any]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in lines:
        if "control" not in row:
            if (row["suite"], "parent") not in controls:
                raise MiniGPTError(f"{path} has points of {row['domain']} without its parent's line; run it again.")
            name = " ".join(part for part in (row["method"], row["label"], "(masked)" * row["masked"]) if part)
            same = groups[row["suite"]][row["heal_steps"]][name, row["size"]]
            if row["seed"] in {each["seed"] for each in same}:
                raise MiniGPTError(
                    f"{path} holds {name} at {row['size']:g} on {row['domain']} twice with seed {row['seed']}: give "
                    "runs with other settings a --label of their own."
                )
            same.append(row)
    found: list[Suite] = []
    for suite, kind in controls:
        if kind == "parent":
            domain = controls[suite, kind]["domain"]
            earlier = sum(each.domain == domain for each in found)
            found.append(_suite(suite, f"{domain}-{earlier + 1}" if earlier else domain, groups[suite], controls))
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
    )


def versus(one: Entry, other: Entry, task: str, metric: str) -> int:
    """1 where `one` is significantly better than `other` on the same items, -1 where worse, else 0."""
    ours, theirs = (averaged([_task(run, task) for run in entry.runs], metric) for entry in (one, other))
    found = paired(ours, theirs, metric)
    if len(ours) < ENOUGH_ITEMS or found.low <= 0 <= found.high:
        return 0
    return 1 if (found.value < 0) == (metric == HEADLINE) else -1


def _task(run: ItemScores, task: str) -> Any:
    return run.texts[task] if task in run.texts else run.questions[task]


def best_of(entries: Mapping[Key, Entry], size: float, task: str, metric: str) -> Key | None:
    """The best value at a size."""
    found = {key: each.score(task, metric) for key, each in entries.items() if key[1] == size}
    values = {key: score.value.value for key, score in found.items() if score is not None}
    if not values:
        return None
    choose: Callable[..., Key] = min if metric == HEADLINE else max
    return choose(values, key=lambda key: values[key])


def table(entries: Mapping[Key, Entry], task: str, metric: str) -> str:
    """A Markdown table: a row a method, a column a size; best in bold, `=` where the best is not shown to be better."""
    sizes = sorted({size for _, size in entries}, reverse=True)
    winners = {size: best_of(entries, size, task, metric) for size in sizes}
    lines = ["| method | " + " | ".join(f"{size:.0%} kept" for size in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for method in dict.fromkeys(name for name, _ in entries):
        cells = [_cell(entries, (method, size), winners[size], task, metric) for size in sizes]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(entries: Mapping[Key, Entry], key: Key, winner: Key | None, task: str, metric: str) -> str:
    entry = entries.get(key)
    score = entry.score(task, metric) if entry else None
    if entry is None or score is None or winner is None:
        return "–"
    shown = score.ratio if metric == HEADLINE and score.ratio else score.value
    text = f"{shown.value:.3f} ({shown.low:.3f}–{shown.high:.3f})"
    if metric != HEADLINE and score.difference is not None:
        low, high = score.difference.low, score.difference.high
        text += f", {score.difference.value:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    kept = entry.rows[0]["kept"]
    off = f" [{kept:.1%}]" if abs(kept - key[1]) > 0.01 else ""
    if key == winner:
        return f"**{text}**{off}"
    return text + (" =" if versus(entry, entries[winner], task, metric) == 0 else "") + off


def standing(found: Sequence[Suite], focus: str) -> str:
    """Where the method in focus is beaten: the cells in which another is significantly better, lost ones first."""
    lines, lost, total = [], 0, 0
    for suite in found:
        for steps, entries in suite.entries.items():
            for (method, size), entry in entries.items():
                if method != focus:
                    continue
                for task, metric in _measures(suite):
                    rivals = {
                        name: other for (name, other_size), other in entries.items()
                        if other_size == size and name != focus
                    }  # fmt: skip
                    better = [name for name, other in rivals.items() if versus(other, entry, task, metric) == 1]
                    total += bool(rivals)
                    lost += bool(better)
                    if better:
                        when = f"after {steps} steps" if steps else "before healing"
                        lines.append(f"- {suite.name}, {size:.0%} kept, {when}, {task}: {', '.join(better)}")
    head = f"`{focus}` is significantly beaten in {lost} of {total} cells" + (":" if lines else ".")
    return "\n".join([head, "", *lines]).rstrip()


def _measures(suite: Suite) -> list[tuple[str, str]]:
    return [(suite.domain, HEADLINE), *((task, "accuracy") for task in suite.parent.questions)]


def swept(suite: Suite, steps: int) -> Swept:
    """A domain as a sweep, which the pictures are drawn from: unhealed points, and those of one healing budget."""
    cells = [
        entry.cell(suite.domain, key)
        for budget in dict.fromkeys((0, steps))
        for key, entry in suite.entries.get(budget, {}).items()
    ]
    controls = scores_of("parent", [suite.parent], None)
    if suite.tuned is not None:
        controls += scores_of("parent_tuned", [suite.tuned], suite.parent)
    return Swept(
        domain=suite.domain,
        parameters=suite.parameters,
        controls=controls,
        cells=tuple(cells),
        pareto=Pareto(front=(), smallest={}),
    )


def document(found: Sequence[Suite], focus: str, pictures: Mapping[str, Sequence[str]], source: str) -> str:
    """The whole page."""
    parts = [
        "# Methods side by side",
        f"Written by `python benchmarks/tables.py --results {source}` from the items of `benchmarks/methods.py`.",
        "Bits per byte of held-out text as ratios to the parent's, accuracy with its difference to the parent, all "
        "with 95 % intervals from a bootstrap over documents or questions (paired where two models are compared). "
        "**Bold** is the best value of a column, `=` marks what the best is not significantly better than, `[..]` the "
        "size really reached where whole layers miss the target.",
        standing(found, focus),
    ]
    for suite in found:
        parts.append(f"## {suite.name}")
        parent = ", ".join(_control(score) for score in scores_of("parent", [suite.parent], None) if _shown(score))
        parts.append(f"Parent `{suite.base}`: {parent}.")
        if suite.tuned is not None:
            tuned = scores_of("parent_tuned", [suite.tuned], suite.parent)
            parts.append(
                f"Tuned parent, which is pruned and teaches: {', '.join(map(_control, filter(_shown, tuned)))}."
            )
        for steps, entries in suite.entries.items():
            when = f"after {steps} steps of healing" if steps else "before healing"
            for task, metric in [*_measures(suite), *(_general(suite))]:
                what = "bits per byte / parent" if metric == HEADLINE else metric
                parts += [f"### {task}, {what}, {when}", table(entries, task, metric)]
        parts += [f"![{suite.name}]({name})" for name in pictures.get(suite.name, ())]
        parts += [
            f"Not possible: {method} at {size:g} ({reason})"
            for each in suite.skipped.values()
            for (method, size), reason in each.items()
        ]
    return "\n\n".join(parts) + "\n"


def _general(suite: Suite) -> list[tuple[str, str]]:
    return [(task, HEADLINE) for task in suite.parent.texts if task != suite.domain]


def _shown(score: Score) -> bool:
    return score.metric in (HEADLINE, "accuracy")


def _control(score: Score) -> str:
    value = f"{score.task} {score.metric.replace('_', ' ')} {score.value.value:.3f}"
    chance = f", chance {score.chance:.2f}" if score.chance is not None else ""
    return f"{value} ({score.value.low:.3f}–{score.value.high:.3f}, n = {score.n}{chance})"


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/results/methods.md"))
    parser.add_argument("--focus", default="contextual", help="the method whose lost cells are listed")
    chosen = parser.parse_args()
    found = suites(chosen.results)
    pictures: dict[str, list[str]] = {}
    for suite in found:
        drawn = swept(suite, max(suite.entries, default=0))
        for name, draw in (("quality", quality), ("collapse", collapse)):
            if drawn.cells and (figure := draw(drawn)) is not None:
                stem = f"{chosen.output.stem}-{suite.name}-{name}"
                save_figure(figure, chosen.output.parent, stem)
                pictures.setdefault(suite.name, []).append(f"{stem}.svg")
    write_text(chosen.output, document(found, chosen.focus, pictures, chosen.results.name))
    print(standing(found, chosen.focus))


if __name__ == "__main__":
    main()
