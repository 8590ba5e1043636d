"""Specialists against the limits of the project: one line for each healed model, and a table of cells with intervals.

Models are read from the folders that `minigpt sweep --healing preset` and `minigpt build` leave. Seeds of a cell are
averaged item by item. Intervals (95 %) are over documents or questions, paired with parent and tuned parent. Questions
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
from minigpt.evaluation import ItemScores, load_scores
from minigpt.evaluation.intervals import around, half_width, influences
from minigpt.evaluation.paired import averaged, paired
from minigpt.evaluation.ratios import Array
from minigpt.files import read_jsonl, to_plain, write_jsonl, write_text
from minigpt.report import load
from minigpt.report.figures import HEADLINE
from minigpt.results import BuildReport, Interval
from minigpt.sweep.cells import scores_of
from minigpt.sweep.records import Score

ACCURACY, GENERAL = "accuracy", "general"
# Limits of the bits per byte by the share that is kept, as multiples of the parent's and of the tuned parent's.
LIMITS: Mapping[float, tuple[float, float]] = {0.75: (0.90, 1.03), 0.5: (0.98, 1.10), 0.35: (1.08, 1.20)}
Key = tuple[str, str, str, str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """A healed model: its report, its items, and the items of the parent and of the tuned parent."""

    report: BuildReport
    size: float
    items: ItemScores
    parent: ItemScores
    tuned: ItemScores

    @property
    def key(self) -> Key:
        """Domain, parent, preset, method and size; models with the same key are seeds of one cell."""
        report = self.report
        return report.domain, report.base_model, report.preset, report.method, self.size

    @property
    def question_set(self) -> str | None:
        """First question set of the domain, or None where it has none."""
        tasks = (task for task in self.items.questions if task.startswith(f"{self.report.domain}/"))
        return next(tasks, None)


def healed_in(folders: Iterable[Path]) -> list[Healed]:
    """Read every healed model with its parent and tuned parent.

    Where a model is in several folders, the first folder counts.

    Raises:
        MiniGPTError: a folder has no healed model, or one that was measured on other items than its parents.
    """
    models: dict[tuple[Any, ...], Healed] = {}
    for folder in folders:
        for model in _models(folder):
            if not (_same_items(model.items, model.parent) and _same_items(model.items, model.tuned)):
                raise MiniGPTError(f"{folder}: parent and specialist were measured on different items.")
            models.setdefault((*model.key, model.report.seed), model)
    return sorted(models.values(), key=lambda model: (*model.key[:4], -model.size, model.report.seed))


def _models(folder: Path) -> list[Healed]:
    """Read the healed models of a sweep or of a build."""
    if (folder / "points.jsonl").exists():
        rows = [row for row in read_jsonl(folder / "points.jsonl") if row["healing"] != "none"]
        models = [_point(folder / str(row["report"]), float(str(row["size"]))) for row in rows]
    else:
        models = [_build(folder)] if (folder / "report.json").exists() else []
    if not models:
        raise MiniGPTError(f"{folder} holds no healed model. Run minigpt sweep --healing preset first.")
    return models


def _point(path: Path, size: float) -> Healed:
    """Read a point of a sweep."""
    parent, tuned = _unpruned(path.parents[2] / "shared" / "work")
    items = load_scores(path.with_name("items_healed.json"))
    return Healed(report=load(path), size=size, items=items, parent=parent, tuned=tuned)


def _build(folder: Path) -> Healed:
    """Read a build."""
    parent, tuned = _unpruned(folder / "work")
    report, items = load(folder / "report.json"), load_scores(folder / "work" / "measured_healed" / "scores.json")
    return Healed(report=report, size=round(kept(report), 2), items=items, parent=parent, tuned=tuned)


def _unpruned(work: Path) -> tuple[ItemScores, ItemScores]:
    """Read the items of the parent and of the tuned parent."""
    parent, tuned = (load_scores(work / f"measured_{name}" / "scores.json") for name in ("parent", "parent_tuned"))
    return parent, tuned


def _same_items(one: ItemScores, other: ItemScores) -> bool:
    """Tell whether both were measured on the same documents and questions, in the same order."""
    first, second = ({**items.texts, **items.questions} for items in (one, other))
    return first.keys() == second.keys() and all(first[task].keys == second[task].keys for task in first)


def kept(report: BuildReport) -> float:
    """Compute the share of the parent's parameters that is left."""
    return report.stages[-1].parameters / report.stages[0].parameters


def cells_of(models: Sequence[Healed]) -> dict[Key, list[Healed]]:
    """Group models into cells, whose models differ in their seed only.

    Raises:
        MiniGPTError: the seeds of a cell have different parents or tuned parents.
    """
    cells: dict[Key, list[Healed]] = {}
    for model in models:
        cells.setdefault(model.key, []).append(model)
    for key, cell in cells.items():
        if any((model.parent, model.tuned) != (cell[0].parent, cell[0].tuned) for model in cell):
            raise MiniGPTError(f"The seeds of {key[0]} at {key[-1]:.0%} were paired with different parents.")
    return cells


def scores_against(cell: Sequence[Healed], against: str) -> dict[tuple[str, str], Score]:
    """Score a cell by task and metric.

    Args:
        cell: the seeds, which are averaged.
        against: `parent` or `tuned`, the model that the scores are paired with.
    """
    scores = scores_of("healed", [model.items for model in cell], getattr(cell[0], against))
    return {(score.task, score.metric): score for score in scores}


def right_answers(cell: Sequence[Healed], task: str) -> tuple[Array, Array]:
    """Count right answers of the specialist, averaged over seeds, and of the parent.

    Returns:
        Two arrays of shape [questions, 2]; the columns are right answers and questions that were put.
    """
    specialist = averaged([model.items.questions[task] for model in cell], ACCURACY)
    return specialist, averaged([cell[0].parent.questions[task]], ACCURACY)


def share_of_parent(specialist: Array, parent: Array, chance: float) -> Interval | None:
    """Compute the share of the parent's answers beyond guessing that is left.

    It is (accuracy - chance) / (accuracy of the parent - chance).

    Returns:
        The share, or None where the parent is not distinguishable from guessing and the share would be of nothing.
    """
    ours, reference, count = specialist[:, 0] - chance, parent[:, 0] - chance, len(specialist)
    if reference.mean() <= half_width((reference - reference.mean()) / (count - 1), count):
        return None
    return around(float(ours.sum() / reference.sum()), half_width(influences(ours, reference), count))


def pooled(pairs: Sequence[tuple[Array, Array]]) -> Interval:
    """Compute accuracy less the parent's over the questions of all pairs together; each question counts once."""
    specialists, parents = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    return paired(specialists, parents, ACCURACY)


def lines_of(models: Sequence[Healed], label: str = "") -> Iterator[dict[str, Any]]:
    """Yield one line for each model: shape, bits per byte, every ratio and difference, without the items.

    `seconds` is the time of all its stages, including those that a sweep shares. Other work on the machine counts.
    """
    for model in models:
        report, stages = model.report, {stage.stage: stage for stage in model.report.stages}
        training = stages["healed"].training
        yield {
            "domain": report.domain, "method": report.method, "size": model.size, "seed": report.seed,
            "preset": report.preset, "label": label, "device": report.device, "base": report.base_model,
            "parameters": stages["healed"].parameters, "kept": kept(report),
            "shape": to_plain(report.shape_after), "recipe": training.recipe if training else "",
            "tokens": training.tokens if training else 0, "seconds": report.seconds,
            "stage_seconds": {name: stage.seconds for name, stage in stages.items()},
            **results_of(model),
        }  # fmt: skip


def results_of(model: Healed) -> dict[str, Any]:
    """Compare every text and every question set with the parent and the tuned parent."""
    parent, tuned = (scores_against([model], against) for against in ("parent", "tuned"))
    texts = {
        task: {
            "bits_per_byte": parent[task, HEADLINE].value.value,
            "parent": to_plain(parent[task, HEADLINE].ratio), "tuned": to_plain(tuned[task, HEADLINE].ratio),
        }
        for task in model.items.texts
    }  # fmt: skip
    questions = {
        task: {
            "n": len(items.keys), "accuracy": parent[task, ACCURACY].value.value,
            "parent": mean_of(model.parent, task), "tuned": mean_of(model.tuned, task),
            "difference": to_plain(parent[task, ACCURACY].difference),
            "difference_to_tuned": to_plain(tuned[task, ACCURACY].difference),
            "share_of_parent": to_plain(share_of_parent(*right_answers([model], task), items.chance)),
        }
        for task, items in model.items.questions.items()
    }  # fmt: skip
    return {"texts": texts, "questions": questions}


def mean_of(items: ItemScores, task: str) -> float:
    """Compute the share of questions that are answered right."""
    return float(np.mean(items.questions[task].correct))


def table(models: Sequence[Healed]) -> str:
    """Write a Markdown table with a row for each cell, then one line for the questions of all domains together.

    There is such a line for each parent, preset, method and size.
    """
    lines = [
        "| domain, preset, method, kept (seeds) | layers, FFN, KV groups, tokens | to the parent | to the tuned parent "
        "| general, to the parent | questions: parent, tuned, specialist | to the parent | to the tuned parent "
        "| share of the parent beyond chance |",
        "|---" * 9 + "|",
    ]
    together: dict[tuple[Any, ...], list[tuple[Array, Array]]] = {}
    for key, cell in cells_of(models).items():
        lines.append(_row(cell))
        if (task := cell[0].question_set) is not None:
            together.setdefault(key[1:], []).append(right_answers(cell, task))
    for (_, preset, method, size), pairs in together.items():
        count = sum(len(specialist) for specialist, _ in pairs)
        cells = f"{preset}, {method}, {size:.0%} kept, {len(pairs)} domains, n {count}"
        lines.append(f"\nQuestions together ({cells}), to the parent: {_signed(pooled(pairs))}")
    return "\n".join(lines)


def _row(cell: Sequence[Healed]) -> str:
    """Write the row of a cell."""
    model, domain, size = cell[0], cell[0].report.domain, cell[0].size
    shape = model.report.shape_after
    widths = f"{shape.layers}, {shape.intermediate_size:,}, {shape.kv_groups}, {shape.vocab_size:,}"
    most = LIMITS.get(size, (np.inf, np.inf))
    parent, tuned = (scores_against(cell, against) for against in ("parent", "tuned"))
    ratios = [scores[domain, HEADLINE].ratio for scores in (parent, tuned)]
    marked = [_interval(ratio, most=limit) for ratio, limit in zip(ratios, most, strict=True)]
    general = _interval(parent[GENERAL, HEADLINE].ratio) if (GENERAL, HEADLINE) in parent else "-"
    name = f"{domain}, {model.report.preset}, {model.report.method}, {size:.0%} ({len(cell)})"
    return "| " + " | ".join([name, widths, *marked, general, *_answers(cell, parent, tuned)]) + " |"


def _answers(cell: Sequence[Healed], *against: Mapping[tuple[str, str], Score]) -> list[str]:
    """Write the last four columns of a row from the scores against parent and tuned parent."""
    model = cell[0]
    if (task := model.question_set) is None:
        return ["-"] * 4
    first = against[0][task, ACCURACY]
    share = share_of_parent(*right_answers(cell, task), model.parent.questions[task].chance)
    means = [mean_of(model.parent, task), mean_of(model.tuned, task), first.value.value]
    answered = ", ".join(f"{mean:.3f}" for mean in means) + f" (n {first.n})"
    differences = [_signed(scores[task, ACCURACY].difference) for scores in against]
    return [answered, *differences, "at chance" if share is None else _interval(share)]


def _interval(ratio: Interval | None, most: float = np.inf) -> str:
    """Write a ratio with its interval, and with a mark where it is above `most`."""
    if ratio is None:
        return "-"
    return f"{ratio.value:.4f} ({ratio.low:.3f}-{ratio.high:.3f})" + " *" * (ratio.value > most)


def _signed(difference: Interval | None) -> str:
    """Write a difference with its sign and its interval."""
    if difference is None:
        return "-"
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def main() -> None:
    """Read sweeps and builds, and write lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of minigpt sweep or minigpt build")
    parser.add_argument("--lines", type=Path, help="write one JSON line for each model to this file")
    parser.add_argument("--table", type=Path, help="write the table to this file instead of printing it")
    parser.add_argument("--label", default="", help="a note that every line gets")
    options = parser.parse_args()
    models = healed_in(options.folders)
    if options.lines:
        write_jsonl(options.lines, lines_of(models, options.label))
    if options.table:
        write_text(options.table, table(models) + "\n")
    else:
        print(table(models))


if __name__ == "__main__":
    main()
