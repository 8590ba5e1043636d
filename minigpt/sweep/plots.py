"""Pictures of sweeps with matplotlib, which is optional and imported only to draw. Figures touch no global state."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt.errors import ConfigError
from minigpt.files import atomic_path
from minigpt.report.figures import HEADLINE
from minigpt.sweep.records import Cell, Matrix, Swept

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000")
"""Okabe and Ito's palette, told apart by color-blind readers too; markers repeat the distinction."""
MARKERS = "osD^vPX*<>hp"
TITLES: Mapping[str, str] = {"pruned": "before healing", "healed": "after healing"}
DODGE = 1.6
"""How far points of one size are drawn apart at most, in percent of the parent's size."""
LOG_FROM = 2.5
"""Ratios above this are drawn on a logarithmic axis."""


def need_matplotlib() -> None:
    """Refuse to draw without matplotlib, before anything is computed.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "Pictures need matplotlib: install it with `pip install 'minigpt[plots]'`, or leave them out with "
            "--no-pictures."
        )


def save_figure(figure: Any, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `name.svg` and `name.png` into `folder`, atomically; the same figure always gives the same SVG."""
    import matplotlib

    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        with atomic_path(svg) as temporary:
            figure.savefig(temporary, format="svg", bbox_inches="tight", metadata={"Date": None})
        with atomic_path(png) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", dpi=150)
    return svg, png


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, list[list[Any]]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns + 1.6, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes.tolist()


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A color and a marker for each method, in order of first appearance."""
    return {
        name: {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)], "markersize": 5}
        for place, name in enumerate(dict.fromkeys(names))
    }


def quality(swept: Swept) -> Any:
    """Quality against size per method: bits per byte as a ratio to the parent, accuracy as it is, with intervals.

    A row for each task, a column for each stage (before and after healing).
    """
    stages = [name for name in ("pruned", "healed") if any(cell.stage == name for cell in swept.cells)]
    keys = drawn_keys(swept)
    styles = _styles(cell.method for cell in swept.cells)
    crowded = len(styles) > len(COLORS)
    figure, axes = _figure(len(keys), len(stages), 6.4 if crowded else 4.6, 3.6 if crowded else 2.9)
    for row, (task, metric) in enumerate(keys):
        for column, stage in enumerate(stages):
            axis = axes[row][column]
            _lines(axis, [cell for cell in swept.cells if cell.stage == stage], task, metric, styles)
            _controls(axis, swept, task, metric)
            if not row:
                axis.set_title(TITLES[stage], fontsize=10)
        axes[row][0].set_ylabel(f"{task}\n" + ("bits per byte / parent" if metric == HEADLINE else metric))
    smallest = min((cell.kept for cell in swept.cells), default=0.0)
    for axis in (axis for row in axes for axis in row):
        axis.set_xlim(100 * smallest - 3, 101)
    for axis in axes[-1]:
        axis.set_xlabel("parameters kept, %")
    _share_rows(axes)
    _legend(figure, axes[0][0])
    return figure


def drawn_keys(swept: Swept) -> list[tuple[str, str]]:
    """Bits per byte and accuracy of every task, the domain's own first."""
    keys = [(score.task, score.metric) for score in swept.controls if score.stage == "parent"]
    shown = [key for key in keys if key[1] in (HEADLINE, "accuracy")]
    return sorted(shown, key=lambda key: (key[0].partition("/")[0] != swept.domain, key))


def _lines(axis: Any, cells: Sequence[Cell], task: str, metric: str, styles: Mapping[str, Mapping[str, Any]]) -> None:
    """One line with error bars a method, dodged a little so that bars at one size do not cover each other."""
    for place, (method, style) in enumerate(styles.items()):
        mine = sorted((cell for cell in cells if cell.method == method), key=lambda cell: cell.kept)
        found = [(cell, score) for cell in mine if (score := cell.score(task, metric)) is not None]
        if not found:
            continue
        shift = (place - (len(styles) - 1) / 2) * min(0.25, DODGE / len(styles))
        values = [score.ratio if metric == HEADLINE and score.ratio else score.value for _, score in found]
        axis.errorbar(
            [100 * cell.kept + shift for cell, _ in found],
            [value.value for value in values],
            yerr=[[value.value - value.low for value in values], [value.high - value.value for value in values]],
            label=method,
            capsize=2,
            linewidth=1.2,
            elinewidth=0.7,
            linestyle="-" if place < len(COLORS) else "--",
            **style,
        )
        if metric == HEADLINE and max(value.value for value in values) > LOG_FROM:
            _logarithmic(axis)


def _logarithmic(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))


def _controls(axis: Any, swept: Swept, task: str, metric: str) -> None:
    """Horizontal lines: the parent, the tuned parent, guessing."""
    for score in swept.controls:
        if (score.task, score.metric) != (task, metric):
            continue
        shown = score.ratio if metric == HEADLINE and score.ratio else score.value
        height = 1.0 if metric == HEADLINE and score.stage == "parent" else shown.value
        tuned = score.stage == "parent_tuned"
        axis.axhline(height, color="black", linewidth=1, linestyle="--" if tuned else "-")
        axis.annotate(
            "tuned parent" if tuned else "parent", (0.995, height), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=7,
        )  # fmt: skip
        if score.chance is not None:
            _chance_line(axis, score.chance)


def _chance_line(axis: Any, height: float) -> None:
    """Where guessing stands, named on the left: the controls' names are on the right."""
    axis.axhline(height, color="#888888", linewidth=1, linestyle=":")
    axis.annotate("chance", (0.005, height), xycoords=("axes fraction", "data"), ha="left", va="bottom", fontsize=7)


def _share_rows(axes: Sequence[Sequence[Any]]) -> None:
    """The same vertical range across a row, so that before and after healing are compared by eye."""
    for row in axes:
        scale = "log" if any(axis.get_yscale() == "log" for axis in row) else "linear"
        low, high = min(axis.get_ylim()[0] for axis in row), max(axis.get_ylim()[1] for axis in row)
        for axis in row:
            if scale == "log":
                _logarithmic(axis)
                low = max(low, 0.5)
            axis.set_ylim(low, high)


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)


def collapse(swept: Swept) -> Any | None:
    """The collapse curve of "Deeper Layers": accuracy and loss against the fraction of layers removed.

    Solid after healing, dashed before. Only cells that lost whole layers and nothing else belong there; None where
    there are none.
    """
    cells = [cell for cell in swept.cells if cell.only_layers]
    if not any(cell.layers_removed for cell in cells):
        return None
    keys = [key for key in drawn_keys(swept) if key[0].partition("/")[0] == swept.domain]
    figure, axes = _figure(1, len(keys), 4.6, 3.4)
    styles = _styles(cell.method for cell in cells)
    for axis, (task, metric) in zip(axes[0], keys, strict=True):
        for method, style in styles.items():
            for stage in ("pruned", "healed"):
                mine = [cell for cell in cells if (cell.method, cell.stage) == (method, stage)]
                _curve(axis, swept, mine, task, metric, dict(style), healed=stage == "healed")
        _chance(axis, swept, task, metric)
        axis.set_xlabel("layers removed, %")
        axis.set_ylabel(f"{task}, {metric.replace('_', ' ')}")
    _legend(figure, axes[0][0])
    return figure


def _curve(
    axis: Any, swept: Swept, cells: Sequence[Cell], task: str, metric: str, style: dict[str, Any], *, healed: bool
) -> None:
    """One method at one stage, starting at the model that was pruned."""
    named = {score.stage: score for score in swept.controls if (score.task, score.metric) == (task, metric)}
    start = named.get("parent_tuned", named.get("parent"))
    found = [(100 * cell.layers_removed, score.value) for cell in cells if (score := cell.score(task, metric))]
    if not found or start is None:
        return
    points = sorted([*found, (0.0, start.value)], key=lambda pair: pair[0])
    places, values = [place for place, _ in points], [value for _, value in points]
    look = {"linestyle": "-", "label": cells[0].method} if healed else {"linestyle": "--", "alpha": 0.75}
    if not healed and all(cell.stage != "healed" for cell in swept.cells):
        look["label"] = cells[0].method
    axis.plot(places, [value.value for value in values], linewidth=1.2, **style, **look)
    axis.fill_between(
        places, [value.low for value in values], [value.high for value in values], color=style["color"], alpha=0.12
    )


def _chance(axis: Any, swept: Swept, task: str, metric: str) -> None:
    for score in swept.controls:
        if (score.task, score.metric, score.stage) == (task, metric, "parent") and score.chance is not None:
            _chance_line(axis, score.chance)


def influence(domains: Sequence[Swept]) -> Any | None:
    """Block Influence of every layer, a row a domain, on a logarithmic color scale."""
    shown = [swept for swept in domains if swept.block_influence]
    if not shown:
        return None
    from matplotlib.colors import LogNorm

    rows = [[max(value, 1e-6) for value in swept.block_influence] for swept in shown]
    flat = [value for row in rows for value in row]
    figure, axes = _figure(1, 1, max(5.0, 0.24 * len(rows[0])), 1.2 + 0.4 * len(rows))
    axis = axes[0][0]
    axis.grid(visible=False)
    low, high = min(flat), max(*flat, 1.01 * min(flat))
    image = axis.imshow(rows, aspect="auto", cmap="viridis", norm=LogNorm(low, high))
    axis.set_yticks(range(len(shown)), [swept.domain for swept in shown])
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("layer")
    bar = figure.colorbar(
        image, ax=axis, label="Block\nInfluence", format="%.2g", ticks=(low, math.sqrt(low * high), high)
    )
    bar.ax.minorticks_off()
    bar.ax.yaxis.label.set_fontsize(8)
    return figure


def angular(swept: Swept) -> Any | None:
    """Angular distance between the inputs of layers l and l + n, as in "Deeper Layers"; a dot marks each best l."""
    if not swept.angular:
        return None
    last = len(swept.angular) - 1
    grid = [[swept.angular[at][at + n] if at + n <= last else math.nan for at in range(last)] for n in range(1, last)]
    figure, axes = _figure(1, 1, max(4.6, 0.2 * last), max(2.6, 0.13 * last))
    axis = axes[0][0]
    axis.grid(visible=False)
    image = axis.imshow(grid, aspect="auto", origin="lower", cmap="viridis", extent=(-0.5, last - 0.5, 0.5, last - 0.5))
    best = [min(range(last + 1 - n), key=lambda at, row=row: row[at]) for n, row in enumerate(grid, 1)]  # type: ignore[misc]
    axis.plot(best, range(1, last), ".", color="white", markersize=4)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("first layer of the block, l")
    axis.set_ylabel("layers in the block, n")
    axis.set_title(swept.domain, fontsize=10)
    figure.colorbar(image, ax=axis, label="angular distance, units of pi")
    return figure


def matrix(found: Matrix) -> Any:
    """Specialists against domains: ratio of bits per byte to the parent, blue better, red worse, own domain framed."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.patches import Rectangle

    rows = [[math.log2(found.at(model, domain).ratio.value) for domain in found.domains] for model in found.models]
    reach = max(0.01, *(abs(value) for row in rows for value in row))
    figure, axes = _figure(1, 1, 1.5 * len(found.domains) + 1.0, 0.7 * len(found.models) + 1.2)
    axis = axes[0][0]
    axis.grid(visible=False)
    image = axis.imshow(rows, aspect="auto", cmap="RdBu_r", norm=TwoSlopeNorm(0, -reach, reach))
    for y, model in enumerate(found.models):
        for x, domain in enumerate(found.domains):
            cell = found.at(model, domain)
            shade = "white" if abs(rows[y][x]) > 0.7 * reach else "black"
            text = f"{cell.ratio.value:.3f}\n{cell.ratio.low:.3f}–{cell.ratio.high:.3f}"
            axis.text(x, y, text, ha="center", va="center", fontsize=8, color=shade)
            if cell.own:
                axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=2))
    axis.set_xticks(range(len(found.domains)), found.domains)
    axis.set_yticks(range(len(found.models)), found.models)
    axis.set_xlabel("held-out text of")
    axis.set_ylabel("specialist")
    figure.colorbar(image, ax=axis, label="bits per byte / parent", format=lambda value, _place: f"{2**value:.2f}")
    return figure


def pictures(domains: Sequence[Swept]) -> dict[str, Callable[[], Any | None]]:
    """Every picture of a sweep by file name; a function that gives None has nothing to show."""
    found: dict[str, Callable[[], Any | None]] = {"block-influence": lambda: influence(domains)}
    for swept in domains:
        if swept.cells:
            found[f"{swept.domain}-quality"] = lambda swept=swept: quality(swept)  # type: ignore[misc]
            found[f"{swept.domain}-collapse"] = lambda swept=swept: collapse(swept)  # type: ignore[misc]
        found[f"{swept.domain}-angular"] = lambda swept=swept: angular(swept)  # type: ignore[misc]
    return found
