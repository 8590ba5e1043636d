"""Figures of the trade-off between size, training and quality, read from the pages and lines of results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.files import read_json, read_jsonl
from minigpt.pipeline.settings import PRESETS

# Texts of a field, as the pages and the lines of results name them.
OWN, OTHER = "own sources", "other sources"
LINE_NAMES = {OWN: "heldout", OTHER: "other"}
RATIO = re.compile(r"(?P<value>\d\.\d+)(?: \((?P<low>\d\.\d+)-(?P<high>\d\.\d+)\))?")
WANTED = re.compile(r"tuned (?P<value>\d\.\d+)")
# Share of the parameters that builds of the tables keep, and the share where "half" is said.
QUARTER_REMOVED, HALF = 0.75, 0.5
# Runs of `benchmarks/sources.py` by their tags: what the control is, and what was done.
CONTROLS = {
    "rank4k-contextual-250": ("contextual", "250 steps"),
    "rank4k-contextual-2400": ("contextual", "2,400 steps"),
    "rank4k-random-250": ("random", "250 steps"),
    "rank4k-random-2400": ("random", "2,400 steps"),
    "rank4k-magnitude-250": ("magnitude", "250 steps"),
    "rank4k-magnitude-2400": ("magnitude", "2,400 steps"),
    "half-both-1200": ("contextual", "1,200 steps"),
    "half-fresh-1200": ("fresh weights", "1,200 steps"),
    "tuned-int8": ("fewer bits", "8 bits"),
    "tuned-int4": ("fewer bits", "4 bits"),
    "tuned-int3": ("fewer bits", "3 bits"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Bits per byte over the tuned parent's, with a 95 % interval where one was measured."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One model beside its control.

    Attributes:
        series: What it is one of: a domain for builds by presets, else the control's name.
        name: Preset, or what was done.
        kept: Share of the parent's parameters.
        tokens: Tokens that its training after the cut read, or was given by the preset; 0 for none.
        ratios: Ratios by text.
    """

    series: str
    name: str
    kept: float
    tokens: int
    ratios: Mapping[str, Ratio]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A ratio to the tuned parent that was wanted, of a preset and size."""

    preset: str
    kept: float
    tokens: int
    value: float


def rows_of(page: str, begin: str) -> list[list[str]]:
    """Read the rows of the table whose head begins with these words, without bold type, head and dashes."""
    lines = iter(page.splitlines())
    for line in lines:
        if line.startswith(f"| {begin} |"):
            break
    next(lines, None)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("*", "").replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def ratio_of(cell: str) -> Ratio:
    """Read a ratio such as `1.056 (1.051-1.061)`."""
    match = RATIO.match(cell)
    if match is None:
        raise ValueError(f"No ratio in {cell!r}.")
    parts = {name: float(text) for name, text in match.groupdict().items() if text}
    return Ratio(**parts)


def preset_points(page: str) -> Iterator[Point]:
    """Read the builds by the long presets; the tables name a build in its first row only."""
    texts: dict[str, dict[str, Ratio]] = {}
    build = ""
    for name, _, _, against_tuned in rows_of(page, "build, text"):
        head, _, text = name.rpartition(": ")
        build = head or build
        texts.setdefault(build, {})[text] = ratio_of(against_tuned)
    for build, ratios in texts.items():
        preset, *rest = build.split(", ")
        kept = HALF if "half" in rest else QUARTER_REMOVED
        yield Point(
            series=rest[-1],
            name=", ".join([preset, *rest[:-1]]),
            kept=kept,
            tokens=tokens_of(preset),
            ratios={text: ratios[text] for text in (OWN, OTHER)},
        )


def tokens_of(preset: str) -> int:
    """Count the tokens that a preset gives to healing."""
    recipe = PRESETS[preset].heal
    return recipe.steps * recipe.tokens_per_step


def twin_point(page: str, report: Mapping[str, Any]) -> Point:
    """Read the quick build beside its distilled twin, which is its only trained control.

    The page has the paired difference in bits per byte; divided by the twin's bits it is the interval of the ratio.
    """
    healed = next(stage for stage in report["stages"] if stage["stage"] == "healed")
    bits = {row[0]: float(row[2]) for row in rows_of(page, "domain, text")}
    ratios = {}
    for text, of_parent, of_twin, difference in rows_of(page, "medical, text"):
        if (parent := bits.get(f"medical, {text}")) is None:
            continue
        twin = parent * float(of_parent)
        low, high = (1 + float(end) / twin for end in difference.split(" to "))
        ratios[OWN if text == OWN else OTHER if text == "clinical guidelines" else text] = Ratio(
            value=float(of_twin), low=low, high=high
        )
    return Point(
        series="quick",
        name="quick, of its twin",
        kept=QUARTER_REMOVED,
        tokens=healed["training"]["tokens"],
        ratios={text: ratios[text] for text in (OWN, OTHER)},
    )


def control_points(lines: Sequence[Mapping[str, Any]], tags: Mapping[str, tuple[str, str]]) -> Iterator[Point]:
    """Read runs of `benchmarks/sources.py` by their tags, the last of each on medical text.

    Args:
        lines: All lines of results.
        tags: Series and name of each run, by tag.
    """
    last = {line["tag"]: line for line in lines if line["domain"] == "medical"}
    for tag, (series, name) in tags.items():
        line = last[tag]
        ratios = {text: Ratio(value=line["healed"]["tuned"][key]) for text, key in LINE_NAMES.items()}
        kept = line["variant"]["kept"] if "variant" in line else 1.0
        yield Point(series=series, name=name, kept=kept, tokens=line.get("tokens", 0), ratios=ratios)


def limits(page: str) -> Iterator[Limit]:
    """Read the ratios to the tuned parent that were wanted."""
    for row in rows_of(page, "preset, removed"):
        preset, _, removed = row[0].partition(", ")
        if (wanted := WANTED.search(row[1])) is not None:
            kept = HALF if removed == "half" else QUARTER_REMOVED
            yield Limit(preset=preset, kept=kept, tokens=tokens_of(preset), value=float(wanted["value"]))


def read_all(folder: Path) -> tuple[list[Point], list[Limit]]:
    """Read all points and limits from a folder of results."""
    page = (folder / "index.md").read_text(encoding="utf-8")
    report = read_json(folder / "medical-quick.json", dict[str, Any])
    controls = control_points(read_jsonl(folder / "sources.jsonl"), CONTROLS)
    return [*preset_points(page), twin_point(page, report), *controls], list(limits(page))
