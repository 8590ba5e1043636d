"""The simulation of intervals: its kinds are what they are called, and its table is one of coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minigpt.evaluation.intervals import effective_number
from minigpt.evaluation.paired import metric_interval, paired
from tests.support.scripts import script


@pytest.fixture(scope="module")
def module() -> Any:
    """The script as a module."""
    with script("interval_coverage") as module:
        yield module


def test_the_interval_that_is_simulated_is_that_of_reports(module: Any) -> None:
    sizes = np.array([10.0, 10.0, 30.0, 12.0])
    parent, ours = sizes * np.array([0.8, 0.9, 1.0, 0.95]), sizes * np.array([0.7, 0.85, 0.95, 0.8])
    columns = [np.stack([bits, sizes], axis=1) for bits in (ours, parent)]
    for bits, bounds in (
        (ours, metric_interval(columns[0], "bits_per_byte")),
        (ours - parent, paired(*columns, "bits_per_byte")),
    ):
        simulated = module.jackknife(bits, sizes, 0)
        for name in ("value", "low", "high"):
            assert getattr(simulated, name) == pytest.approx(getattr(bounds, name))


def test_students_t_is_that_of_the_textbook_where_documents_are_of_one_size(module: Any) -> None:
    bounds = module.plain_t(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), 0)
    assert (bounds.value, bounds.high) == pytest.approx((2.5, 2.5 + 2.05426), abs=1e-4)


def test_a_capped_population_keeps_each_documents_own_figure(module: Any) -> None:
    uneven = module.made_up("uneven", 0.9)
    few = module.Population("few", uneven.parent[:14], uneven.ours[:14], uneven.sizes[:14])
    even = module.capped(few)
    assert even.sizes.max() <= 0.1002 * even.sizes.sum()
    np.testing.assert_allclose(even.ours / even.sizes, few.ours / few.sizes)
    assert effective_number(even.sizes) > effective_number(few.sizes)


def test_coverage_is_better_than_that_of_percentiles(module: Any) -> None:
    shares = module.coverage(module.made_up("uneven", 0.6), 20, 200, is_paired=True)
    assert set(shares) == set(module.KINDS)
    assert shares["percentile"] < shares["jackknife t, effective n - 1"]
    assert 0.9 < shares["jackknife t, effective n - 1"] < 0.99
    assert next(population.name for population in module.populations_of(())) == "even lengths"
