"""Memory of healing: forms in order, sums by hand, and the message when none fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import pytest

from minigpt.errors import ConfigError
from minigpt.healing.recipe import Recipe
from minigpt.planning.memory import LIBRARIES, MemorySettings, Parts, parts_of
from minigpt.planning.memory_healing import FOUR_BIT, TeacherForm, answering_peak, choose_healing, healing_peak
from minigpt.transformer.nf4 import projections_of
from tests.support.sizes import SEVEN
from tests.support.tiny import tiny_model

STUDENT = Parts(ends=1000, layer=500, layers=4, hidden=10, width=30, vocab=100)
RECIPE = Recipe(steps=10, tokens_per_step=16384, window=512, distill=1.0, optimizer="muon")


def test_all_weights_by_hand() -> None:
    recipe = Recipe(steps=1, tokens_per_step=16, window=8, average=0.9)
    peak = healing_peak(STUDENT, None, recipe, saves_memory=False, accelerated=False)
    inside = 16 * (4 * (10 * 10 + 4 * 30) + 8 * 10)
    logits = 16 * 100 * (8 + 8)
    assert peak.device == peak.host == 3000 * (8 + 8 + 4) + 4 * inside + logits + 3000 * 4 + LIBRARIES


def test_a_teacher_takes_its_weights_and_logits() -> None:
    recipe = Recipe(steps=1, tokens_per_step=16, window=8)
    alone, taught = (
        healing_peak(STUDENT, teacher, recipe, saves_memory=True, accelerated=True) for teacher in (None, STUDENT)
    )
    assert taught.device - alone.device == 3000 * 2 + 16 * 100 * (2 + 4)


def test_the_first_form_that_fits_is_taken() -> None:
    def form(total: float, teacher: Literal["auto", "resident", "stored"]) -> tuple[str, bool, int, int]:
        settings = MemorySettings(teacher=teacher)
        result = choose_healing(SEVEN, SEVEN, RECIPE, total=int(total), accelerated=True, settings=settings)
        assert result.peak.device <= total
        return result.recipe.adapter, result.saves_memory, result.portions, result.stored

    assert form(1000e9, "auto") == ("full", False, 1, 0)
    assert form(170e9, "auto") == ("full", False, 8, 0)
    assert form(140e9, "auto") == ("full", False, 32, 64)
    assert form(140e9, "resident") == ("lora", True, 1, 0)
    assert form(80e9, "auto") == form(80e9, "resident") == ("lora", True, 1, 0)
    assert form(80e9, "stored") == ("lora", True, 1, 64)
    assert form(46e9, "auto") == ("lora", True, 2, 0)
    assert form(30e9, "resident") == ("qlora", True, 4, 0)
    assert form(30e9, "auto") == ("lora", True, 2, 64)
    assert form(12e9, "auto") == ("qlora", True, 4, 64)


def test_lora_of_7b_takes_what_was_measured() -> None:
    """On an NVIDIA H200 the peak of a 7B parent cut to 6,720 neurons was 140.8 GB, with answers on disk."""
    student = replace(SEVEN, layer=149_692_416, width=6720)
    recipe = replace(RECIPE, adapter="lora", rank=64, tokens_per_step=16384)
    peak = healing_peak(student, SEVEN, recipe, saves_memory=False, accelerated=True, stored=64)
    assert peak.device == pytest.approx(140.8e9, rel=0.05)


def test_portions_take_less_and_hold_a_window_at_least() -> None:
    peaks = [
        healing_peak(SEVEN, SEVEN, RECIPE, saves_memory=False, accelerated=False, portions=number).device
        for number in (1, 2, 32, 64)
    ]
    assert peaks[0] > peaks[1] > peaks[2] == peaks[3]


def test_a_recipe_with_adapters_keeps_them() -> None:
    recipe = replace(RECIPE, adapter="lora", rank=4)
    result = choose_healing(SEVEN, SEVEN, recipe, total=int(80e9), accelerated=True)
    assert result.recipe == recipe
    assert result.portions > 1


def test_without_steps_there_is_nothing() -> None:
    assert choose_healing(SEVEN, SEVEN, replace(RECIPE, steps=0), total=1, accelerated=True).peak.device == 0


def test_the_line_names_the_form() -> None:
    result = choose_healing(SEVEN, SEVEN, RECIPE, total=int(80e9), accelerated=True)
    line = result.describe(SEVEN, total=int(80e9))
    assert line.startswith("Healing of 6.7B: LoRA r 64, gradient checkpointing, ")
    assert line.endswith("of 80 GB")


def test_when_nothing_fits_the_nearest_thing_is_named() -> None:
    resident = MemorySettings(teacher="resident")
    for total, nearest in (
        (16e9, r"Without a teacher, --set heal\.distill=0, it needs"),
        (1e9, r"--set heal\.steps=0"),
    ):
        with pytest.raises(ConfigError, match=rf"Healing needs .* GB teacher\).* {nearest}"):
            choose_healing(SEVEN, SEVEN, RECIPE, total=int(total), accelerated=True, settings=resident)


def test_answers_are_not_stored_of_text_with_noise() -> None:
    noisy = replace(RECIPE, noise=0.1)
    result = choose_healing(SEVEN, SEVEN, noisy, total=int(140e9), accelerated=True)
    assert result.stored == 0
    with pytest.raises(ConfigError, match=r"heal\.noise=0"):
        choose_healing(
            SEVEN, SEVEN, noisy, total=int(140e9), accelerated=True, settings=MemorySettings(teacher="stored")
        )


def test_a_stored_teacher_takes_what_its_answers_take() -> None:
    recipe = Recipe(steps=1, tokens_per_step=16, window=8)
    alone, stored = (
        healing_peak(STUDENT, teacher, recipe, saves_memory=True, accelerated=True, stored=5)
        for teacher in (None, STUDENT)
    )
    assert stored.device - alone.device == 16 * 5 * 12


def test_storing_answers_takes_the_teacher_or_a_layer_of_it() -> None:
    resident, streamed = (answering_peak(STUDENT, 8, 100, form, accelerated=True) for form in get_args(TeacherForm))
    inside = max(8 * (2 * (10 * 10 + 4 * 30) + 8 * 10), 8 * 100 * 10)
    assert resident.device == 3000 * 2 + inside
    assert streamed.device == 1500 * 2 + inside
    assert streamed.host == LIBRARIES + 500 * 2


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt_oss", "qwen2_moe", "gpt2", "phi3"])
def test_weights_that_4_bits_cannot_hold_are_not_counted_as_if_they_did(family: str) -> None:
    """The prediction and what is quantized differ by norms and biases alone."""
    model = tiny_model(family, layers=2)
    parts = parts_of(model.config)
    weights = sum(module.weight.numel() for module in projections_of(model).values())
    predicted = parts.layers * (parts.layer - parts.unquantized)
    others = sum(weight.numel() for weight in model.parameters() if weight.ndim == 1)
    assert weights <= predicted <= weights + others
    qlora, lora = (
        healing_peak(parts, None, Recipe(adapter=adapter), saves_memory=True, accelerated=True).parts["frozen weights"]
        for adapter in ("qlora", "lora")
    )
    assert lora - qlora == pytest.approx(predicted * (2 - FOUR_BIT), abs=1)
