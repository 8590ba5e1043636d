"""Table and picture of the frontier at equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.frontier_entries import Entry
from minigpt.evaluation import ItemScores, summarize
from minigpt.results import MetricResult
from minigpt.sweep.plots import COLORS, MARKERS, need_matplotlib, save_figure

GROUPS = ("parent", "specialist", "sibling")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One entry with its file and the scores of its documents and questions.

    Attributes:
        entry: the entry.
        bytes: bytes of its file.
        scored: what the figures come from.
        scores: the scores.
    """

    entry: Entry
    bytes: int
    scored: str
    scores: ItemScores

    def metric(self, task: str, name: str = "bits_per_byte") -> MetricResult | None:
        """One metric with its interval; None where it was not measured."""
        return next((item for item in summarize(self.scores) if (item.task, item.metric) == (task, name)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The best files within a number of bytes.

    Attributes:
        bytes: the budget.
        specialist: the best specialist within it; None where there is none.
        parent: the best quantised parent within it; None where there is none.
        ratio: bits per byte of the specialist over the parent's.
        low: lower end of the paired 95 % interval of that ratio.
        high: its upper end.
    """

    bytes: int
    specialist: Measured | None
    parent: Measured | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


def budget_rows(measured: Sequence[Measured], domain: str, budgets: Iterable[int]) -> list[Budget]:
    """Compare the best specialist with the best quantised parent within each budget, on the same documents."""
    return [_budget(measured, domain, budget) for budget in budgets]


def _budget(measured: Sequence[Measured], domain: str, budget: int) -> Budget:
    """Compare within one budget."""
    best: dict[str, Measured | None] = {}
    for group in ("specialist", "parent"):
        within = [item for item in measured if item.entry.group == group and item.bytes <= budget]
        best[group] = min(within, key=lambda item: item.scores.texts[domain].bits_per_byte, default=None)
    ours, parent = best["specialist"], best["parent"]
    if ours is None or parent is None:
        return Budget(bytes=budget, specialist=ours, parent=parent)
    base = parent.scores.texts[domain].bits_per_byte
    results = summarize(ours.scores, parent=parent.scores)
    pair = next(item for item in results if (item.task, item.metric) == (domain, "bits_per_byte"))
    gap = pair.paired_difference_vs_parent
    assert gap is not None  # a parent was given
    return Budget(
        bytes=budget,
        specialist=ours,
        parent=parent,
        ratio=pair.value / base,
        low=1 + gap.low / base,
        high=1 + gap.high / base,
    )


def markdown(measured: Sequence[Measured], budgets: Sequence[Budget], domain: str) -> str:
    """Write both tables."""
    sets = sorted({task for item in measured for task in item.scores.questions})
    head = ["file", "MB", f"{domain}, bits per byte", "other sources", *sets, "scored"]
    rows = [_row(item, domain, sets) for item in sorted(measured, key=lambda item: item.bytes)]
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows), ""]
    head = ["budget", "best specialist", "best quantised parent", "ratio of bits per byte"]
    lines += [_line(head), _line(["---"] * len(head))]
    lines += [_line([f"{item.bytes / 1e6:g} MB", _name(item.specialist), _name(item.parent), _ratio(item)])
              for item in budgets]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(item: Measured, domain: str, sets: Sequence[str]) -> list[str]:
    """Write one entry."""
    values = [item.metric(domain), item.metric(f"{domain}/other"), *(item.metric(name, "accuracy") for name in sets)]
    return [item.entry.name, f"{item.bytes / 1e6:.1f}", *map(_value, values), item.scored]


def _value(result: MetricResult | None) -> str:
    """Write a figure with its interval."""
    return "–" if result is None else f"{result.value:.4f} ({result.low:.3f}-{result.high:.3f})"


def _name(item: Measured | None) -> str:
    """Write the name and size of an entry."""
    return "none" if item is None else f"{item.entry.name} ({item.bytes / 1e6:.1f} MB)"


def _ratio(item: Budget) -> str:
    """Write the ratio of a budget with its paired interval."""
    return "–" if item.ratio is None else f"{item.ratio:.3f} ({item.low:.3f}-{item.high:.3f})"


def _line(cells: Sequence[str]) -> str:
    """Write one line of a table."""
    return f"| {' | '.join(cells)} |"


def draw(measured: Sequence[Measured], domain: str, picture: Path) -> None:
    """Draw bits per byte against bytes, own source and other sources side by side, with intervals."""
    need_matplotlib()
    from matplotlib.figure import Figure

    titles = {domain: "own sources", f"{domain}/other": "other sources of the field"}
    tasks = [task for task in titles if any(item.metric(task) for item in measured)]
    figure = Figure(figsize=(4.8 * len(tasks), 3.4), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axis, task in zip(axes, tasks, strict=True):
        for place, group in enumerate(GROUPS):
            _points(axis, [item for item in measured if item.entry.group == group], task, group, place)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.set_xscale("log")
        axis.set_xticks([30, 40, 50, 60, 80, 100, 150, 270])
        axis.set_xticklabels(["30", "40", "50", "60", "80", "100", "150", "270"])
        axis.minorticks_off()
        axis.set_xlabel("file, MB")
        axis.set_title(titles[task], fontsize=10)
    axes[0].set_ylabel("bits per byte")
    axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, picture.parent, picture.stem)


def _points(axis: object, items: Sequence[Measured], task: str, group: str, place: int) -> None:
    """Draw one group; files that no runtime reads are hollow."""
    for hollow in (False, True):
        pairs = [
            (item, result)
            for item in items
            if item.scored.startswith("weights;") is hollow and (result := item.metric(task)) is not None
        ]
        if not pairs:
            continue
        results = [result for _, result in pairs]
        axis.errorbar(  # type: ignore[attr-defined]
            [item.bytes / 1e6 for item, _ in pairs],
            [result.value for result in results],
            yerr=[
                [result.value - result.low for result in results],
                [result.high - result.value for result in results],
            ],
            fmt=MARKERS[place],
            color=COLORS[place],
            markerfacecolor="none" if hollow else COLORS[place],
            elinewidth=0.8,
            label=f"{group}, no runtime reads it" if hollow else group,
        )
