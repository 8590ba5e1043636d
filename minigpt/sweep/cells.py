"""From finished points to cells: average over seeds, pair with the controls, find the Pareto set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from minigpt.evaluation import ItemScores
from minigpt.evaluation.bootstrap import Array
from minigpt.evaluation.items import QuestionItems
from minigpt.evaluation.paired import averaged, paired, value_of
from minigpt.evaluation.ratios import RATIOS
from minigpt.evaluation.summary import Items
from minigpt.report.figures import ENOUGH_ITEMS, HEADLINE
from minigpt.sweep.options import Point
from minigpt.sweep.records import Cell, Pareto, Row, Score
from minigpt.types import BuildReport, StageName

TEXT, QUESTIONS = (HEADLINE,), ("accuracy", "accuracy_norm")
SAME_SIZE = 0.01
"""Sizes this close count as equal: the planner meets a target to within 1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A finished point: its report and the items of each of its stages after pruning."""

    point: Point
    report: BuildReport
    items: Mapping[StageName, ItemScores]


def scores_of(stage: StageName, runs: Sequence[ItemScores], parent: ItemScores | None) -> tuple[Score, ...]:
    """Bits per byte and accuracies of every task, averaged over runs, with intervals, paired with the parent."""
    return tuple(
        _score(stage, task, metric, [_items(run, task) for run in runs], _items(parent, task) if parent else None)
        for task, metric in _keys(runs[0])
    )


def _keys(scores: ItemScores) -> Iterator[tuple[str, str]]:
    for task in scores.texts:
        yield from ((task, metric) for metric in TEXT)
    for task in scores.questions:
        yield from ((task, metric) for metric in QUESTIONS)


def _items(scores: ItemScores, task: str) -> Items:
    return scores.texts[task] if task in scores.texts else scores.questions[task]


def _score(stage: StageName, task: str, metric: str, runs: Sequence[Items], parent: Items | None) -> Score:
    ours = averaged(runs, metric)
    theirs = averaged([parent], metric) if parent is not None else None
    return Score(
        stage=stage,
        task=task,
        metric=metric,
        value=value_of(ours, metric),
        n=len(ours),
        chance=runs[0].chance if isinstance(runs[0], QuestionItems) else None,
        ratio=paired(ours, theirs, metric, how="ratio")
        if theirs is not None and not RATIOS[metric].higher_is_better
        else None,
        difference=paired(ours, theirs, metric) if theirs is not None else None,
    )


def row_of(built: Built, parent: ItemScores, *, key: str, path: str) -> Row:
    """The line of a finished point."""
    final, before = built.report.stages[-1], built.report.stages[0]
    return Row(
        id=built.point.id,
        key=key,
        domain=built.report.domain,
        method=built.point.method,
        size=built.point.size,
        seed=built.point.seed,
        healing=built.point.healing,
        parameters=final.parameters,
        kept=final.parameters / before.parameters,
        seconds=sum(stage.seconds for stage in built.report.stages if stage.stage in built.items),
        report=path,
        scores=tuple(score for stage, items in built.items.items() for score in scores_of(stage, [items], parent)),
    )


def cells_of(builds: Sequence[Built], parent: ItemScores) -> tuple[Cell, ...]:
    """One cell for each method, size and stage."""
    groups: dict[tuple[str, float, StageName], list[Built]] = {}
    for built in builds:
        for stage in built.items:
            groups.setdefault((built.point.method, built.point.size, stage), []).append(built)
    return tuple(_cell(stage, group, parent) for (_, _, stage), group in groups.items())


def _cell(stage: StageName, group: Sequence[Built], parent: ItemScores) -> Cell:
    first, count = group[0], len(group)
    runs = [built.items[stage] for built in group]
    report, before = first.report, first.report.stages[0]
    sizes = [found.parameters for built in group if (found := built.report.stage(stage)) is not None]
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
        points=tuple(built.point.id for built in group),
        spread=tuple(run.texts[report.domain].bits_per_byte for run in runs),
        scores=scores_of(stage, runs, parent),
    )


def pareto_of(
    cells: Sequence[Cell],
    builds: Sequence[Built],
    references: Mapping[StageName, ItemScores],
    *,
    stage: StageName,
) -> Pareto:
    """The front among the cells of the last `stage`, and the smallest cell as good as each reference.

    With too few documents for a verdict every cell is in the front, and no smallest is named.

    Args:
        cells: of one domain.
        builds: the points behind them.
        references: items of `parent` and, if it was tuned, `parent_tuned`.
        stage: the stage that counts: `healed`, or `pruned` in a sweep without healing.
    """
    if not cells:
        return Pareto(front=(), smallest={})
    runs = {built.point.id: built.items[stage] for built in builds if stage in built.items}
    places = [place for place, cell in enumerate(cells) if cell.stage == stage]
    columns = {
        place: averaged([runs[point].texts[cells[place].domain] for point in cells[place].points], HEADLINE)
        for place in places
    }

    def worse(place: int, theirs: Array) -> bool:
        """Whether the cell needs significantly more bits than `theirs`."""
        return paired(columns[place], theirs, HEADLINE).low > 0

    def dominated(place: int) -> bool:
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
            name: next((place for place in ranked if not worse(place, theirs)), None)
            for name, theirs in compared.items()
        },
    )


FinishedPoint = Built
