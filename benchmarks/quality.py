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
from minigpt.evaluate import ItemScores, load_scores
from minigpt.evaluate.bootstrap import Array, interval, resampled_sums
from minigpt.evaluate.paired import averaged, paired
from minigpt.figures import HEADLINE
from minigpt.files import read_jsonl, to_plain, write_jsonl, write_text
from minigpt.report import load
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


def text_ratio(cell: Sequence[Healed], task: str, against: str) -> Interval:
    """Bits per byte of a text, averaged over seeds, over those of `parent` or `tuned`."""
    ours = averaged([model.items.texts[task] for model in cell], HEADLINE)
    return paired(ours, averaged([getattr(cell[0], against).texts[task]], HEADLINE), HEADLINE, how="ratio")


def right_answers(cell: Sequence[Healed], task: str, against: str = "parent") -> tuple[Array, Array]:
    """[questions] right answers of the specialist, mean of the seeds, and of `parent` or `tuned`."""
    ours = averaged([model.items.questions[task] for model in cell], ACCURACY)[:, 0]
    return ours, averaged([getattr(cell[0], against).questions[task]], ACCURACY)[:, 0]


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
    """Accuracy less a control's over the questions of all pairs together, each question counting once."""
    columns = np.concatenate([ours - theirs for ours, theirs in pairs])[:, None]
    return interval(float(columns.mean()), resampled_sums(columns)[:, 0] / len(columns))


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
            **scores_of([model]),
        }  # fmt: skip


def scores_of(cell: Sequence[Healed]) -> dict[str, Any]:
    """Every text and every question set against both controls."""
    first = cell[0]
    texts = {
        task: {"bits_per_byte": float(np.mean([model.items.texts[task].bits_per_byte for model in cell]))}
        | {against: to_plain(text_ratio(cell, task, against)) for against in ("parent", "tuned")}
        for task in first.items.texts
    }
    questions = {}
    for task, asked in first.items.questions.items():
        pairs = {against: right_answers(cell, task, against) for against in ("parent", "tuned")}
        share = share_of_parent(*pairs["parent"], asked.chance)
        questions[task] = {
            "n": len(asked.keys), "accuracy": float(pairs["parent"][0].mean()),
            "parent": float(pairs["parent"][1].mean()), "tuned": float(pairs["tuned"][1].mean()),
            "difference": to_plain(difference([pairs["parent"]])),
            "difference_to_tuned": to_plain(difference([pairs["tuned"]])),
            "share_of_parent": None if share is None else to_plain(share),
        }  # fmt: skip
    return {"texts": texts, "questions": questions}


def table(models: Sequence[Healed]) -> str:
    """A Markdown row a cell, then the questions of all domains together: a line a parent, preset, method and size."""
    lines = [
        "| domain, preset, method, kept (seeds) | layers, FFN, KV groups, tokens | to the parent | to the tuned parent "
        "| general, to the parent | questions: parent, tuned, specialist | to the parent | to the tuned parent "
        "| share of the parent beyond chance |",
        "|---" * 9 + "|",
    ]
    pooled: dict[tuple[Any, ...], list[tuple[Array, Array]]] = {}
    for key, cell in cells_of(models).items():
        lines.append(_row(cell))
        if (asked := cell[0].asked) is not None:
            pooled.setdefault(key[1:], []).append(right_answers(cell, asked))
    for (_, preset, method, size), pairs in pooled.items():
        what = f"{preset}, {method}, {size:.0%} kept, {len(pairs)} domains, n {sum(len(ours) for ours, _ in pairs)}"
        lines.append(f"\nQuestions together ({what}), to the parent: {_signed(difference(pairs))}")
    return "\n".join(lines)


def _row(cell: Sequence[Healed]) -> str:
    model, domain, size = cell[0], cell[0].report.domain, cell[0].size
    shape = model.report.shape_after
    widths = f"{shape.layers}, {shape.intermediate_size:,}, {shape.kv_groups}, {shape.vocab_size:,}"
    most = LIMITS.get(size, (np.inf, np.inf))
    ratios = [text_ratio(cell, domain, against) for against in ("parent", "tuned")]
    marked = [_interval(each) + ("" if each.value <= limit else " *") for each, limit in zip(ratios, most, strict=True)]
    general = _interval(text_ratio(cell, GENERAL, "parent")) if GENERAL in model.items.texts else "-"
    name = f"{domain}, {model.report.preset}, {model.report.method}, {size:.0%} ({len(cell)})"
    return "| " + " | ".join([name, widths, *marked, general, *_answers(cell)]) + " |"


def _answers(cell: Sequence[Healed]) -> list[str]:
    """The last four columns of a row."""
    if (task := cell[0].asked) is None:
        return ["-"] * 4
    (ours, parents), (_, tuned) = (right_answers(cell, task, against) for against in ("parent", "tuned"))
    share = share_of_parent(ours, parents, cell[0].parent.questions[task].chance)
    answered = f"{parents.mean():.3f}, {tuned.mean():.3f}, {ours.mean():.3f} (n {len(ours)})"
    differences = [_signed(difference([(ours, theirs)])) for theirs in (parents, tuned)]
    return [answered, *differences, "at chance" if share is None else _interval(share)]


def _interval(found: Interval) -> str:
    return f"{found.value:.4f} ({found.low:.3f}-{found.high:.3f})"


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


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
