"""Settings of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from minigpt.planning.sensitivity import Healing
from minigpt.ranges import Range, at_least, check_ranges

# Ranges of the fields.
RANGES: Mapping[str, Range] = {
    "tokens": at_least(1),
    "probe_tokens": at_least(1),
    "contrast": Range(low=-1000, high=1000),
    "epsilon": at_least(0),
    "epsilon_tokens": Range(high=1),
    **dict.fromkeys(("layers", "intermediate_size", "kv_groups", "vocab_size", "experts"), at_least(1)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """Settings of how the units to keep are chosen.

    Attributes:
        tokens: tokens of calibration text for the activation statistics.
        probe_tokens: tokens of calibration text for the repair of each probe; the cost of a probe is measured on dev
            text of four times as many bytes.
        sensitivity: "table" takes the shipped costs where the parent has some, "measure" always measures, "auto"
            measures on an accelerator, where it takes seconds.
        protect_ends: keep searches by loss away from the first and the last layer.
        healing: how much training follows ("short", "long", "thorough"); neurons and layers heal far better than a
            vocabulary does.
        contrast: weight of importance for general text against importance for the domain (method `contextual`).
        epsilon: threshold of the paper form of `mini-gpt` on mean magnitudes; null takes the one that reaches the size.
        epsilon_tokens: threshold of the paper form of `mini-gpt` on a token's share of the text; below 0 means none.
        layers: number of layers to keep, instead of a planned one.
        intermediate_size: FFN width to keep, instead of a planned one.
        kv_groups: KV groups to keep in each layer, instead of a planned number.
        vocab_size: tokens to keep, instead of a planned number.
        experts: experts to keep in each layer, instead of a planned number.
    """

    tokens: int = 65536
    probe_tokens: int = 16384
    sensitivity: Literal["auto", "table", "measure"] = "auto"
    protect_ends: bool = True
    healing: Healing = "thorough"
    contrast: float = 0.0
    epsilon: float | None = None
    epsilon_tokens: float = 0.0
    layers: int | None = None
    intermediate_size: int | None = None
    kv_groups: int | None = None
    vocab_size: int | None = None
    experts: int | None = None

    def __post_init__(self) -> None:
        check_ranges(self, RANGES, named="plan.{}")
