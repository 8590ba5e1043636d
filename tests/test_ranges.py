"""Ranges: every number of every setting is checked at the border."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from minigpt.errors import ConfigError
from minigpt.pipeline.settings import PRESETS, settings_for
from minigpt.ranges import Range, above, at_least

NONSENSE = {
    "evaluation.window": ("-5", "0", "1"),
    "evaluation.heldout_bytes": ("-1", "0"),
    "evaluation.questions": ("-1", "0"),
    "evaluation.batch_tokens": ("-1", "0"),
    "evaluation.sample_tokens": ("-1",),
    "evaluation.pruned_share": ("0", "1.5", "nan"),
    "plan.tokens": ("-1", "0"),
    "plan.probe_tokens": ("-1",),
    "plan.contrast": ("nan", "inf"),
    "plan.epsilon": ("nan", "-1"),
    "repair.tokens": ("-1",),
    "repair.ridge": ("-1", "nan", "inf"),
    "text.general": ("nan", "-0.1"),
    "text.definitions": ("-1",),
    "text.sampled": ("-1",),
    "text.dev_bytes": ("-1", "0"),
    "corpus.max_documents": ("-1", "0"),
    "heal.final": ("nan", "2"),
    "heal.growth": ("1e300", "0"),
    "heal.weight_decay": ("inf", "-1"),
    "heal.learning_rate": ("inf", "0", "nan"),
    "heal.steps": ("2001-13-45", "9" * 5000, "[" * 5000, "-1"),
    "tune.rates": ("[nan]", "[]", "[-1]"),
    "blend": ("1", "nan"),
    "keep_general": ("nan", "-1"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NONSENSE.items() for value in values])
def test_nonsense_is_refused_in_one_sentence_that_names_the_setting(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_for("quick", {name: value})
    message = str(caught.value)
    assert name.rpartition(".")[2] in message and "\n" not in message and len(message) < 6000


def numbers(instance: Any, path: str = "") -> list[str]:
    """Dotted names of all fields that hold a number or several."""
    names = []
    for item in fields(instance):
        value = getattr(instance, item.name)
        if is_dataclass(value):
            names += numbers(value, f"{path}{item.name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            names.append(path + item.name)
    return names


@pytest.mark.parametrize("preset", PRESETS)
def test_no_number_of_any_setting_may_be_endless(preset: str) -> None:
    names = numbers(PRESETS[preset])
    assert len(names) > 40
    for name in names:
        for value in ("inf", "-inf", "nan", "1e40"):
            with pytest.raises(ConfigError):
                settings_for(preset, {name: value})


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "words"),
    [
        (at_least(1), (1, 2), (0, -1), "1 or more"),
        (above(0), (0.1,), (0,), "above 0"),
        (Range(low=0, high=1, below=True), (0, 0.99), (1, -0.1), "0 or more and below 1"),
        (Range(low=0, high=1), (0, 1), (1.01,), "between 0 and 1"),
        (Range(high=3), (3,), (4,), "at most 3"),
    ],
)
def test_a_range_says_what_it_holds(
    limits: Range, inside: tuple[float, ...], outside: tuple[float, ...], words: str
) -> None:
    assert all(value in limits for value in inside) and not any(value in limits for value in outside)
    assert str(limits) == words
