"""Forecasts: the same choice as a build's, and a line where nothing fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minigpt.pipeline.forecast import forecast
from minigpt.pipeline.settings import PRESETS
from minigpt.planning.memory import MemorySettings


def seven() -> Any:
    """The config of a 7B parent."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    )


def test_a_large_machine_holds_the_parent() -> None:
    result = forecast(seven(), device="cpu", room=(10**12, 10**12))
    assert result.lines[0].startswith("6.7B: resident statistics and pruning, ")
    assert result.lines[1].startswith("Healing of 5.3B: all weights, ")
    assert [peak.stage for peak in result.peaks] == ["pruning", "healing"]


def test_a_small_machine_streams_and_says_what_healing_lacks() -> None:
    settings = replace(PRESETS["standard"], memory=MemorySettings(teacher="resident"))
    result = forecast(seven(), device="cpu", layers=16, settings=settings, room=(28 * 10**9, 32 * 10**9))
    assert "streamed statistics and pruning" in result.lines[0]
    assert result.lines[1].startswith("Healing needs ")
    assert len(result.peaks) == 1


def test_a_teacher_that_does_not_fit_is_stored() -> None:
    result = forecast(seven(), device="cpu", layers=16, room=(28 * 10**9, 32 * 10**9))
    assert "teacher's answers on disk" in result.lines[1]
    assert len(result.peaks) == 2
