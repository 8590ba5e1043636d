"""Figures that stand twice agree: those of the README are those of the results, and those of one build its report's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PARTS = ("own sources", "other sources", "general, not trained on")


def rows_of(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without bold type and the row of dashes."""
    lines = page.read_text("utf-8").partition(f"\n## {heading}\n")[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("*", "") for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def long_presets() -> dict[tuple[str, str], list[str]]:
    """Values of the presets standard and thorough, by build and text."""
    values, build = {}, ""
    for row in rows_of(RESULTS / "index.md", "Presets standard and thorough")[1:]:
        name, _, text = row[0].rpartition(": ")
        build = name or build
        values[build, text] = [cell.partition(" ")[0] for cell in row[1:]]
    return values


def expected_rows() -> list[tuple[str, list[str]]]:
    """The README's rows: the first cell, and the figures."""
    return [(f"{row[1]}, {row[0]}", row[2:]) for row in rows_of(ROOT / "README.md", "What to expect")[1:]]


@pytest.mark.parametrize(("name", "figures"), [row for row in expected_rows() if "quick" not in row[0]])
def test_the_readme_has_the_figures_of_the_long_presets(name: str, figures: list[str]) -> None:
    preset, domain, rest = name.split(", ")
    build = f"{preset}, half, {domain}" if "half" in rest else f"{preset}, {domain}"
    values = long_presets()
    assert figures == [*(values[build, part][1] for part in PARTS), values[build, PARTS[0]][2]]


@pytest.mark.parametrize(("name", "figures"), [row for row in expected_rows() if "quick" in row[0]])
def test_the_readme_has_the_figures_of_quick(name: str, figures: list[str]) -> None:
    domain = name.split(", ")[1]
    ratios: dict[str, list[str]] = {}
    for text, _, parent, ours, ratio, _ in rows_of(RESULTS / "index.md", "Preset quick")[1:]:
        ratios.setdefault(text.partition(",")[0], []).append(ratio)
        assert abs(float(ours) / float(parent) - float(ratio)) < 0.002, text
    own, _, other, _, general = ratios[domain]
    assert figures == [own, other, general, "not measured"]


def test_the_kept_report_of_quick_has_the_figures_of_its_table() -> None:
    stages = {
        stage["stage"]: stage for stage in json.loads((RESULTS / "medical-quick.json").read_text("utf-8"))["stages"]
    }
    rows = [row for row in rows_of(RESULTS / "index.md", "Preset quick")[1:] if row[0].startswith("medical")]
    tasks = ("medical", "medical/unseen", "medical/other", "general", "general/other")
    for row, task in zip(rows, tasks, strict=True):
        parent, ours = (
            next(item for item in stages[name]["metrics"] if (item["task"], item["metric"]) == (task, "bits_per_byte"))
            for name in ("parent", "healed")
        )
        paired = ours["paired_difference_vs_parent"]
        assert row[1] == f"{ours['n']} ({ours['effective_n']:.0f})", task
        assert row[2:4] == [f"{parent['value']:.3f}", f"{ours['value']:.3f}"], task
        assert row[4] == f"{ours['value'] / parent['value']:.3f}", task
        assert row[5] == f"{paired['low']:+.3f} to {paired['high']:+.3f}", task
