"""Lines, tables and picture of whole conditional models: `python -m benchmarks.conditional_page LINES.jsonl`.

`--add NAME=FILE.json` appends the rows of a result: `healed` and `converted` of `conditional_models sweep`, `cpu` of
`conditional_forms`, `gpu` of `conditional_gpu`, `encoder` of `encoder`. Lines of the same table and conditions are
written anew. `--picture` draws loss against visited neurons, and speed against loss; `--tables` prints what is there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt.files import read_jsonl, write_text
from minigpt.sweep.plots import COLORS, MARKERS, need_matplotlib, save_figure

Line = dict[str, Any]
KINDS = ("topk", "threshold", "relu", "trees")
# Loss that the models may have, and the speed that they are to have.
LOSS, SPEED = 1.03, 1.6
# Fields that make a line another than the others.
_KEYS = ("table", "model", "form", "threads", "tokens", "task", "device", "shape", "batch", "kernel", "dtype")
# Shares of neurons that count as the same.
_NEAR = 0.025
# Digits that are kept of a number.
_DIGITS = 4


def main() -> None:
    """Add rows, print tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lines", type=Path, help="JSON lines, which rows are added to")
    parser.add_argument("--add", nargs="+", default=[], metavar="NAME=FILE", help="results to add")
    parser.add_argument("--model", default="parent", help="name of the model of added rows")
    parser.add_argument("--tables", action="store_true", help="print tables")
    parser.add_argument("--picture", type=Path, help="SVG to draw")
    options = parser.parse_args()
    lines = list(read_jsonl(options.lines))
    for entry in options.add:
        name, _, path = entry.partition("=")
        if name not in ADDED:
            parser.error(f"{name} is none of {', '.join(ADDED)}")
        added = [
            {"table": name, "model": options.model, **row}
            for row in ADDED[name](json.loads(Path(path).read_text("utf-8")))
        ]
        new = {key_of(line) for line in added}
        lines = [line for line in lines if key_of(line) not in new] + [short(line) for line in added]
    if options.add:
        write_text(options.lines, "".join(json.dumps(line) + "\n" for line in lines))
    if options.tables:
        for name in ADDED:
            print(table([line for line in lines if line.get("table") == name]))
    if options.picture:
        draw(lines, options.picture)


def key_of(line: Line) -> tuple[Any, ...]:
    """Return what makes a line another than the others."""
    return tuple(line.get(name) for name in _KEYS)


def short(value: Any) -> Any:
    """Return numbers with few digits, wherever they are."""
    if isinstance(value, Mapping):
        return {name: short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [short(one) for one in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def swept(result: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the points of a sweep: ratios of bits per byte, and questions, each with a paired interval."""
    steps, seed = int(result["settings"]["heal_steps"]), int(result["settings"]["seed"])
    dense = {(one["task"], one["metric"]): one for one in result["dense"]}
    for row in result["rows"]:
        line = {"form": row["name"], "kind": row["kind"], "steps": steps, "seed": seed}
        line |= {"visited": row["visited_share"], "weights": row["weights_share"]}
        for one in row["metrics"]:
            gap, base = one["paired_difference_vs_parent"], dense[one["task"], one["metric"]]["value"]
            if one["metric"] == "bits_per_byte":
                name = "other" if one["task"].endswith("/other") else "bits"
                ends = {end: 1 + gap[end] / base for end in ("low", "high")}
                line[name] = {"value": one["value"] / base, **ends, "n": one["n"]}
            elif one["metric"] == "accuracy":
                line["questions"] = {"value": one["value"], "dense": base, "n": one["n"], "difference": gap}
        yield line


def forms(result: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the speeds of forms of one model on a processor."""
    for row in result["rows"]:
        line = {"form": row["form"], "threads": result["machine"]["threads"], "decode": row["decode_ratio"]}
        line |= {"prefill": row["prefill_ratio"], "visited": row["visited_share"], "weights": row["weights_share"]}
        first = result["rows"][0]
        if "bits_per_byte" in row:
            line["bits"] = {"value": row["bits_per_byte"] / first["bits_per_byte"]}
        yield line


def replayed(result: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the speeds of forms of a whole model on a GPU."""
    yield from result["rows"]


def retained(result: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what arms of an encoder keep, on each task and on all that count."""
    steps = {name: result["conditions"][name] for name in ("steps", "distill")}
    for row in result["rows"]:
        yield {**row, "form": row["arm"], **steps}
    for row in result["arms"]:
        yield {**row, "form": row["arm"], "task": "all that count", **steps}


# Name of a table: makes lines of a result.
ADDED: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Line]]] = {
    "healed": swept,
    "converted": swept,
    "cpu": forms,
    "gpu": replayed,
    "encoder": retained,
}


def table(lines: Sequence[Line]) -> str:
    """Write lines as a table, a column for each of their fields."""
    names = list(dict.fromkeys(name for line in lines for name in line if name not in ("table", "kind", "arm")))
    rows = [names, ["---"] * len(names), *([cell(line.get(name)) for name in names] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def cell(value: Any) -> str:
    """Write a value, with its interval if it has one."""
    if not isinstance(value, Mapping):
        return f"{value:.{_DIGITS}g}" if isinstance(value, float) else "–" if value is None else str(value)
    middle = cell(value.get("value", value.get("median")))
    ends = value.get("difference", value)
    return f"{middle} ({cell(ends['low'])} to {cell(ends['high'])})" if "low" in ends else middle


def draw(lines: Sequence[Line], picture: Path) -> None:
    """Draw loss against visited neurons, and decoding speed against loss."""
    need_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    loss, speed = figure.subplots(1, 2)
    for place, kind in enumerate(KINDS):
        style = {"color": COLORS[place], "marker": MARKERS[place], "markersize": 6}
        _losses(loss, points(lines, "healed", kind), style, f"{kind}, healed", filled=True)
        _losses(loss, points(lines, "cpu", kind), style, f"{kind}, as converted", filled=False)
        for name, filled in (("cpu", True), ("gpu", False)):
            _speeds(speed, lines, name, kind, style, filled=filled)
    loss.axhline(LOSS, color="#666666", linewidth=0.8, linestyle=":")
    loss.set(xscale="log", yscale="log", xlabel="neurons that a token visits, %", ylabel="bits per byte over dense")
    loss.set_xticks([1, 2, 5, 10, 25, 50, 100], labels=["1", "2", "5", "10", "25", "50", "100"])
    ticks = [1, 1.03, 1.1, 1.2, 1.4, 1.6, 2]
    loss.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    loss.minorticks_off()
    speed.axvline(LOSS, color="#666666", linewidth=0.8, linestyle=":")
    speed.axhline(SPEED, color="#666666", linewidth=0.8, linestyle=":")
    _limits(speed, lines)
    speed.set(xscale="log", xlabel="bits per byte over dense, healed", ylabel="decoding, times as fast as dense")
    speed.set_xticks(ticks[:-1], labels=[f"{tick:g}" for tick in ticks[:-1]])
    speed.minorticks_off()
    for axis in (loss, speed):
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.legend(frameon=False, fontsize=7)
    save_figure(figure, picture.parent, picture.stem)


def points(lines: Sequence[Line], name: str, kind: str) -> list[Line]:
    """Return the lines of a kind in a table that say its loss, by visited neurons; of the parent, on one thread."""
    chosen = [
        line
        for line in lines
        if line.get("table") == name and line["model"] == "parent" and "bits" in line and line.get("threads", 1) == 1
    ]
    return sorted((line for line in chosen if kind_of(line) == kind), key=lambda line: float(line["visited"]))


def kind_of(line: Line) -> str:
    """Return the kind of a line: the beginning of its form's name."""
    return str(line["form"]).replace(":", " ").split()[0]


def _losses(axis: Any, some: Sequence[Line], style: Mapping[str, Any], label: str, *, filled: bool) -> None:
    """Draw one curve of losses with its intervals."""
    if not some:
        return
    x, y = [100 * line["visited"] for line in some], [line["bits"]["value"] for line in some]
    low = [line["bits"]["value"] - line["bits"].get("low", line["bits"]["value"]) for line in some]
    high = [line["bits"].get("high", line["bits"]["value"]) - line["bits"]["value"] for line in some]
    look = {"fillstyle": "full" if filled else "none", "linestyle": "-" if filled else "--", "linewidth": 1.2}
    axis.errorbar(x, y, yerr=[low, high], capsize=2, label=label, **style, **look)


def _speeds(axis: Any, lines: Sequence[Line], name: str, kind: str, style: Mapping[str, Any], *, filled: bool) -> None:
    """Draw speeds of a kind against the healed loss of the same share of neurons."""
    some = sorted(speeds(lines, name, kind), key=lambda pair: pair[0])
    if not some:
        return
    y = [ratio["median"] for _, ratio in some]
    low, high = (
        [ratio["median"] - ratio["low"] for _, ratio in some],
        [ratio["high"] - ratio["median"] for _, ratio in some],
    )
    look = {"fillstyle": "full" if filled else "none", "linestyle": "-" if filled else "--", "linewidth": 1.2}
    label = f"{kind}, {'processor' if filled else 'GPU'}"
    axis.errorbar([loss for loss, _ in some], y, yerr=[low, high], capsize=2, label=label, **style, **look)


def speeds(lines: Sequence[Line], name: str, kind: str) -> Iterator[tuple[float, Mapping[str, float]]]:
    """Yield the healed loss of the parent's forms of a kind, and the speed of the same share of neurons: one at a time.

    Args:
        lines: all lines.
        name: table of the speeds; a GPU's are of a larger model with random weights.
        kind: kind of the layers.
    """
    healed = points(lines, "healed", kind)
    for line in lines:
        if line.get("table") != name or kind_of(line) != kind or (name == "cpu" and line["model"] != "parent"):
            continue
        near = [point for point in healed if abs(point["visited"] - line["visited"]) < _NEAR]
        if near and line.get("threads", 1) == line.get("tokens", 1) == 1:
            yield near[0]["bits"]["value"], line["decode" if name == "cpu" else "ratio"]


def _limits(axis: Any, lines: Sequence[Line]) -> None:
    """Draw the processor's control, which visits every neuron, and the limit without feed-forward layers."""
    names = {"threshold:1": ("control, processor", "-."), "free": ("no feed-forward layers, processor", "--")}
    for form, (label, style) in names.items():
        for line in lines:
            if line.get("table") == "cpu" and (line["form"], line["model"], line["threads"]) == (form, "parent", 1):
                axis.axhline(line["decode"]["median"], color="#000000", linewidth=0.8, linestyle=style, label=label)


if __name__ == "__main__":
    main()
