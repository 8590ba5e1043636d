"""Cells of a sweep: finished points averaged over seeds and paired with the parent, and the Pareto set among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from minigpt.evaluation import ItemScores
from minigpt.evaluation.items import Items, QuestionItems
from minigpt.evaluation.paired import averaged, metric_interval, paired
from minigpt.evaluation.ratios import RATIOS, Array
from minigpt.report.figures import ENOUGH_ITEMS, HEADLINE
from minigpt.results import BuildReport, StageName
from minigpt.sweep.options import Point
from minigpt.sweep.records import Cell, Pareto, Row, Score

# Metrics of texts and of question sets.
TEXT = (HEADLINE,)
QUESTIONS = ("accuracy", "accuracy_norm")
# Relative difference up to which two sizes count as equal: the planner meets a target to within 1 %.
SAME_SIZE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPoint:
    """A finished point, with its report and the item scores of each stage after pruning."""

    point: Point
    report: BuildReport
    items: Mapping[StageName, ItemScores]


def scores_of(stage: StageName, runs: Sequence[ItemScores], parent: ItemScores | None) -> tuple[Score, ...]:
    """Score every task by bits per byte or accuracy, with intervals.

    Args:
        stage: Stage of the models.
        runs: Item scores to average, one for each seed.
        parent: Item scores of the parent, with which the runs are paired; None for the parent itself.
    """
    return tuple(
        _score(stage, task, metric, [_items(run, task) for run in runs], _items(parent, task) if parent else None)
        for task, metric in _keys(runs[0])
    )


def _keys(scores: ItemScores) -> Iterator[tuple[str, str]]:
    """Yield every task with its metrics."""
    for task in scores.texts:
        yield from ((task, metric) for metric in TEXT)
    for task in scores.questions:
        yield from ((task, metric) for metric in QUESTIONS)


def _items(scores: ItemScores, task: str) -> Items:
    """Find the items of a task, which is a text or a question set."""
    return scores.texts[task] if task in scores.texts else scores.questions[task]


def _score(stage: StageName, task: str, metric: str, runs: Sequence[Items], parent: Items | None) -> Score:
    """Score one metric of one task."""
    ours = averaged(runs, metric)
    baseline = averaged([parent], metric) if parent is not None else None
    return Score(
        stage=stage,
        task=task,
        metric=metric,
        value=metric_interval(ours, metric),
        n=len(ours),
        chance=runs[0].chance if isinstance(runs[0], QuestionItems) else None,
        ratio=paired(ours, baseline, metric, how="ratio")
        if baseline is not None and not RATIOS[metric].higher_is_better
        else None,
        difference=paired(ours, baseline, metric) if baseline is not None else None,
    )


def row_of(finished: FinishedPoint, parent: ItemScores, *, key: str, path: str) -> Row:
    """Write a finished point as a line of points.jsonl.

    Args:
        finished: The point.
        parent: Item scores of the parent.
        key: Fingerprint of the inputs that all points of the domain share.
        path: Path of the report from the sweep's folder.
    """
    point, report = finished.point, finished.report
    final, before = report.stages[-1], report.stages[0]
    return Row(
        id=point.id,
        key=key,
        domain=report.domain,
        method=point.method,
        size=point.size,
        seed=point.seed,
        healing=point.healing,
        parameters=final.parameters,
        kept=final.parameters / before.parameters,
        seconds=sum(stage.seconds for stage in report.stages if stage.stage in finished.items),
        report=path,
        scores=tuple(score for stage, items in finished.items.items() for score in scores_of(stage, [items], parent)),
    )


def cells_of(points: Sequence[FinishedPoint], parent: ItemScores) -> tuple[Cell, ...]:
    """Average the points over seeds: one cell for each method, size and stage.

    Args:
        points: Finished points of one domain.
        parent: Item scores of the parent.
    """
    groups: dict[tuple[str, float, StageName], list[FinishedPoint]] = {}
    for finished in points:
        for stage in finished.items:
            groups.setdefault((finished.point.method, finished.point.size, stage), []).append(finished)
    return tuple(_cell(stage, group, parent) for (_, _, stage), group in groups.items())


def _cell(stage: StageName, group: Sequence[FinishedPoint], parent: ItemScores) -> Cell:
    """Average points that differ in their seed only."""
    first, count = group[0], len(group)
    runs = [finished.items[stage] for finished in group]
    report, before = first.report, first.report.stages[0]
    sizes = [
        stage_report.parameters for finished in group if (stage_report := finished.report.stage(stage)) is not None
    ]
    removed = {kind for kind, parameters in report.removed_parameters.items() if parameters}
    return Cell(
        domain=report.domain,
        method=first.point.method,
        size=first.point.size,
        stage=stage,
        parameters=round(sum(sizes) / count),
        kept=sum(sizes) / count / before.parameters,
        layers_removed=1 - report.shape_after.layers / report.shape_before.layers,
        only_layers=removed == {"layers"},
        points=tuple(finished.point.id for finished in group),
        spread=tuple(run.texts[report.domain].bits_per_byte for run in runs),
        scores=scores_of(stage, runs, parent),
    )


def pareto_of(
    cells: Sequence[Cell],
    points: Sequence[FinishedPoint],
    references: Mapping[StageName, ItemScores],
    *,
    stage: StageName,
) -> Pareto:
    """Find the Pareto set among the cells of `stage`, and the smallest cell as good as each reference.

    With too few documents for a verdict every cell is in the Pareto set, and no smallest cell is named.

    Args:
        cells: Cells of one domain.
        points: The points that were averaged into the cells.
        references: Item scores of `parent` and, if there is one, of `parent_tuned`.
        stage: Stage that counts: `healed`, or `pruned` in a sweep without healing.
    """
    if not cells:
        return Pareto(front=(), smallest={})
    runs = {finished.point.id: finished.items[stage] for finished in points if stage in finished.items}
    places = [place for place, cell in enumerate(cells) if cell.stage == stage]
    columns = {
        place: averaged([runs[point_id].texts[cells[place].domain] for point_id in cells[place].points], HEADLINE)
        for place in places
    }

    def worse(place: int, baseline: Array) -> bool:
        """Check whether the cell needs significantly more bits than `baseline`."""
        return paired(columns[place], baseline, HEADLINE).low > 0

    def dominated(place: int) -> bool:
        """Check whether another cell of at most about the same size is significantly better."""
        limit = cells[place].parameters * (1 + SAME_SIZE)
        rivals = (other for other in places if other != place and cells[other].parameters <= limit)
        return any(worse(place, columns[rival]) for rival in rivals)

    ranked = sorted(places, key=lambda place: (cells[place].parameters, columns[place][:, 0].sum()))
    compared: dict[str, Array] = {
        name: averaged([items.texts[cells[0].domain]], HEADLINE) for name, items in references.items()
    }
    if any(len(items) < ENOUGH_ITEMS for items in columns.values()):
        return Pareto(front=tuple(places), smallest={})
    compared["best"] = columns[min(places, key=lambda place: columns[place][:, 0].sum())]
    return Pareto(
        front=tuple(place for place in places if not dominated(place)),
        smallest={
            name: next((place for place in ranked if not worse(place, baseline)), None)
            for name, baseline in compared.items()
        },
    )
