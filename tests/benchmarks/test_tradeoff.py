"""The picture of the trade-off: what it reads from pages and lines of results, and what it draws of that."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import tradeoff, tradeoff_points
from benchmarks.tradeoff_points import OTHER, OWN, Ratio

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGE = """
| domain, text | documents (effective) | parent | specialist | ratio | difference, paired 95 % |
|---|---|---|---|---|---|
| medical, own sources | 28 (24) | 0.800 | 0.700 | 0.875 | -0.055 to -0.015 |
| medical, clinical guidelines | 19 (16) | 1.000 | 1.200 | **1.200** | +0.230 to +0.292 |

| medical, text | twin, of the parent | specialist, of the twin | difference, paired 95 % |
|---|---|---|---|
| own sources | 0.750 | 1.100 | +0.030 to +0.060 |
| clinical guidelines | 1.000 | 1.200 | +0.100 to +0.300 |

| build, text | documents (effective) | vs parent | vs tuned parent |
|---|---|---|---|
| standard, law: own sources | 7 (5) | 0.900 (0.800-1.000) | 1.050 (1.040-1.060) |
| other sources | 7 (5) | 1.000 (0.900-1.100) | 1.070 (1.050-1.090) |
| thorough, **half**, law: own sources | 7 (5) | 0.900 (0.800-1.000) | 1.150 (1.140-1.160) |
| other sources | 7 (5) | 1.000 (0.900-1.100) | 1.170 (1.150-1.190) |

| preset, removed | wanted | kept | missed |
|---|---|---|---|
| `quick`, 25 % | own 0.95, other 1.03 | law | medical |
| `thorough`, half | own 0.96, tuned 1.05 | law | all |
"""


def test_builds_are_read_with_size_and_intervals() -> None:
    quarter, half = tradeoff_points.preset_points(PAGE)
    assert (quarter.series, quarter.name, quarter.kept) == ("law", "standard", 0.75)
    assert quarter.ratios == {
        OWN: Ratio(value=1.05, low=1.04, high=1.06),
        OTHER: Ratio(value=1.07, low=1.05, high=1.09),
    }
    assert (half.series, half.name, half.kept) == ("law", "thorough, half", 0.5)
    assert half.ratios[OTHER].value == 1.17 and half.tokens > quarter.tokens


def test_the_interval_of_the_twin_is_its_difference_over_its_bits() -> None:
    report = {"stages": [{"stage": "parent"}, {"stage": "healed", "training": {"tokens": 7}}]}
    point = tradeoff_points.twin_point(PAGE, report)
    own = point.ratios[OWN]
    assert (point.tokens, own.value) == (7, 1.1)
    assert (own.low, own.high) == pytest.approx((1 + 0.03 / 0.6, 1 + 0.06 / 0.6))
    assert point.ratios[OTHER].high == pytest.approx(1.3)


def test_wanted_ratios_are_those_to_the_tuned_parent() -> None:
    (limit,) = tradeoff_points.limits(PAGE)
    assert (limit.preset, limit.kept, limit.value) == ("thorough", 0.5, 1.05)


def test_a_cell_without_a_ratio_is_an_error() -> None:
    with pytest.raises(ValueError, match="No ratio"):
        tradeoff_points.ratio_of("not measured")


def test_of_a_run_that_was_repeated_the_last_line_counts() -> None:
    lines = [
        {"tag": "a", "domain": domain, "healed": {"tuned": {"heldout": own, "other": 1.2}}, "tokens": 5}
        for domain, own in (("medical", 1.1), ("medical", 1.3), ("law", 1.5))
    ]
    (point,) = tradeoff_points.control_points(lines, {"a": ("fewer bits", "8 bits")})
    assert (point.ratios[OWN].value, point.kept, point.tokens) == (1.3, 1.0, 5)


def test_the_published_results_hold_everything_that_is_drawn() -> None:
    points, limits = tradeoff_points.read_all(RESULTS)
    counts = Counter((point.series, point.kept) for point in points)
    for domain in tradeoff.DOMAINS:
        assert counts[domain, 0.75] >= 2 and counts[domain, 0.5] == 1
        assert all(point.ratios[OWN].low is not None for point in points if point.series == domain)
    assert {point.series for point in points} == set(tradeoff.STYLES) == set(tradeoff.NAMES)
    assert {(limit.preset, limit.kept) for limit in limits} == {
        ("standard", 0.75),
        ("thorough", 0.75),
        ("thorough", 0.5),
    }


def test_own_and_other_sources_are_drawn_by_size_and_by_training() -> None:
    pytest.importorskip("matplotlib")
    points, limits = tradeoff_points.read_all(RESULTS)
    axes = tradeoff.draw(points, limits).axes
    assert len(axes) == 4
    heights = [value for line in axes[1].get_lines() for value in line.get_ydata()]
    for point in points:
        if point.kept == 0.75:
            assert any(value == pytest.approx(point.ratios[OWN].value) for value in heights), point
    assert any("3 bits" in text.get_text() for text in axes[0].texts)
