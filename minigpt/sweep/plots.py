"""Pictures of sweeps; matplotlib is optional and imported only to draw, and figures do not touch its global state."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt.errors import ConfigError
from minigpt.files import atomic_path
from minigpt.report.figures import HEADLINE
from minigpt.sweep.records import Cell, DomainSweep, Matrix

# Palette of Okabe and Ito, which color-blind readers can tell apart; the markers repeat the distinction.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000")
MARKERS = "osD^vPX*<>hp"
TITLES: Mapping[str, str] = {"pruned": "before healing", "healed": "after healing"}
# Largest distance between points of one size, which are drawn side by side, in percent of the parent's size.
DODGE = 1.6
# Smallest ratio that needs a logarithmic axis.
LOG_FROM = 2.5


def need_matplotlib() -> None:
    """Refuse to draw without matplotlib, before anything is computed.

    Raises:
        ConfigError: Matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "Pictures need matplotlib. Install it with `pip install 'minigpt[plots]'`, or leave the pictures out with "
            "--no-pictures."
        )


def save_figure(figure: Any, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `name.svg` and `name.png` into `folder`, atomically; equal figures give equal SVG files."""
    import matplotlib

    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        with atomic_path(svg) as temporary:
            figure.savefig(temporary, format="svg", bbox_inches="tight", metadata={"Date": None})
        with atomic_path(png) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", dpi=150)
    return svg, png


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, list[list[Any]]]:
    """Make a figure with a grid of axes, each of `width` x `height` inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns + 1.6, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes.tolist()


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Give each method a color and a marker, in order of first appearance."""
    return {
        name: {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)], "markersize": 5}
        for place, name in enumerate(dict.fromkeys(names))
    }


def quality(domain_sweep: DomainSweep) -> Any:
    """Plot quality against size for each method: bits per byte as a ratio to the parent, and accuracy, with intervals.

    There is a row for each task and a column for each stage (before and after healing).
    """
    stages = [name for name in ("pruned", "healed") if any(cell.stage == name for cell in domain_sweep.cells)]
    keys = drawn_keys(domain_sweep)
    styles = _styles(cell.method for cell in domain_sweep.cells)
    crowded = len(styles) > len(COLORS)
    figure, axes = _figure(len(keys), len(stages), 6.4 if crowded else 4.6, 3.6 if crowded else 2.9)
    for row, (task, metric) in enumerate(keys):
        for column, stage in enumerate(stages):
            axis = axes[row][column]
            _lines(axis, [cell for cell in domain_sweep.cells if cell.stage == stage], task, metric, styles)
            _reference_lines(axis, domain_sweep, task, metric)
            if not row:
                axis.set_title(TITLES[stage], fontsize=10)
        axes[row][0].set_ylabel(f"{task}\n" + ("bits per byte / parent" if metric == HEADLINE else metric))
    smallest = min((cell.kept for cell in domain_sweep.cells), default=0.0)
    for axis in (axis for row in axes for axis in row):
        axis.set_xlim(100 * smallest - 3, 101)
    for axis in axes[-1]:
        axis.set_xlabel("parameters kept, %")
    _share_rows(axes)
    _legend(figure, axes[0][0])
    return figure


def drawn_keys(domain_sweep: DomainSweep) -> list[tuple[str, str]]:
    """List bits per byte or accuracy of every task, the domain's own tasks first."""
    keys = [(score.task, score.metric) for score in domain_sweep.controls if score.stage == "parent"]
    shown = [key for key in keys if key[1] in (HEADLINE, "accuracy")]
    return sorted(shown, key=lambda key: (key[0].partition("/")[0] != domain_sweep.domain, key))


def _lines(axis: Any, cells: Sequence[Cell], task: str, metric: str, styles: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw one line with error bars for each method, moved aside a little so that bars do not cover each other."""
    for place, (method, style) in enumerate(styles.items()):
        by_size = sorted((cell for cell in cells if cell.method == method), key=lambda cell: cell.kept)
        measured = [(cell, score) for cell in by_size if (score := cell.score(task, metric)) is not None]
        if not measured:
            continue
        shift = (place - (len(styles) - 1) / 2) * min(0.25, DODGE / len(styles))
        values = [score.ratio if metric == HEADLINE and score.ratio else score.value for _, score in measured]
        axis.errorbar(
            [100 * cell.kept + shift for cell, _ in measured],
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
    """Make the vertical axis logarithmic, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))


def _reference_lines(axis: Any, domain_sweep: DomainSweep, task: str, metric: str) -> None:
    """Draw horizontal lines at the parent, the tuned parent and the score of guessing."""
    for score in domain_sweep.controls:
        if (score.task, score.metric) != (task, metric):
            continue
        interval = score.ratio if metric == HEADLINE and score.ratio else score.value
        height = 1.0 if metric == HEADLINE and score.stage == "parent" else interval.value
        tuned = score.stage == "parent_tuned"
        axis.axhline(height, color="black", linewidth=1, linestyle="--" if tuned else "-")
        axis.annotate(
            "tuned parent" if tuned else "parent", (0.995, height), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=7,
        )  # fmt: skip
        if score.chance is not None:
            _chance_line(axis, score.chance)


def _chance_line(axis: Any, height: float) -> None:
    """Draw the score of guessing, named on the left, because the names of the parents stand on the right."""
    axis.axhline(height, color="#888888", linewidth=1, linestyle=":")
    axis.annotate("chance", (0.005, height), xycoords=("axes fraction", "data"), ha="left", va="bottom", fontsize=7)


def _share_rows(axes: Sequence[Sequence[Any]]) -> None:
    """Give all axes of a row one vertical range, so that before and after healing can be compared by eye."""
    for row in axes:
        scale = "log" if any(axis.get_yscale() == "log" for axis in row) else "linear"
        low, high = min(axis.get_ylim()[0] for axis in row), max(axis.get_ylim()[1] for axis in row)
        for axis in row:
            if scale == "log":
                _logarithmic(axis)
                low = max(low, 0.5)
            axis.set_ylim(low, high)


def _legend(figure: Any, axis: Any) -> None:
    """Draw the legend beside the figure."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)


def collapse(domain_sweep: DomainSweep) -> Any | None:
    """Plot the collapse curve of "Deeper Layers": accuracy and loss against the fraction of layers removed.

    Lines are solid after healing and dashed before. Only cells that lost whole layers and nothing else are drawn; None
    where there are none.
    """
    cells = [cell for cell in domain_sweep.cells if cell.only_layers]
    if not any(cell.layers_removed for cell in cells):
        return None
    keys = [key for key in drawn_keys(domain_sweep) if key[0].partition("/")[0] == domain_sweep.domain]
    figure, axes = _figure(1, len(keys), 4.6, 3.4)
    styles = _styles(cell.method for cell in cells)
    for axis, (task, metric) in zip(axes[0], keys, strict=True):
        for method, style in styles.items():
            for stage in ("pruned", "healed"):
                of_method = [cell for cell in cells if (cell.method, cell.stage) == (method, stage)]
                _curve(axis, domain_sweep, of_method, task, metric, dict(style), healed=stage == "healed")
        _chance(axis, domain_sweep, task, metric)
        axis.set_xlabel("layers removed, %")
        axis.set_ylabel(f"{task}, {metric.replace('_', ' ')}")
    _legend(figure, axes[0][0])
    return figure


def _curve(
    axis: Any,
    domain_sweep: DomainSweep,
    cells: Sequence[Cell],
    task: str,
    metric: str,
    style: dict[str, Any],
    *,
    healed: bool,
) -> None:
    """Draw one method at one stage, starting at the model that was pruned."""
    by_stage = {score.stage: score for score in domain_sweep.controls if (score.task, score.metric) == (task, metric)}
    start = by_stage.get("parent_tuned", by_stage.get("parent"))
    measured = [(100 * cell.layers_removed, score.value) for cell in cells if (score := cell.score(task, metric))]
    if not measured or start is None:
        return
    points = sorted([*measured, (0.0, start.value)], key=lambda pair: pair[0])
    places, values = [place for place, _ in points], [value for _, value in points]
    look = {"linestyle": "-", "label": cells[0].method} if healed else {"linestyle": "--", "alpha": 0.75}
    if not healed and all(cell.stage != "healed" for cell in domain_sweep.cells):
        look["label"] = cells[0].method
    axis.plot(places, [value.value for value in values], linewidth=1.2, **style, **look)
    axis.fill_between(
        places, [value.low for value in values], [value.high for value in values], color=style["color"], alpha=0.12
    )


def _chance(axis: Any, domain_sweep: DomainSweep, task: str, metric: str) -> None:
    """Draw the score of guessing where the task has one."""
    for score in domain_sweep.controls:
        if (score.task, score.metric, score.stage) == (task, metric, "parent") and score.chance is not None:
            _chance_line(axis, score.chance)


def influence(domains: Sequence[DomainSweep]) -> Any | None:
    """Draw the Block Influence of every layer, one row for each domain, on a logarithmic color scale."""
    measured = [domain_sweep for domain_sweep in domains if domain_sweep.block_influence]
    if not measured:
        return None
    from matplotlib.colors import LogNorm

    rows = [[max(value, 1e-6) for value in domain_sweep.block_influence] for domain_sweep in measured]
    flat = [value for row in rows for value in row]
    figure, axes = _figure(1, 1, max(5.0, 0.24 * len(rows[0])), 1.2 + 0.4 * len(rows))
    axis = axes[0][0]
    axis.grid(visible=False)
    low, high = min(flat), max(*flat, 1.01 * min(flat))
    image = axis.imshow(rows, aspect="auto", cmap="viridis", norm=LogNorm(low, high))
    axis.set_yticks(range(len(measured)), [domain_sweep.domain for domain_sweep in measured])
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("layer")
    bar = figure.colorbar(
        image, ax=axis, label="Block\nInfluence", format="%.2g", ticks=(low, math.sqrt(low * high), high)
    )
    bar.ax.minorticks_off()
    bar.ax.yaxis.label.set_fontsize(8)
    return figure


def angular(domain_sweep: DomainSweep) -> Any | None:
    """Draw the angular distance between the inputs of layers l and l + n ("Deeper Layers"); a dot marks each best l."""
    if not domain_sweep.angular:
        return None
    last = len(domain_sweep.angular) - 1
    grid = [
        [domain_sweep.angular[layer][layer + n] if layer + n <= last else math.nan for layer in range(last)]
        for n in range(1, last)
    ]
    figure, axes = _figure(1, 1, max(4.6, 0.2 * last), max(2.6, 0.13 * last))
    axis = axes[0][0]
    axis.grid(visible=False)
    image = axis.imshow(grid, aspect="auto", origin="lower", cmap="viridis", extent=(-0.5, last - 0.5, 0.5, last - 0.5))
    best = [min(range(last + 1 - n), key=row.__getitem__) for n, row in enumerate(grid, 1)]
    axis.plot(best, range(1, last), ".", color="white", markersize=4)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("first layer of the block, l")
    axis.set_ylabel("layers in the block, n")
    axis.set_title(domain_sweep.domain, fontsize=10)
    figure.colorbar(image, ax=axis, label="angular distance, units of pi")
    return figure


def matrix(comparison: Matrix) -> Any:
    """Draw ratios to the parent by specialist and domain: blue is better, red is worse, the own domain has a frame."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.patches import Rectangle

    models, domains = comparison.models, comparison.domains
    rows = [[math.log2(comparison.at(model, domain).ratio.value) for domain in domains] for model in models]
    reach = max(0.01, *(abs(value) for row in rows for value in row))
    figure, axes = _figure(1, 1, 1.5 * len(domains) + 1.0, 0.7 * len(models) + 1.2)
    axis = axes[0][0]
    axis.grid(visible=False)
    image = axis.imshow(rows, aspect="auto", cmap="RdBu_r", norm=TwoSlopeNorm(0, -reach, reach))
    for y, model in enumerate(models):
        for x, domain in enumerate(domains):
            cell = comparison.at(model, domain)
            shade = "white" if abs(rows[y][x]) > 0.7 * reach else "black"
            text = f"{cell.ratio.value:.3f}\n{cell.ratio.low:.3f}–{cell.ratio.high:.3f}"
            axis.text(x, y, text, ha="center", va="center", fontsize=8, color=shade)
            if cell.own:
                axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=2))
    axis.set_xticks(range(len(domains)), domains)
    axis.set_yticks(range(len(models)), models)
    axis.set_xlabel("held-out text of")
    axis.set_ylabel("specialist")
    figure.colorbar(image, ax=axis, label="bits per byte / parent", format=lambda value, _place: f"{2**value:.2f}")
    return figure


def pictures(domains: Sequence[DomainSweep]) -> dict[str, Callable[[], Any | None]]:
    """Map the file names of a sweep's pictures to functions that draw them; None means nothing to show."""
    figures: dict[str, Callable[[], Any | None]] = {"block-influence": lambda: influence(domains)}
    for domain_sweep in domains:
        if domain_sweep.cells:
            figures[f"{domain_sweep.domain}-quality"] = lambda domain_sweep=domain_sweep: quality(domain_sweep)  # type: ignore[misc]
            figures[f"{domain_sweep.domain}-collapse"] = lambda domain_sweep=domain_sweep: collapse(domain_sweep)  # type: ignore[misc]
        figures[f"{domain_sweep.domain}-angular"] = lambda domain_sweep=domain_sweep: angular(domain_sweep)  # type: ignore[misc]
    return figures
