"""Picture of what pruning costs against the tuned parent: by what is kept, and by how much healing reads.

Nothing is measured here. Every figure is read from the pages and lines of results in one folder, so the picture cannot
say anything else than they do. It shows how steep the way to a limit is, in parameters and in tokens, beside the
controls (other rankings of neurons, fresh weights, fewer bits).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.tradeoff_points import HALF, OTHER, OWN, QUARTER_REMOVED, Limit, Point, read_all
from minigpt.files import write_text
from minigpt.sweep.plots import COLORS, need_matplotlib, save_figure

DOMAINS = ("medical", "law", "finance")
STYLES = {
    "medical": (COLORS[0], "o"),
    "law": (COLORS[1], "s"),
    "finance": (COLORS[2], "D"),
    "quick": (COLORS[0], "*"),
    "contextual": (COLORS[0], "^"),
    "random": (COLORS[4], "v"),
    "magnitude": (COLORS[3], "P"),
    "fresh weights": (COLORS[7], "X"),
    "fewer bits": (COLORS[6], "h"),
}
# Names of the series in the legend; the controls were measured on medical text alone.
NAMES = {
    **{domain: f"{domain}, presets" for domain in DOMAINS},
    "quick": "medical, quick (of its distilled twin)",
    "contextual": "medical, neurons by contextual",
    "random": "medical, neurons by random",
    "magnitude": "medical, neurons by magnitude",
    "fresh weights": "medical, fresh weights",
    "fewer bits": "medical, nothing removed, fewer bits",
}
# Ranges of the axes; what lies above them is written at the upper end.
BY_SIZE, BY_TOKENS = (0.98, 1.5), (0.98, 1.3)
TITLES = ("by size: preset thorough, and controls", "by training: a quarter removed")
CONTROLS_BY_NEURONS = ("contextual", "random", "magnitude")
# Tokens from which a run is long enough to stand beside `thorough`, or beside the half that fresh weights are.
LONG = 10**7
# Distance between the points of one size, in percent of the parameters.
ASIDE = 1.1


def main() -> None:
    """Read all points and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of pages and lines")
    parser.add_argument("--picture", type=Path, default=Path("docs/results/trade-off.svg"), help="SVG to write")
    options = parser.parse_args()
    need_matplotlib()
    figure = draw(*read_all(options.results))
    with tempfile.TemporaryDirectory() as folder:
        svg, _ = save_figure(figure, Path(folder), options.picture.stem)
        write_text(options.picture, svg.read_text(encoding="utf-8"))


def draw(points: Sequence[Point], limits: Sequence[Limit]) -> Any:
    """Draw ratios to the tuned parent, own sources above and other sources below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 7.2), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, text in zip(axes, (OWN, OTHER), strict=True):
        by_size(row[0], points, limits, text)
        by_tokens(row[1], points, limits, text)
        row[0].set_ylabel(f"{text}: bits per byte / tuned parent", fontsize=9)
        for axis in row:
            axis.tick_params(labelsize=8)
            axis.axhline(1, color="black", linewidth=1)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
    for axis, title, label in zip(axes.T, TITLES, ("parameters kept, %", "tokens of healing"), strict=True):
        axis[0].set_title(title, fontsize=10)
        axis[1].set_xlabel(label)
    parts = [axis.get_legend_handles_labels() for axis in axes.flat]
    handles = {label: handle for part in parts for handle, label in zip(*part, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def by_size(axis: Any, points: Sequence[Point], limits: Sequence[Limit], text: str) -> None:
    """Draw what is lost by what is kept: `thorough`, from the tuned parent down, and the controls."""
    for place, domain in enumerate(DOMAINS):
        builds = [point for point in points if point.series == domain and point.name.startswith("thorough")]
        line(axis, builds, text, [100 * point.kept + (place - 1) * ASIDE for point in builds], start=(100, 1))
    shifts = {"contextual": -2 * ASIDE, "random": 2 * ASIDE, "magnitude": 3 * ASIDE}
    shifts |= {"fresh weights": -2 * ASIDE, "fewer bits": 0.0}
    for point in points:
        if point.series not in shifts or (point.tokens and point.tokens < LONG):
            continue
        line(axis, [point], text, [100 * point.kept + shifts[point.series]])
        if point.series == "fewer bits":
            value = point.ratios[text].value
            beyond = value > BY_SIZE[1]
            shown = f"{point.name}: {value:.3f} (above)" if beyond else point.name
            place = (100, BY_SIZE[1] if beyond else value)
            axis.annotate(shown, place, (7, -9 if beyond else 5), textcoords="offset points", fontsize=8)
    for limit in limits:
        if limit.preset == "thorough":
            wanted(axis, 100 * limit.kept - 3, 100 * limit.kept + 5, limit.value)
    axis.set_xlim(104, 46)
    axis.set_ylim(*BY_SIZE)
    axis.set_xticks([100, 100 * QUARTER_REMOVED, 100 * HALF])


def by_tokens(axis: Any, points: Sequence[Point], limits: Sequence[Limit], text: str) -> None:
    """Draw what is lost by what healing reads, a quarter removed."""
    quarter = [point for point in points if point.kept == QUARTER_REMOVED]
    for place, domain in enumerate(DOMAINS):
        builds = sorted((point for point in quarter if point.series == domain), key=lambda point: point.tokens)
        line(axis, builds, text, [point.tokens * (1 + 0.07 * (place - 1)) for point in builds])
    ticks = {}
    for series in ("quick", "contextual", "random", "magnitude"):
        runs = [point for point in quarter if point.series == series]
        line(axis, runs, text, [point.tokens for point in runs])
        ticks |= {runs[0].tokens: runs[0].name.partition(",")[0]} if series in {"quick", "contextual"} else {}
    for limit in limits:
        if limit.kept == QUARTER_REMOVED:
            wanted(axis, limit.tokens / 1.2, limit.tokens * 1.2, limit.value)
            ticks[limit.tokens] = limit.preset
    axis.set_xscale("log")
    axis.set_ylim(*BY_TOKENS)
    axis.set_xticks(list(ticks), [f"{tokens / 1e6:.2g} M\n{name}" for tokens, name in ticks.items()])
    axis.minorticks_off()


def line(
    axis: Any, points: Sequence[Point], text: str, places: Sequence[float], *, start: tuple[float, float] | None = None
) -> None:
    """Draw the points of one series with their intervals, joined, from a starting point if there is one."""
    series = points[0].series
    color, marker = STYLES[series]
    style = "--" if series in CONTROLS_BY_NEURONS else "-"
    ratios = [point.ratios[text] for point in points]
    if start is not None:
        axis.plot([start[0], places[0]], [start[1], ratios[0].value], color=color, linewidth=1.0)
    axis.errorbar(
        places,
        [ratio.value for ratio in ratios],
        yerr=[
            [ratio.value - (ratio.value if ratio.low is None else ratio.low) for ratio in ratios],
            [(ratio.value if ratio.high is None else ratio.high) - ratio.value for ratio in ratios],
        ],
        color=color,
        marker=marker,
        markersize=9 if marker == "*" else 5,
        markerfacecolor="white" if series == "contextual" else color,
        linewidth=1.0,
        elinewidth=0.8,
        capsize=2,
        linestyle=style,
        label=NAMES[series],
    )


def wanted(axis: Any, left: float, right: float, value: float) -> None:
    """Draw a limit that was wanted as a short thick line."""
    axis.plot([left, right], [value, value], color="black", linewidth=2.2, label="wanted, at most", zorder=4)


if __name__ == "__main__":
    main()
