"""Settings of how a model's feed-forward layers become conditional."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.ranges import above, at_least, check_ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalSettings:
    """Settings of the conversion to conditional layers, and of the healing after it.

    Attributes:
        visited: share of a layer's neurons that a token visits, above 0 and at most 1; a smaller share is faster and
            loses more.
        depth: decisions on a path of trees and of leaves, 0 to 20; more decisions make more neurons to choose from and
            a larger file. Null takes as many as give about the neurons of the dense layer.
        l1: weight of the mean size of the values in the loss of `relu`, 0 or more; a larger weight leaves fewer
            neurons that count.
        hardening: weight of the decisions' entropy in the loss of `fff`, 0 or more; a larger weight makes decisions
            firm sooner.
        tokens: tokens of calibration text on which layers are converted, 64 or more.
        distill_steps: steps in which each layer learns the outputs of the dense one, 0 or more.
        distill_tokens: tokens of such a step, 1 or more.
        distill_rate: highest learning rate of these steps, above 0.
        probe_bytes: bytes of dev text on which the loss of each layer is measured, 100 or more.
        max_loss: what the replaced layers together may cost on dev text before healing, as a multiple of the dense
            model's bits per byte, 1 or more; layers that cost the most for each microsecond that they save stay dense.
        steps: steps of healing end to end with the dense model as the teacher, 0 or more.
        learning_rate: highest learning rate of this healing, above 0.

    Raises:
        ConfigError: a value is outside its range.
    """

    visited: float = 0.5
    depth: int | None = None
    l1: float = 0.05
    hardening: float = 0.0
    tokens: int = 32768
    distill_steps: int = 300
    distill_tokens: int = 2048
    distill_rate: float = 5e-4
    probe_bytes: int = 64_000
    max_loss: float = 1.1
    steps: int = 600
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        ranges = {
            "visited": above(0, 1),
            "depth": at_least(0, 20),
            "l1": at_least(0),
            "hardening": at_least(0),
            "tokens": at_least(64),
            "distill_steps": at_least(0),
            "distill_tokens": at_least(1),
            "distill_rate": above(0),
            "probe_bytes": at_least(100),
            "max_loss": at_least(1),
            "steps": at_least(0),
            "learning_rate": above(0),
        }
        check_ranges(self, ranges, named="conditional.{}")
