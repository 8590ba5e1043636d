"""Pictures of the page as inline SVG: intervals of ratios, units that were kept, and curves of dev losses.

Colors are the page's CSS classes, so that a picture follows the dark and the light theme. Every picture has a title for
screen readers, and all text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

# Width and height of the picture of an interval, in units of its own coordinates.
SPAN_WIDTH, SPAN_HEIGHT = 260, 26
# Width and height of a picture of curves, and the margin that holds the numbers of its axes.
CURVE_WIDTH, CURVE_HEIGHT, CURVE_MARGIN = 420, 150, 44
# Width of one layer's column, and the height of a column of which nothing was removed.
COLUMN_WIDTH, COLUMN_HEIGHT = 14, 54
# Most that columns are enlarged, so that those of a few layers do not fill the page, and the most pixels of all.
COLUMN_ENLARGED, COLUMNS_WIDEST = 4 / 3, 560


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A ratio and its 95 % interval.

    Attributes:
        value: The ratio.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def scale_of(ratios: Sequence[Ratio]) -> tuple[float, float]:
    """Choose one range for all pictures of ratios, which holds every interval and the 1 of the model compared with."""
    low = min([0.95, *(ratio.low for ratio in ratios)])
    high = max([1.05, *(ratio.high for ratio in ratios)])
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def span(ratio: Ratio, scale: tuple[float, float], title: str) -> Markup:
    """Draw an interval as a bar with a dot at the value, and a line where both models are equal.

    Args:
        ratio: The ratio and its interval.
        scale: Ends of the range, of :func:`scale_of`.
        title: Text for screen readers.
    """
    left, right = scale

    def place(value: float) -> float:
        return round((value - left) / (right - left) * SPAN_WIDTH, 1)

    middle = SPAN_HEIGHT / 2
    kind = "good" if ratio.high < 1 else "bad" if ratio.low > 1 else "even"
    low, high, value, one = (place(number) for number in (ratio.low, ratio.high, ratio.value, 1.0))
    parts = (
        f'<line class="one" x1="{one}" x2="{one}" y1="1" y2="{SPAN_HEIGHT - 1}"/>',
        f'<line class="{kind}" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" stroke-width="5"/>',
        f'<circle class="{kind}" cx="{value}" cy="{middle}" r="5"/>',
    )
    return _svg(SPAN_WIDTH, SPAN_HEIGHT, title, parts, "span")


def kept_columns(kept: Sequence[int], full: int, title: str) -> Markup:
    """Draw one column for each layer of the parent: its filled part was kept, and a cross marks a removed layer.

    Args:
        kept: Units that each layer keeps; 0 for a removed layer.
        full: Units of a layer of the parent.
        title: Text for screen readers.
    """
    parts = []
    for layer, units in enumerate(kept):
        x, width = layer * COLUMN_WIDTH + 1, COLUMN_WIDTH - 3
        height = round(COLUMN_HEIGHT * min(1.0, units / full if full else 0.0), 1)
        name = f"<title>layer {layer}: {units:,} of {full:,}</title>"
        parts.append(f'<rect class="removed" x="{x}" y="0" width="{width}" height="{COLUMN_HEIGHT}">{name}</rect>')
        parts.append(
            f'<rect class="kept" x="{x}" y="{COLUMN_HEIGHT - height}" width="{width}" height="{height}">{name}</rect>'
        )
        if not units:
            ends = f'x1="{x}" x2="{x + width}"'
            parts.append(f'<line class="bad" {ends} y1="4" y2="{COLUMN_HEIGHT - 4}" stroke-width="2"/>')
        if layer % 5 == 0:
            parts.append(f'<text class="tick" x="{x}" y="{COLUMN_HEIGHT + 14}">{layer}</text>')
    width = len(kept) * COLUMN_WIDTH
    widest = min(COLUMNS_WIDEST, round(width * COLUMN_ENLARGED))
    return _svg(width, COLUMN_HEIGHT + 18, title, parts, "columns", style=f"max-width:{widest}px")


def curve(points: Sequence[tuple[int, float]], title: str) -> Markup:
    """Draw the dev loss over the steps of a run, with the lowest loss marked; fewer than two points draw nothing.

    Args:
        points: Steps and losses in bits per byte.
        title: Text for screen readers.
    """
    if len(points) < 2:
        return Markup("")
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    low, high = min(losses), max(losses)
    width, height = CURVE_WIDTH - CURVE_MARGIN - 8, CURVE_HEIGHT - 34

    def place(step: int, loss: float) -> tuple[float, float]:
        x = CURVE_MARGIN + width * (step - steps[0]) / max(1, steps[-1] - steps[0])
        return round(x, 1), round(8 + height * (high - loss) / ((high - low) or 1), 1)

    path = " ".join(f"{x},{y}" for x, y in (place(step, loss) for step, loss in points))
    best_x, best_y = place(*min(points, key=lambda point: point[1]))
    parts = (
        f'<polyline class="curve" points="{path}"/>',
        f'<circle class="good" cx="{best_x}" cy="{best_y}" r="4"/>',
        f'<text class="tick" x="0" y="14">{high:.3f}</text>',
        f'<text class="tick" x="0" y="{height + 10}">{low:.3f}</text>',
        f'<text class="tick" x="{CURVE_MARGIN}" y="{CURVE_HEIGHT - 6}">step {steps[0]:,}</text>',
        f'<text class="tick end" x="{CURVE_WIDTH - 8}" y="{CURVE_HEIGHT - 6}">{steps[-1]:,}</text>',
    )
    return _svg(CURVE_WIDTH, CURVE_HEIGHT, title, parts, "curves")


def _svg(width: float, height: float, title: str, parts: Sequence[str], kind: str, *, style: str = "") -> Markup:
    """Put the parts of a picture, whose text holds numbers only, into an SVG element with an escaped title."""
    own = f' style="{style}"' if style else ""
    head = f'<svg class="{kind}"{own} viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")
