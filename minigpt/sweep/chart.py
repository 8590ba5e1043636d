"""Terminal view of a sweep: a chart of quality against size, a table of cells, and the cells worth having."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minigpt.report.figures import HEADLINE
from minigpt.report.text import clean, count, interval, number, percent
from minigpt.sweep.plots import drawn_keys
from minigpt.sweep.records import Cell, DomainSweep, Matrix, Score, SweepReport

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STYLES = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")
WIDTH, HEIGHT = 56, 14
# Columns that are never broken.
DECIDING = ("/ parent", "95 % interval")


def render_sweep(report: SweepReport) -> RenderableType:
    """Draw chart, table and verdict of each domain."""
    return Group(
        *(part for domain_sweep in report.domains for part in _domain(domain_sweep)), *_pictures_note(report.files)
    )


def _domain(domain_sweep: DomainSweep) -> list[RenderableType]:
    """Draw chart, table and verdict of one domain, and list its skipped points."""
    parts: list[RenderableType] = [Text(f"\n{clean(domain_sweep.domain)}", style="bold")]
    last = _last_stage(domain_sweep.cells)
    shown = [cell for cell in domain_sweep.cells if cell.stage == last]
    if shown:
        parts += [_chart(shown), Text(), _table(domain_sweep, last), *(Text(line) for line in sentences(domain_sweep))]
    parts += [Text(clean(f"skipped {name}: {reason}"), style="dim") for name, reason in domain_sweep.skipped.items()]
    return parts


def _last_stage(cells: Sequence[Cell]) -> str:
    """Name the last stage of the sweep."""
    return "healed" if any(cell.stage == "healed" for cell in cells) else "pruned"


def _own_score(cell: Cell) -> Score:
    """Find the bits per byte of the cell on its own domain; they have a ratio to the parent."""
    score = cell.score(cell.domain, HEADLINE)
    assert score is not None and score.ratio is not None
    return score


def _chart(cells: Sequence[Cell]) -> Text:
    """Chart the ratio of bits per byte to the parent (logarithmic) against parameters kept, one letter a method."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    heights = [math.log2(_value(cell)) for cell in cells]
    low, high = min(0.0, *heights), max(0.0, *heights)
    high = high if high - low > 1e-6 else low + 0.1
    left, right = min(cell.kept for cell in cells), 1.0
    left = left if right - left > 1e-6 else 0.0
    grid: list[list[tuple[str, str]]] = [[(" ", "")] * WIDTH for _ in range(HEIGHT)]

    def line(height: float) -> int:
        return round((high - height) / (high - low) * (HEIGHT - 1))

    grid[line(0.0)] = [("·", "dim")] * WIDTH
    for cell, height in sorted(zip(cells, heights, strict=True), key=lambda pair: -pair[1]):
        place = methods.index(cell.method)
        column = round((cell.kept - left) / (right - left) * (WIDTH - 1))
        grid[line(height)][column] = (LETTERS[place % len(LETTERS)], STYLES[place % len(STYLES)])
    text = Text("  bits per byte / parent\n", style="dim")
    for row, marks in enumerate(grid):
        value = 2 ** (high - (high - low) * row / (HEIGHT - 1))
        label = f"{value:8.3f}" if row % 4 == 0 or row in (HEIGHT - 1, line(0.0)) else " " * 8
        text.append(f"{'1.000':>8}" if row == line(0.0) else label, style="dim")
        text.append(" │", style="dim")
        for mark, style in marks:
            text.append(mark, style=style)
        text.append("\n")
    text.append(f"{'':9}└{'─' * WIDTH}\n{'':10}", style="dim")
    text.append(f"{percent(left)} kept".ljust(WIDTH - 6) + "100 %\n", style="dim")
    for place, method in enumerate(methods):
        mark, style = LETTERS[place % len(LETTERS)], STYLES[place % len(STYLES)]
        text.append(f"{mark} ", style=style).append(f"{clean(method)}   ")
    return text


def _value(cell: Cell) -> float:
    """Return the ratio of the cell's bits per byte to the parent's."""
    ratio = _own_score(cell).ratio
    assert ratio is not None
    return ratio.value


def _table(domain_sweep: DomainSweep, stage: str) -> Table:
    """Draw one row for each cell, small sizes last; ★ marks the Pareto set."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    others = [key for key in drawn_keys(domain_sweep) if key != (domain_sweep.domain, HEADLINE)]
    table.add_column("")
    table.add_column("method", no_wrap=True)
    # The ratio and its interval decide: where the terminal is narrow, other columns are broken.
    for title in ("kept", "size", "bpb", "/ parent", "95 % interval"):
        table.add_column(title, justify="right", overflow="fold", no_wrap=title in DECIDING)
    for task, metric in others:
        name = Text(clean(f"{task} {'bpb' if metric == HEADLINE else ''}".rstrip()))
        table.add_column(name, justify="right", overflow="fold")
    for place, cell in enumerate(domain_sweep.cells):
        if cell.stage != stage:
            continue
        own_score = _own_score(cell)
        ratio = own_score.ratio
        assert ratio is not None
        scores = (cell.score(*key) for key in others)
        table.add_row(
            Text("★" if place in domain_sweep.pareto.front else "", style="yellow"),
            clean(cell.method),
            percent(cell.kept),
            count(cell.parameters),
            number(own_score.value.value),
            f"{ratio.value:.3f}×",
            interval(ratio.low, ratio.high),
            *(number(score.value.value) if score else "–" for score in scores),
        )
    table.caption = Text(
        "★ no point of equal or smaller size is significantly better (paired intervals over documents); "
        "size: parameters, bpb: bits per byte"
    )
    return table


def sentences(domain_sweep: DomainSweep) -> tuple[str, ...]:
    """Say in words which sizes are worth having."""
    names = {"parent": "the parent", "parent_tuned": "the tuned parent", "best": "the best of this sweep"}
    if not domain_sweep.pareto.smallest:
        return (
            f"Too few held-out documents of {domain_sweep.domain} to call any point worse. Give the domain more "
            "documents, or raise evaluation.heldout_bytes where it limits them.",
        )
    lines = []
    for name, place in domain_sweep.pareto.smallest.items():
        if place is None:
            lines.append(f"Every point is significantly worse than {names[name]} on {domain_sweep.domain} text.")
        else:
            cell = domain_sweep.cells[place]
            lines.append(
                f"Smallest not significantly worse than {names[name]}: {cell.name} ({percent(cell.kept)} kept, "
                f"{_value(cell):.3f}× the parent's bits per byte)."
            )
    return tuple(lines)


def _pictures_note(files: Sequence[str]) -> list[RenderableType]:
    """Say where the pictures are."""
    pages = [name for name in files if name.endswith(".html")]
    return [Text(f"\nPictures: {pages[0]} and plots/", style="dim")] if pages else []


def render_matrix(matrix: Matrix) -> RenderableType:
    """Draw ratios to the parent with intervals, one row a specialist and one column a domain; its own is bold."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("bits per byte / parent")
    for domain in matrix.domains:
        table.add_column(Text(clean(domain)), justify="right")
    for model in matrix.models:
        row = [Text(clean(model))]
        for domain in matrix.domains:
            cell = matrix.at(model, domain)
            style = "green" if cell.ratio.high < 1 else "red" if cell.ratio.low > 1 else ""
            text = Text(f"{cell.ratio.value:.3f}×", style=f"{style} bold" if cell.own else style)
            row.append(text.append(f"\n{interval(cell.ratio.low, cell.ratio.high)}", style="dim not bold"))
        table.add_row(*row)
    return table
