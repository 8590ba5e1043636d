"""Pictures of tickets beside their controls: those that shrink a model, and those that change few of its weights.

    python benchmarks/lottery_picture.py docs/results/lottery.jsonl docs/results/deltas.jsonl --folder docs/results

Nothing is measured here: every point is a ratio of bits per byte to the tuned parent, with its paired 95 % interval,
from the lines of `lottery.py` and `deltas.py`. A point that lies above the picture is written at the upper end.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lottery_compare import compared

from minigpt.files import read_jsonl, write_text
from minigpt.sweep.plots import COLORS, MARKERS, need_matplotlib, save_figure

# Series of the pictures, by arm or by domain, in the order of the legends.
SHRINKING = {
    "imp": "ticket, Wanda",
    "imp by sparsegpt": "ticket, SparseGPT",
    "sparsegpt": "SparseGPT in one shot",
    "wanda": "Wanda in one shot",
    "magnitude": "magnitude in one shot",
    "random": "random mask",
    "law": "ticket, law",
    "finance": "ticket, finance",
}
DELTAS = {"ticket-0.05": "ticket", "random-mask": "random mask", "lora-0.0005": "LoRA"}
# Shares of the matrices' weights by their labels, with the limits that were wanted of a ticket.
SHARES = {"2:4": ("50 %, 2:4", 1.01), "0.3": ("30 %", 1.02), "0.2": ("20 %", 1.05)}
DOMAINS = {"dmedical": "medicine", "dlaw": "law", "dfinance": "finance"}
TEXTS = {
    "heldout": ("own sources", "{} bits_per_byte"),
    "other": ("other sources", "{}/other bits_per_byte"),
    "general": ("general text", "general/other bits_per_byte"),
}
# Upper ends of the axes, room below the lowest point as a share of their height, and distance of two series.
SHRINKING_TOP, DELTA_TOP, MARGIN, ASIDE = 1.36, 1.03, 0.05, 0.12
# What was wanted of a delta ticket.
DELTA_LIMIT = 1.005

Point = tuple[int, str, Mapping[str, float]]


def shrinking_points(lines: Sequence[Mapping[str, Any]], text: str) -> Iterator[Point]:
    """Yield place, series and ratio of the arms that trained on sampled text: of medicine, and tickets elsewhere."""
    for row in compared(lines):
        if row.get("sampled") and (series := _series(row)):
            share = row["pattern"] if ":" in row["pattern"] else f"{row['remaining']:.1f}"
            yield list(SHARES).index(share), series, row["to_tuned"][text]


def _series(row: Mapping[str, Any]) -> str | None:
    """Return the series of an arm, or None: the picture has no place for it."""
    ticket = row["arm"] == "imp"
    if row["domain"] != "medical":
        return str(row["domain"]) if ticket else None
    if row["start"] != "parent":
        return None
    return "imp by sparsegpt" if ticket and row.get("criterion") == "sparsegpt" else str(row["arm"])


def delta_points(lines: Sequence[Mapping[str, Any]], text: str) -> Iterator[Point]:
    """Yield place, series and ratio of the first run of each domain's ticket and controls."""
    seen = set()
    for line in lines:
        key = (line["domain"], line["tag"])
        if line["domain"] in DOMAINS and line["tag"] in DELTAS and key not in seen:
            seen.add(key)
            measured = line["measured"][TEXTS[text][1].format(line["domain"])]
            yield list(DOMAINS).index(line["domain"]), line["tag"], _to_tuned(measured)


def _to_tuned(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the ratio to the tuned parent; `measured` has it with the interval of the difference."""
    ratio = measured["tuned"]["ratio"]
    reference = measured["value"] / ratio
    _, low, high = measured["tuned"]["difference"]
    return {"value": ratio, "low": 1 + low / reference, "high": 1 + high / reference}


def draw(points: Mapping[str, Sequence[Point]], names: Mapping[str, str], places: Sequence[str], top: float) -> Any:
    """Draw one panel for each text.

    Args:
        points: points by text.
        names: label of each series.
        places: labels of the places on the axis.
        top: upper end of the axis; a point above it gets its value there.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 3.8), layout="constrained")
    panels = figure.subplots(1, len(points), sharey=True)
    lowest = min((ratio["low"] for rows in points.values() for _, _, ratio in rows), default=1.0)
    bottom = min(1.0, lowest) - MARGIN * (top - 1)
    for axis, (text, rows) in zip(panels, points.items(), strict=True):
        for number, series in enumerate(names):
            own = [(place, ratio) for place, name, ratio in rows if name == series]
            shift = ASIDE * (number - (len(names) - 1) / 2)
            _draw_series(axis, own, shift, top, names[series], COLORS[number], MARKERS[number])
        axis.axhline(1, color="black", linewidth=1)
        axis.set_title(TEXTS[text][0], fontsize=10)
        axis.set_xticks(range(len(places)), places)
        axis.set_xlim(-0.5, len(places) - 0.5)
        axis.set_ylim(bottom, top)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    panels[0].set_ylabel("bits per byte / tuned parent", fontsize=9)
    legend = {"loc": "outside lower center", "ncols": 6, "frameon": False, "fontsize": 8}
    figure.legend(*panels[0].get_legend_handles_labels(), **legend)
    return figure


def _draw_series(
    axis: Any, points: Sequence[tuple[int, Mapping[str, float]]], shift: float, top: float, *style: str
) -> None:
    """Draw the points of a series with their intervals."""
    label, color, marker = style
    within = [(place + shift, ratio) for place, ratio in points if ratio["value"] <= top]
    values = [ratio["value"] for _, ratio in within]
    below = [ratio["value"] - ratio["low"] for _, ratio in within]
    above = [ratio["high"] - ratio["value"] for _, ratio in within]
    axis.errorbar(
        [place for place, _ in within], values, yerr=[below, above], fmt=marker, color=color, markersize=4.5,
        linewidth=1, label=label,
    )  # fmt: skip
    for place, ratio in points:
        if ratio["value"] > top:
            axis.annotate(
                f"{ratio['value']:.2f} ↑", (place + shift, top), ha="center", va="top", color=color, fontsize=7,
                rotation=90,
            )  # fmt: skip


def draw_limits(axis: Any, limits: Sequence[float]) -> None:
    """Draw what was wanted at each place, as a dashed line."""
    for place, limit in enumerate(limits):
        axis.hlines(limit, place - 0.4, place + 0.4, color="#888888", linestyle="--", linewidth=1)
    axis.set_xlabel("dashed: what was wanted of a ticket", fontsize=8)


def write_picture(figure: Any, path: Path) -> None:
    """Write a figure as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        svg, _ = save_figure(figure, Path(folder), path.stem)
        write_text(path, svg.read_text(encoding="utf-8"))


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shrinking", type=Path, help="lines of lottery.py")
    parser.add_argument("deltas", type=Path, help="lines of deltas.py")
    parser.add_argument("--folder", type=Path, required=True, help="folder that pictures are written to")
    options = parser.parse_args()
    need_matplotlib()
    lines = read_jsonl(options.shrinking)
    points = {text: list(shrinking_points(lines, text)) for text in TEXTS}
    figure = draw(points, SHRINKING, [label for label, _ in SHARES.values()], SHRINKING_TOP)
    draw_limits(figure.axes[0], [limit for _, limit in SHARES.values()])
    figure.axes[1].set_xlabel("weights of the matrices that are left", fontsize=9)
    write_picture(figure, options.folder / "lottery-shrinking.svg")
    lines = read_jsonl(options.deltas)
    points = {text: list(delta_points(lines, text)) for text in TEXTS}
    figure = draw(points, DELTAS, list(DOMAINS.values()), DELTA_TOP)
    draw_limits(figure.axes[0], [DELTA_LIMIT] * len(DOMAINS))
    write_picture(figure, options.folder / "lottery-deltas.svg")


if __name__ == "__main__":
    main()
