"""Terminal view of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minigpt.report.compare import Cell, Comparison, Model, Row
from minigpt.report.figures import COMFORTABLE_ITEMS, FEW, RECITATION, SEEN, Verdict
from minigpt.report.table import STYLES
from minigpt.report.tasks import is_seen
from minigpt.report.text import clean, interval, number, percent, short_reference, size, stage_title

# Width of the labels: "  format compliance" is the longest.
LABEL_WIDTH = 19
# Verdicts that are too long for a cell.
MARKS: dict[Verdict, str] = {"not distinguishable": "≈", "too few to tell": "too few", "repeated wording": "repeated"}


def render_comparison(comparison: Comparison) -> RenderableType:
    """Draw sizes and metrics of several models, one column each; footnotes say what cannot be compared.

    Below a value stand its 95 % interval, its ratio (perplexities) or difference (scores) to the first model, and its
    ratio or difference to its own parent and its own tuned parent, colored by the verdicts of the paired intervals.
    """
    reasons: dict[str, int] = {}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", overflow="fold", width=LABEL_WIDTH)
    for model in comparison.models:
        table.add_column(Text(clean(model.name)), justify="right", overflow="fold")
    for label, show in _MODEL_ROWS:
        table.add_row(Text(label, style="dim"), *(Text(clean(show(model))) for model in comparison.models))
    task = None
    for row in comparison.rows:
        if row.task != task:
            task = row.task
            table.add_row()
            table.add_row(_heading(row))
        cells = [_cell(row, cell, position, reasons) for position, cell in enumerate(row.cells)]
        for line in _lines(_name(row), *cells):
            table.add_row(*line)
    notes = [f"{_mark(position)} not comparable with the first model: {reason}" for reason, position in reasons.items()]
    if len(comparison.models) > 1:
        notes.insert(
            0,
            f"vs 1st: compared with {clean(comparison.models[0].name)}; own parent, own tuned: compared with the "
            "model's own parent and own tuned parent; ≈: not distinguishable at 95 %",
        )
    if any(cell and cell.n < COMFORTABLE_ITEMS for row in comparison.rows for cell in row.cells):
        notes.append(FEW)
    return Group(table, Text(), *map(Text, conclusions(comparison)), *(Text(note, style="dim") for note in notes))


def conclusions(comparison: Comparison) -> list[str]:
    """Sum up each model beside the first in a sentence: bits per byte of all texts that both read, and weights."""
    first, sentences = comparison.models[0], []
    texts = [row for row in comparison.rows if row.metric == "bits_per_byte"]
    for position, model in enumerate(comparison.models[1:], start=1):
        cells = [(row.task, row.cells[position]) for row in texts]
        ratios = [f"{cell.ratio:.3f}× on {task}" for task, cell in cells if cell and cell.ratio is not None]
        if ratios:
            sentences.append(
                f"{clean(model.name)} needs these bits per byte of {clean(first.name)}'s: {', '.join(ratios)}; its "
                f"weights are {model.bytes / first.bytes:.3f}×. Below 1 is better or smaller. Without pairs of these "
                "two models, no interval says how sure that is."
            )
    return sentences


def _base(model: Model) -> str:
    """Shorten the reference of the parent to its last part."""
    return short_reference(model.base_model).rsplit("/", 1)[-1]


# Labels and contents of the rows above the metrics.
_MODEL_ROWS = (
    ("domain", lambda model: model.domain),
    ("parent", _base),
    ("method, preset", lambda model: f"{model.method}, {model.preset}"),
    ("stage", lambda model: stage_title(model.stage)),
    ("parameters", lambda model: f"{model.parameters:,}"),
    ("of parent", lambda model: percent(model.kept)),
    ("weights", lambda model: size(model.bytes)),
)


def _lines(*cells: Text) -> Iterator[tuple[Text, ...]]:
    """Yield the lines of a row's cells, so that a line that is broken in one column stays beside its label."""
    yield from zip_longest(*(cell.split("\n", allow_blank=True) for cell in cells), fillvalue=Text())


def _heading(row: Row) -> Text:
    """Write the task, a warning if its questions were trained on, and the score of guessing."""
    text = Text(clean(row.task), style="cyan")
    if is_seen(row.task):
        text.append(f"\nseen: {SEEN}", style="yellow")
    if row.chance is not None:
        text.append(f"\nchance {row.chance:.3f}", style="dim")
    return text


def _name(row: Row) -> Text:
    """Write the metric and the names of the lines below each value."""
    text = Text(f"  {row.metric.replace('_', ' ')}\n")
    text.append("  95 % interval", style="dim")
    if any(cell and position and cell.why_not is None for position, cell in enumerate(row.cells)):
        text.append("\n  vs 1st", style="dim")
    if any(cell and cell.verdict for cell in row.cells):
        text.append("\n  own parent", style="dim")
    if any(cell and cell.vs_tuned for cell in row.cells):
        text.append("\n  own tuned", style="dim")
    return text


def _cell(row: Row, cell: Cell | None, position: int, reasons: dict[str, int]) -> Text:
    """Write value, interval, and the lines that :func:`_name` announces; a line that this cell lacks is blank."""
    if cell is None:
        return Text("–", style="dim")
    mark = _mark(reasons.setdefault(cell.why_not, len(reasons))) if position and cell.why_not else ""
    text = Text.assemble((number(cell.value) + mark, "bold"), (f"\n{interval(cell.low, cell.high)}", "dim"))
    if any(other and index and other.why_not is None for index, other in enumerate(row.cells)):
        text.append("\n" + (_change(row, cell.ratio, cell.difference) if position else ""))
    if any(other and other.verdict for other in row.cells):
        text.append("\n" + _own(row, cell, cell.vs_parent, cell.verdict), style=_style(cell.verdict))
    if any(other and other.vs_tuned for other in row.cells):
        text.append("\n" + _own(row, cell, cell.vs_tuned, cell.verdict_vs_tuned), style=_style(cell.verdict_vs_tuned))
    return text


def _change(row: Row, ratio: float | None, difference: float | None) -> str:
    """Write the difference of a score, or the ratio of a perplexity."""
    if row.higher_is_better or row.metric == RECITATION:
        return "" if difference is None else f"{difference:+.3f}".replace("-", "−")
    return "" if ratio is None else f"{ratio:.3f}×"


def _style(verdict: Verdict | None) -> str:
    """Choose the color of a verdict."""
    return STYLES[verdict] if verdict else ""


def _own(row: Row, cell: Cell, ratio: float | None, verdict: Verdict | None) -> str:
    """Compare with the model's own parent or tuned parent, e.g. `0.921× better`; `≈`: not distinguishable."""
    if ratio is None and verdict is None:
        return ""
    difference = cell.value - cell.value / ratio if ratio else None
    return f"{_change(row, ratio, difference)} {MARKS.get(verdict, verdict) if verdict else ''}".rstrip()


def _mark(position: int) -> str:
    """Give the footnote mark of a position: †, ‡, §, ¶, then numbers."""
    return "†‡§¶"[position] if position < 4 else f"({position + 1})"
