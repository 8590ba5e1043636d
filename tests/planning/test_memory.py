"""Memory of the stages: sums worked out by hand, and the bars of a 7B parent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minigpt.planning.memory import LIBRARIES, TOGETHER, Work, highest_peak, parts_of, pruning_peaks
from minigpt.transformer.arch import parameters_of
from tests.support.archsuite import FAMILIES
from tests.support.sizes import SEVEN, SMALL, STANDARD, WORK
from tests.support.tiny import tiny_config


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
    states, masks = 64 * 4 * 10, 64 * 16 * 4
    assert peak.device == 1000 * 4 + 500 * 4 + inside
    # The hidden states of a batch take 1,280 bytes, in a block of 2,048 where memory is pinned.
    assert peak.host == 500 * 2 + states * 2048 // 1280 + masks + LIBRARIES
    (alone, _) = pruning_peaks(SMALL, replace(WORK, accelerated=False), "streamed")
    assert alone.device == alone.host == peak.device + 500 * 2 + states + masks + LIBRARIES


def test_a_repair_takes_its_matrices() -> None:
    (_, without) = pruning_peaks(SMALL, WORK, "streamed")
    (_, repaired) = pruning_peaks(SMALL, replace(WORK, repair_tokens=64, kept=0.5), "streamed")
    inside = 32 * (30 * (3 * 4 + 4) + 10 * (4 * 4 + 12))
    assert repaired.device - without.device == 20 * 15 * 15 + 24 * 10 * 15 + inside


def test_text_that_a_repair_keeps_waits_in_memory_or_on_the_disk() -> None:
    work = replace(WORK, accelerated=False, repair_tokens=64, kept=0.5)
    (_, kept), (_, spilled) = (pruning_peaks(SMALL, work, form) for form in ("streamed", "spilled"))  # type: ignore[arg-type]
    states = 64 * 4 * (7 * 10 + 15)
    assert (kept.disk, spilled.disk) == (0, states)
    assert kept.device - spilled.device == states
    assert kept.parts["texts"] - states == spilled.parts["texts"] == 64 * 16 * 4


def test_one_probe_of_a_sweep_is_in_the_layer_and_the_others_wait() -> None:
    work = replace(WORK, repair_tokens=64, probe_tokens=32)
    (_, probes, _) = pruning_peaks(SMALL, work, "spilled")
    assert probes.disk == 32 * 4 * ((8 + 3 * (TOGETHER - 1)) * 10 + 30)
    (_, together, _) = pruning_peaks(SMALL, work, "streamed")
    assert together.host - probes.host == probes.disk * 2048 // 1280


def test_a_7b_parent_on_one_card() -> None:
    """The bars: 40 GB with the parent resident, 8 GB with it streamed."""
    assert highest_peak(pruning_peaks(SEVEN, STANDARD, "resident")).device < 40e9
    assert highest_peak(pruning_peaks(SEVEN, STANDARD, "streamed")).device < 8e9


def test_a_7b_parent_without_a_card() -> None:
    work = Work(tokens=2048, batch_tokens=2048, window=512, number_bytes=4, accelerated=False)
    assert highest_peak(pruning_peaks(SEVEN, work, "streamed")).device < 6e9
