"""Memory of the stages: sums worked out by hand, the bars of a 7B parent, and what is said when nothing fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minigpt.errors import ConfigError
from minigpt.planning.memory import (
    LIBRARIES,
    MemorySettings,
    Parts,
    Work,
    choose_form,
    describe,
    highest_peak,
    parts_of,
    pruning_peaks,
)
from minigpt.transformer.arch import parameters_of
from tests.support.archsuite import FAMILIES
from tests.support.tiny import tiny_config

SMALL = Parts(ends=1000, layer=500, layers=4, hidden=10, width=30, vocab=100)
WORK = Work(tokens=64, batch_tokens=32, window=16, number_bytes=4, accelerated=True)
SEVEN = Parts(ends=262_148_096, layer=202_383_360, layers=32, hidden=4096, width=11008, vocab=32000)
STANDARD = Work(
    tokens=65536,
    batch_tokens=16384,
    window=512,
    number_bytes=2,
    accelerated=True,
    repair_tokens=65536,
    probe_tokens=16384,
)
AUTO = MemorySettings()


def chosen(parts: Parts, work: Work, settings: MemorySettings = AUTO, **options: Any) -> Any:
    """Choose a form on a device whose memory is all free."""
    size = options.pop("total")
    return choose_form(parts, work, settings, free=size, total=size, **{"streams": True, "method": "m"} | options)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_model_are_all_of_it(family: str) -> None:
    config = tiny_config(family)
    assert parts_of(config).parameters == parameters_of(config)


def test_resident_statistics_by_hand() -> None:
    (peak, _) = pruning_peaks(SMALL, WORK, "resident")
    inside = 32 * (30 * 12 + 10 * (6 * 4 + 8)) + 32 * 16 * 4
    assert peak.device == 3000 * 4 + inside
    assert peak.host == 3000 * 4 + LIBRARIES


def test_streamed_statistics_by_hand() -> None:
    (peak, _) = pruning_peaks(SMALL, WORK, "streamed")
    inside = 32 * (30 * 12 + 10 * (6 * 4 + 8)) + 32 * 16 * 4
    waiting = 64 * 4 * 10 + 64 * 16 * 4
    assert peak.device == 1000 * 4 + 500 * 4 + inside
    assert peak.host == 500 * 2 + waiting + LIBRARIES
    (alone, _) = pruning_peaks(SMALL, replace(WORK, accelerated=False), "streamed")
    assert alone.device == alone.host == peak.device + 500 * 2 + waiting + LIBRARIES


def test_a_repair_takes_its_matrices() -> None:
    (_, without) = pruning_peaks(SMALL, WORK, "streamed")
    (_, repaired) = pruning_peaks(SMALL, replace(WORK, repair_tokens=64, kept=0.5), "streamed")
    inside = 32 * (30 * (3 * 4 + 4) + 10 * (4 * 4 + 12))
    assert repaired.device - without.device == 20 * 15 * 15 + 24 * 10 * 15 + inside


def test_a_7b_parent_on_one_card() -> None:
    """The bars: 40 GB with the parent resident, 8 GB with it streamed."""
    assert highest_peak(pruning_peaks(SEVEN, STANDARD, "resident")).device < 40e9
    assert highest_peak(pruning_peaks(SEVEN, STANDARD, "streamed")).device < 8e9


def test_a_7b_parent_without_a_card() -> None:
    work = Work(tokens=2048, batch_tokens=2048, window=512, number_bytes=4, accelerated=False)
    assert highest_peak(pruning_peaks(SEVEN, work, "streamed")).device < 6e9


def test_what_fits_is_resident_and_what_does_not_is_streamed() -> None:
    assert chosen(SEVEN, STANDARD, total=int(80e9))[0] == "resident"
    form, peak = chosen(SEVEN, STANDARD, total=int(24e9))
    assert form == peak.form == "streamed"
    assert describe(SEVEN, form, peak, total=int(24e9)).startswith("6.7B: streamed statistics and pruning, 8.0 of")


def test_settings_force_a_form() -> None:
    assert chosen(SMALL, WORK, MemorySettings(streaming="always"), total=10**9)[0] == "streamed"
    assert chosen(SEVEN, STANDARD, MemorySettings(streaming="never"), total=10**9)[0] == "resident"
    with pytest.raises(ConfigError, match="Method m needs the whole parent in memory"):
        chosen(SMALL, WORK, MemorySettings(streaming="always"), streams=False, total=10**9)


def test_when_nothing_fits_the_nearest_thing_is_named() -> None:
    nearest = r"has 4\.0 GB\. --set evaluation\.batch_tokens=\d+ needs"
    with pytest.raises(ConfigError, match=nearest):
        chosen(SEVEN, replace(STANDARD, repair_tokens=0, probe_tokens=0), total=int(4e9))
    with pytest.raises(ConfigError, match=r"13\.5 GB parent .*Method m cannot be streamed; contextual"):
        chosen(SEVEN, STANDARD, streams=False, total=int(12e9))
    with pytest.raises(ConfigError, match=r"Choose a smaller parent, or a device with 6\.\d GB"):
        chosen(SEVEN, STANDARD, total=int(4e9))
