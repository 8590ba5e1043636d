"""Specialists against what they must reach: one line a healed model, and a table of cells with intervals.

Models are read from the folders that `minigpt sweep --healing preset` and `minigpt build` leave. Seeds of a cell are
averaged item by item, then a bootstrap over documents or questions gives 95 % intervals, paired with parent and tuned
parent; questions of several domains are pooled question by question.
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
from minigpt.evaluation.bootstrap import Array, interval, resampled_sums
from minigpt.evaluation.paired import averaged, paired
from minigpt.files import read_jsonl, to_plain, write_jsonl, write_text
from minigpt.report import load
from minigpt.report.figures import HEADLINE
from minigpt.sweep.cells import scores_of
from minigpt.sweep.records import Score
from minigpt.types import BuildReport, Interval

ACCURACY, GENERAL = "accuracy", "general"
LIMITS: Mapping[float, tuple[float, float]] = {0.75: (0.90, 1.03), 0.5: (0.98, 1.10), 0.35: (1.08, 1.20)}
"""By the share that is kept: bits per byte at most, as multiples of the parent's and of the tuned parent's."""
Key = tuple[str, str, str, str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """A healed model: its report, its items, and those of the two models it is paired with."""

    report: BuildReport
    size: float
    items: ItemScores
    parent: ItemScores
    tuned: ItemScores

    @property
    def key(self) -> Key:
        """Domain, parent, preset, method and size: models that differ in nothing else are seeds of one cell."""
        report = self.report
        return report.domain, report.base_model, report.preset, report.method, self.size

    @property
    def asked(self) -> str | None:
        """The domain's own question set, the first where there are several."""
        own = (task for task in self.items.questions if task.startswith(f"{self.report.domain}/"))
        return next(own, None)


def healed_in(folders: Iterable[Path]) -> list[Healed]:
    """Every healed model with its controls; of one that stands in several folders the first.

    Raises:
        MiniGPTError: a folder holds none, or one whose controls were measured on other items than it.
    """
    found: dict[tuple[Any, ...], Healed] = {}
    for folder in folders:
        for model in _models(folder):
            if not (_same_items(model.items, model.parent) and _same_items(model.items, model.tuned)):
                raise MiniGPTError(f"{folder}: controls and specialist were measured on different items.")
            found.setdefault((*model.key, model.report.seed), model)
    return sorted(found.values(), key=lambda each: (*each.key[:4], -each.size, each.report.seed))


def _models(folder: Path) -> list[Healed]:
    if (folder / "points.jsonl").exists():
        rows = [row for row in read_jsonl(folder / "points.jsonl") if row["healing"] != "none"]
        found = [_point(folder / str(row["report"]), float(str(row["size"]))) for row in rows]
    else:
        found = [_build(folder)] if (folder / "report.json").exists() else []
    if not found:
        raise MiniGPTError(f"{folder} holds no healed model; make some with minigpt sweep --healing preset.")
    return found


def _point(path: Path, size: float) -> Healed:
    parent, tuned = _controls(path.parents[2] / "shared" / "work")
    items = load_scores(path.with_name("items_healed.json"))
    return Healed(report=load(path), size=size, items=items, parent=parent, tuned=tuned)


def _build(folder: Path) -> Healed:
    parent, tuned = _controls(folder / "work")
    report, items = load(folder / "report.json"), load_scores(folder / "work" / "measured_healed" / "scores.json")
    return Healed(report=report, size=round(kept(report), 2), items=items, parent=parent, tuned=tuned)


def _controls(work: Path) -> tuple[ItemScores, ItemScores]:
    parent, tuned = (load_scores(work / f"measured_{name}" / "scores.json") for name in ("parent", "parent_tuned"))
    return parent, tuned


def _same_items(one: ItemScores, other: ItemScores) -> bool:
    """Whether both were measured on the same documents and questions, in the same order."""
    mine, theirs = ({**each.texts, **each.questions} for each in (one, other))
    return mine.keys() == theirs.keys() and all(mine[task].keys == theirs[task].keys for task in mine)


def kept(report: BuildReport) -> float:
    """The share of the parent's parameters that is left."""
    return report.stages[-1].parameters / report.stages[0].parameters


def cells_of(models: Sequence[Healed]) -> dict[Key, list[Healed]]:
    """Models by what makes them seeds of one cell.

    Raises:
        MiniGPTError: seeds of a cell have different controls.
    """
    cells: dict[Key, list[Healed]] = {}
    for model in models:
        cells.setdefault(model.key, []).append(model)
    for key, cell in cells.items():
        if any((each.parent, each.tuned) != (cell[0].parent, cell[0].tuned) for each in cell):
            raise MiniGPTError(f"The seeds of {key[0]} at {key[-1]:.0%} were paired with different controls.")
    return cells


def scores_against(cell: Sequence[Healed], against: str) -> dict[tuple[str, str], Score]:
    """By task and metric, averaged over seeds and paired with `parent` or `tuned`."""
    found = scores_of("healed", [model.items for model in cell], getattr(cell[0], against))
    return {(score.task, score.metric): score for score in found}


def right_answers(cell: Sequence[Healed], task: str) -> tuple[Array, Array]:
    """Right answers of the specialist, mean of the seeds, and of the parent: [questions, 2], counted and asked."""
    ours = averaged([model.items.questions[task] for model in cell], ACCURACY)
    return ours, averaged([cell[0].parent.questions[task]], ACCURACY)


def share_of_parent(ours: Array, parents: Array, chance: float) -> Interval | None:
    """What is left of the parent's answers beyond guessing: (accuracy - chance) / (parent's accuracy - chance).

    None where the parent cannot be told from guessing: its share would be of nothing.
    """
    columns = np.stack([ours[:, 0] - chance, parents[:, 0] - chance], axis=1)
    drawn, sums = resampled_sums(columns), columns.sum(0)
    if np.percentile(drawn[:, 1], 2.5) <= 0:
        return None
    drawn = drawn[drawn[:, 1] > 0]
    return interval(float(sums[0] / sums[1]), drawn[:, 0] / drawn[:, 1])


def pooled(pairs: Sequence[tuple[Array, Array]]) -> Interval:
    """Accuracy less the parent's over the questions of all pairs together, each question counting once."""
    ours, parents = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    return paired(ours, parents, ACCURACY)


def lines_of(models: Sequence[Healed], label: str = "") -> Iterator[dict[str, Any]]:
    """One line a model: shape, bits per byte, every ratio and difference, without the items.

    `seconds` are those of its stages, those that a sweep shares among them, and with whatever ran beside it.
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
            **told(model),
        }  # fmt: skip


def told(model: Healed) -> dict[str, Any]:
    """Every text and every question set against both controls."""
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
            "n": len(asked.keys), "accuracy": parent[task, ACCURACY].value.value,
            "parent": mean_of(model.parent, task), "tuned": mean_of(model.tuned, task),
            "difference": to_plain(parent[task, ACCURACY].difference),
            "difference_to_tuned": to_plain(tuned[task, ACCURACY].difference),
            "share_of_parent": to_plain(share_of_parent(*right_answers([model], task), asked.chance)),
        }
        for task, asked in model.items.questions.items()
    }  # fmt: skip
    return {"texts": texts, "questions": questions}


def mean_of(items: ItemScores, task: str) -> float:
    """The share of questions answered right."""
    return float(np.mean(items.questions[task].correct))


def table(models: Sequence[Healed]) -> str:
    """A Markdown row a cell, then the questions of all domains together: a line a parent, preset, method and size."""
    lines = [
        "| domain, preset, method, kept (seeds) | layers, FFN, KV groups, tokens | to the parent | to the tuned parent "
        "| general, to the parent | questions: parent, tuned, specialist | to the parent | to the tuned parent "
        "| share of the parent beyond chance |",
        "|---" * 9 + "|",
    ]
    together: dict[tuple[Any, ...], list[tuple[Array, Array]]] = {}
    for key, cell in cells_of(models).items():
        lines.append(_row(cell))
        if (asked := cell[0].asked) is not None:
            together.setdefault(key[1:], []).append(right_answers(cell, asked))
    for (_, preset, method, size), pairs in together.items():
        what = f"{preset}, {method}, {size:.0%} kept, {len(pairs)} domains, n {sum(len(ours) for ours, _ in pairs)}"
        lines.append(f"\nQuestions together ({what}), to the parent: {_signed(pooled(pairs))}")
    return "\n".join(lines)


def _row(cell: Sequence[Healed]) -> str:
    model, domain, size = cell[0], cell[0].report.domain, cell[0].size
    shape = model.report.shape_after
    widths = f"{shape.layers}, {shape.intermediate_size:,}, {shape.kv_groups}, {shape.vocab_size:,}"
    most = LIMITS.get(size, (np.inf, np.inf))
    parent, tuned = (scores_against(cell, against) for against in ("parent", "tuned"))
    ratios = [found[domain, HEADLINE].ratio for found in (parent, tuned)]
    marked = [_interval(each, most=limit) for each, limit in zip(ratios, most, strict=True)]
    general = _interval(parent[GENERAL, HEADLINE].ratio) if (GENERAL, HEADLINE) in parent else "-"
    name = f"{domain}, {model.report.preset}, {model.report.method}, {size:.0%} ({len(cell)})"
    return "| " + " | ".join([name, widths, *marked, general, *_answers(cell, parent, tuned)]) + " |"


def _answers(cell: Sequence[Healed], *against: Mapping[tuple[str, str], Score]) -> list[str]:
    """The last four columns of a row, of scores against parent and tuned parent."""
    model = cell[0]
    if (task := model.asked) is None:
        return ["-"] * 4
    first = against[0][task, ACCURACY]
    share = share_of_parent(*right_answers(cell, task), model.parent.questions[task].chance)
    means = [mean_of(model.parent, task), mean_of(model.tuned, task), first.value.value]
    answered = ", ".join(f"{mean:.3f}" for mean in means) + f" (n {first.n})"
    differences = [_signed(found[task, ACCURACY].difference) for found in against]
    return [answered, *differences, "at chance" if share is None else _interval(share)]


def _interval(found: Interval | None, most: float = np.inf) -> str:
    """With a mark where the value is above `most`."""
    if found is None:
        return "-"
    return f"{found.value:.4f} ({found.low:.3f}-{found.high:.3f})" + " *" * (found.value > most)


def _signed(found: Interval | None) -> str:
    return "-" if found is None else f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def main() -> None:
    """Read sweeps and builds, write lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="of minigpt sweep or minigpt build")
    parser.add_argument("--lines", type=Path, help="write a JSON line a model here")
    parser.add_argument("--table", type=Path, help="write the table here instead of showing it")
    parser.add_argument("--label", default="", help="what these models have in common that their reports do not say")
    chosen = parser.parse_args()
    models = healed_in(chosen.folders)
    if chosen.lines:
        write_jsonl(chosen.lines, lines_of(models, chosen.label))
    if chosen.table:
        write_text(chosen.table, table(models) + "\n")
    else:
        print(table(models))


if __name__ == "__main__":
    main()
