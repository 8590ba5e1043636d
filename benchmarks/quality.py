"""Specialists against what they must reach: one line a point of a healed sweep, and a table of cells with intervals.

Points are read from the folders that `minigpt sweep --healing preset` leaves. Seeds of a cell are averaged item by
item, then a bootstrap over documents or questions gives 95 % intervals, paired with parent and tuned parent; questions
of several domains are pooled question by question.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.errors import MiniGPTError
from minigpt.evaluate import ItemScores, load_scores
from minigpt.evaluate.bootstrap import Array, interval, resampled_sums
from minigpt.evaluate.paired import averaged, paired
from minigpt.figures import HEADLINE
from minigpt.files import read_jsonl, to_plain, write_jsonl, write_text
from minigpt.report import load
from minigpt.types import BuildReport, Interval

ACCURACY = "accuracy"
LIMITS: Mapping[float, tuple[float, float]] = {0.75: (0.90, 1.03), 0.5: (0.98, 1.10), 0.35: (1.08, 1.20)}
"""By the share that is kept: bits per byte at most, as multiples of the parent's and of the tuned parent's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """A healed point: its report, its items, and those of the two models it is paired with."""

    report: BuildReport
    size: float
    items: ItemScores
    parent: ItemScores
    tuned: ItemScores

    @property
    def key(self) -> tuple[str, str, float]:
        """Domain, method and size: points that differ in nothing else are seeds of one cell."""
        return self.report.domain, self.report.method, self.size


def points_of(folders: Iterable[Path]) -> list[Healed]:
    """Every healed point with its controls; of one that stands in several folders the first.

    Raises:
        MiniGPTError: a folder holds no healed point, or no tuned parent.
    """
    found: dict[tuple[Any, ...], Healed] = {}
    for folder in folders:
        rows = [row for row in read_jsonl(folder / "points.jsonl") if row["healing"] != "none"]
        if not rows:
            raise MiniGPTError(f"{folder} holds no healed points; make them with minigpt sweep --healing preset.")
        for row in rows:
            point = _point(folder / str(row["report"]), float(str(row["size"])))
            found.setdefault((*point.key, point.report.seed), point)
    return sorted(found.values(), key=lambda each: (each.key[0], -each.size, each.report.seed))


def _point(path: Path, size: float) -> Healed:
    work = path.parents[2] / "shared" / "work"
    parent, tuned = (load_scores(work / f"measured_{name}" / "scores.json") for name in ("parent", "parent_tuned"))
    items = load_scores(path.with_name("items_healed.json"))
    return Healed(report=load(path), size=size, items=items, parent=parent, tuned=tuned)


def cells_of(points: Sequence[Healed]) -> dict[tuple[str, str, float], list[Healed]]:
    """Points by domain, method and size."""
    cells: dict[tuple[str, str, float], list[Healed]] = {}
    for point in points:
        cells.setdefault(point.key, []).append(point)
    return cells


def text_ratio(cell: Sequence[Healed], task: str, against: str) -> Interval:
    """Bits per byte of a text, averaged over seeds, over those of `parent` or `tuned`."""
    ours = averaged([point.items.texts[task] for point in cell], HEADLINE)
    return paired(ours, averaged([getattr(cell[0], against).texts[task]], HEADLINE), HEADLINE, how="ratio")


def right_answers(cell: Sequence[Healed], task: str) -> tuple[Array, Array, float]:
    """[questions] right answers of specialist (mean of the seeds) and parent, and the score of guessing."""
    ours = averaged([point.items.questions[task] for point in cell], ACCURACY)[:, 0]
    asked = cell[0].parent.questions[task]
    return ours, averaged([asked], ACCURACY)[:, 0], asked.chance


def share_of_parent(ours: Array, parents: Array, chance: float) -> Interval | None:
    """What is left of the parent's answers beyond guessing: (accuracy - chance) / (parent's accuracy - chance).

    None where the parent cannot be told from guessing: its share would be of nothing.
    """
    columns = np.stack([ours - chance, parents - chance], axis=1)
    drawn, sums = resampled_sums(columns), columns.sum(0)
    if np.percentile(drawn[:, 1], 2.5) <= 0:
        return None
    drawn = drawn[drawn[:, 1] > 0]
    return interval(float(sums[0] / sums[1]), drawn[:, 0] / drawn[:, 1])


def difference(pairs: Sequence[tuple[Array, Array]]) -> Interval:
    """Accuracy less the parent's over the questions of all pairs together, each question counting once."""
    columns = np.concatenate([ours - parents for ours, parents in pairs])[:, None]
    return interval(float(columns.mean()), resampled_sums(columns)[:, 0] / len(columns))


def lines_of(points: Sequence[Healed]) -> Iterator[dict[str, Any]]:
    """One line a point: shape, times and every ratio, without the items."""
    for point in points:
        report, stages = point.report, {stage.stage: stage for stage in point.report.stages}
        final, training = stages["healed"], stages["healed"].training
        yield {
            "domain": report.domain, "method": report.method, "size": point.size, "seed": report.seed,
            "preset": report.preset, "device": report.device, "base": report.base_model,
            "parameters": final.parameters, "kept": final.parameters / stages["parent"].parameters,
            "shape": to_plain(report.shape_after), "recipe": training.recipe if training else "",
            "tokens": training.tokens if training else 0, "seconds": report.seconds,
            "stage_seconds": {name: stage.seconds for name, stage in stages.items()},
            **scores_of([point]),
        }  # fmt: skip


def scores_of(cell: Sequence[Healed]) -> dict[str, Any]:
    """Every text against both controls, every question set against the parent."""
    texts = {
        task: {against: to_plain(text_ratio(cell, task, against)) for against in ("parent", "tuned")}
        for task in cell[0].items.texts
    }
    questions = {}
    for task, asked in cell[0].items.questions.items():
        ours, parents, chance = right_answers(cell, task)
        questions[task] = {
            "n": len(asked.keys), "accuracy": float(ours.mean()), "parent": float(parents.mean()),
            "tuned": float(np.mean(cell[0].tuned.questions[task].correct)),
            "difference": to_plain(difference([(ours, parents)])),
            "share_of_parent": None if (share := share_of_parent(ours, parents, chance)) is None else to_plain(share),
        }  # fmt: skip
    return {"texts": texts, "questions": questions}


def table(points: Sequence[Healed]) -> str:
    """A Markdown row a cell, then the questions of all domains together, size by size."""
    lines = [
        "| domain, kept (seeds) | to the parent | to the tuned parent | general, to the parent "
        "| questions: parent, tuned, specialist | difference to the parent | share of the parent beyond chance |",
        "|---" * 7 + "|",
    ]
    cells = cells_of(points)
    for (domain, _, size), cell in cells.items():
        lines.append(_row(domain, size, cell))
    for size in dict.fromkeys(size for _, _, size in cells):
        pairs = [right_answers(each, f"{key[0]}/glossary")[:2] for key, each in cells.items() if key[2] == size]
        asked = sum(len(ours) for ours, _ in pairs)
        lines.append(f"\nQuestions of all domains at {size:.0%} (n {asked}): {_signed(difference(pairs))}")
    return "\n".join(lines)


def _row(domain: str, size: float, cell: Sequence[Healed]) -> str:
    most = LIMITS.get(size, (np.inf, np.inf))
    ratios = [text_ratio(cell, domain, against) for against in ("parent", "tuned")]
    shown = [_interval(each) + ("" if each.value <= limit else " *") for each, limit in zip(ratios, most, strict=True)]
    ours, parents, chance = right_answers(cell, f"{domain}/glossary")
    tuned = float(np.mean(cell[0].tuned.questions[f"{domain}/glossary"].correct))
    general = _interval(text_ratio(cell, "general", "parent")) if "general" in cell[0].items.texts else "-"
    share = share_of_parent(ours, parents, chance)
    answers = f"{parents.mean():.3f}, {tuned:.3f}, {ours.mean():.3f} (n {len(ours)})"
    parts = [f"{domain}, {size:.0%} ({len(cell)})", *shown, general, answers, _signed(difference([(ours, parents)]))]
    return "| " + " | ".join([*parts, "at chance" if share is None else _interval(share)]) + " |"


def _interval(found: Interval) -> str:
    return f"{found.value:.4f} ({found.low:.3f}-{found.high:.3f})"


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def main() -> None:
    """Read sweeps, write lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweeps", nargs="+", type=Path, help="folders of minigpt sweep")
    parser.add_argument("--lines", type=Path, help="write a JSON line a point here")
    parser.add_argument("--table", type=Path, help="write the table here instead of showing it")
    chosen = parser.parse_args()
    points = points_of(chosen.sweeps)
    if chosen.lines:
        write_jsonl(chosen.lines, lines_of(points))
    if chosen.table:
        write_text(chosen.table, table(points) + "\n")
    else:
        print(table(points))


if __name__ == "__main__":
    main()
