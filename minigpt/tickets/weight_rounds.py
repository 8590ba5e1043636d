"""Rounds that remove single weights of language models: by inputs, with a longer last training, or ended early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minigpt.errors import UnsupportedModel
from minigpt.progress import SILENT, Reporter
from minigpt.tickets.language import Lesson, put, take
from minigpt.tickets.masks import Masks, Pattern, keep_best, magnitudes, weights_of
from minigpt.tickets.oneshot import prune_in_one_shot
from minigpt.tickets.overlap import SETTLED, has_settled
from minigpt.tickets.rounds import Prune, Train, Trained, Weights
from minigpt.transformer.batches import Batch
from minigpt.transformer.grams import matrices_by_input

# Looks at a round's mask, where rounds may end early.
LOOKS = 20
Watch = Callable[[Any], bool]


def with_last(lesson: Lesson, rounds: int, steps: int, *, watch: Callable[[int, Masks], Watch] | None = None) -> Train:
    """Return the training of all rounds, of which the last has its own number of steps.

    Rounds before it only say what to remove next; the last one makes the ticket.

    Args:
        lesson: the training of the other rounds.
        rounds: number of prunings; the training after the last one is the longer one.
        steps: its steps.
        watch: what may end a round's training, by its number and masks (None: nothing); the last one runs to its end.
    """
    last = replace(lesson, recipe=replace(lesson.recipe, steps=steps))
    looks = min(lesson.recipe.evaluate_every, max(1, lesson.recipe.steps // LOOKS))

    def train_round(weights: Weights, masks: Masks, number: int, checkpoint: Path | None = None) -> Trained:
        if number == rounds:
            return last(weights, masks, number, checkpoint)
        if watch is None:
            return lesson(weights, masks, number, checkpoint)
        watched = replace(lesson, recipe=replace(lesson.recipe, evaluate_every=looks))
        watched = replace(watched, watch=lambda: watch(number, masks))
        return watched(weights, masks, number, checkpoint)

    return train_round


def settling(levels: Sequence[float], pattern: Pattern, limit: float) -> Callable[[int, Masks], Watch]:
    """Return what ends a round's training once the mask that it will give has settled: an early bird.

    You et al. 2020 (arXiv 1909.11957, section 3.2): the masks that pruning would give at the last evaluations differ
    from the newest by less than a limit. Masks are those of magnitudes, which take no pass over text, whatever score
    prunes. Looks begin behind the warm-up, at whose rates no mask changes, and anew where a run starts over or resumes.

    Args:
        levels: share of the weights that is left after each pruning.
        pattern: where kept weights may lie.
        limit: largest share of the weights on which two masks differ.
    """

    def of_round(number: int, masks: Masks) -> Watch:
        recent: list[Masks] = []

        def has_emerged(model: Any) -> bool:
            scores = magnitudes(weights_of(model, tuple(masks)))
            there = {name: mask.to(scores[name].device) for name, mask in masks.items()}
            newest = keep_best(scores, levels[number], pattern, there)
            recent.append({name: mask.cpu() for name, mask in newest.items()})
            del recent[:-SETTLED]
            return has_settled(recent, limit)

        return has_emerged

    return of_round


def inputs_are_known(model: Any, names: Sequence[str]) -> bool:
    """Say whether the input of each of the matrices can be measured, which Wanda and SparseGPT need.

    Matrices that are stored transposed, and those of experts, are not among them.
    """
    try:
        groups = matrices_by_input(model)
    except UnsupportedModel:
        return False
    modules = dict(model.named_modules())
    return {*names} == {name for group in groups.values() for name in group} and all(name in modules for name in groups)


def by_inputs(
    model: Any, batches: Callable[[], Sequence[Batch]], pattern: Pattern, score: str, *, reporter: Reporter = SILENT
) -> Prune:
    """Return the pruning of a round of the trained model by a score that knows the inputs of the matrices.

    Wanda (Sun et al. 2023, arXiv 2306.11695) changes no weight that is left. SparseGPT (Frantar and Alistarh 2023,
    arXiv 2301.00774) also moves them, so that they make up for those that go; the next training starts from the moved
    weights if only the learning rate is rewound. What an earlier round removed stays removed.

    Args:
        model: the model that rounds train; it gets the weights of the round, and loses those that go.
        batches: returns the calibration text.
        pattern: `layer`, or N:M, of which a round may leave more than N.
        score: `wanda` or `sparsegpt`.
        reporter: told about progress.
    """

    def prune(weights: Weights, masks: Masks, level: float) -> tuple[Weights, Masks]:
        group = pattern.group
        rule = pattern if group is None else Pattern(f"{round(level * group[1])}:{group[1]}")
        left = prune_in_one_shot(put(model, weights), batches(), score, level, rule, there=masks, reporter=reporter)
        moved = weights if score == "wanda" else take(model)
        return moved, {name: mask.cpu() for name, mask in left.items()}

    return prune
