"""Rounds that remove single weights of language models: Wanda's scores after each training, and a longer last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minigpt.tickets.language import Lesson, put
from minigpt.tickets.masks import Masks, Pattern
from minigpt.tickets.oneshot import prune_in_one_shot
from minigpt.tickets.rounds import Prune, Train, Trained, Weights
from minigpt.transformer.batches import Batch


def with_last(lesson: Lesson, rounds: int, steps: int) -> Train:
    """Return the training of all rounds, of which the last has its own number of steps.

    Rounds before it only say what to remove next; the last one makes the ticket.

    Args:
        lesson: the training of the other rounds.
        rounds: number of prunings; the training after the last one is the longer one.
        steps: its steps.
    """
    last = replace(lesson, recipe=replace(lesson.recipe, steps=steps))

    def train_round(weights: Weights, masks: Masks, number: int, checkpoint: Path | None = None) -> Trained:
        return (last if number == rounds else lesson)(weights, masks, number, checkpoint)

    return train_round


def by_wanda(model: Any, batches: Callable[[], Sequence[Batch]], pattern: Pattern) -> Prune:
    """Return the pruning of a round by Wanda's scores (Sun et al. 2023, arXiv 2306.11695) of the trained model.

    Weights that are gone are zero, so that they score zero and stay gone.

    Args:
        model: the model that rounds train; it gets the weights of the round, and loses those that go.
        batches: returns the calibration text.
        pattern: `layer`, or N:M, of which a round leaves one weight of each group fewer.
    """

    def prune(weights: Weights, masks: Masks, level: float) -> Masks:
        group = pattern.group
        rule = pattern if group is None else Pattern(f"{round(level * group[1])}:{group[1]}")
        left = prune_in_one_shot(put(model, weights), batches(), "wanda", level, rule)
        return {name: masks[name] & mask.cpu() for name, mask in left.items()}

    return prune
