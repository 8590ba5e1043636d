"""Terminal view of a comparison."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minigpt.report.compare import Cell, Comparison, Model, Row
from minigpt.report.figures import COMFORTABLE_ITEMS, FEW, SEEN, is_seen
from minigpt.report.table import STYLES
from minigpt.report.text import clean, interval, number, percent, size


def render_comparison(comparison: Comparison) -> RenderableType:
    """Draw sizes and metrics of several models, one column each; footnotes say what cannot be compared.

    Below a value stand its 95 % interval, its ratio (perplexities) or difference (scores) to the first model, and its
    ratio or difference to its own parent, colored by the verdict of the paired intervals.
    """
    reasons: dict[str, int] = {}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", overflow="fold", min_width=16)
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
        table.add_row(_name(row), *(_cell(row, cell, position, reasons) for position, cell in enumerate(row.cells)))
    notes = [f"{_mark(position)} not comparable with the first model: {reason}" for reason, position in reasons.items()]
    if len(comparison.models) > 1:
        notes.insert(
            0,
            f"vs 1st: compared with {clean(comparison.models[0].name)}; own parent: compared with the model's own "
            "parent; ≈: not distinguishable at 95 %",
        )
    if any(cell and cell.n < COMFORTABLE_ITEMS for row in comparison.rows for cell in row.cells):
        notes.append(FEW)
    return Group(table, Text(), *(Text(note, style="dim") for note in notes))


def _base(model: Model) -> str:
    """Shorten the base reference to its last part."""
    return model.base_model.rsplit("/", 1)[-1]


# Labels and contents of the rows above the metrics.
_MODEL_ROWS = (
    ("domain", lambda model: model.domain),
    ("base", _base),
    ("method, preset", lambda model: f"{model.method}, {model.preset}"),
    ("stage", lambda model: model.stage.replace("_", " ")),
    ("parameters", lambda model: f"{model.parameters:,}"),
    ("of parent", lambda model: percent(model.kept)),
    ("weights", lambda model: size(model.bytes)),
)


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
        text.append("\n" + _own_parent(row, cell), style=STYLES[cell.verdict] if cell.verdict else "")
    return text


def _change(row: Row, ratio: float | None, difference: float | None) -> str:
    """Write the difference of a score, or the ratio of a perplexity."""
    if row.higher_is_better:
        return "" if difference is None else f"{difference:+.3f}".replace("-", "−")
    return "" if ratio is None else f"{ratio:.3f}×"


def _own_parent(row: Row, cell: Cell) -> str:
    """Compare with the model's own parent, e.g. `0.921× better`; `≈` stands for not distinguishable."""
    if cell.verdict is None:
        return ""
    difference = cell.value - cell.value / cell.vs_parent if cell.vs_parent else None
    word = {"not distinguishable": "≈", "too few to tell": "too few"}.get(cell.verdict, cell.verdict)
    return f"{_change(row, cell.vs_parent, difference)} {word}"


def _mark(position: int) -> str:
    """Give the footnote mark of a position: †, ‡, §, ¶, then numbers."""
    return "†‡§¶"[position] if position < 4 else f"({position + 1})"
