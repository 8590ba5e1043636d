"""Rounds of single weights: the length of their trainings, early birds, and scores that know the inputs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.tickets.language import Lesson, put, take
from minigpt.tickets.masks import Masks, Pattern, full, prunable, weights_of
from minigpt.tickets.oneshot import prune_in_one_shot
from minigpt.tickets.overlap import mask_distance
from minigpt.tickets.rounds import Schedule, Ticket, Trained, even_levels, load_masks, run_rounds
from minigpt.tickets.weight_rounds import by_inputs, inputs_are_known, settling, with_last
from tests.support.archsuite import random_batch
from tests.support.healing import VOCABULARY, patterned, recipe
from tests.support.tiny import tiny_model

LEVELS = even_levels(0.3, 2)


def lesson(**changes: Any) -> Lesson:
    model = tiny_model(vocab_size=VOCABULARY, layers=2)
    return Lesson(model=model, text=patterned(80), dev=patterned(12, seed=1), recipe=recipe(**changes))


def rounds(folder: Path, school: Lesson, train: Any, pattern: str = "layer", prune: Any = None) -> Ticket:
    names, plan = prunable(school.model), Schedule(levels=LEVELS, pattern=pattern, rewinding="rate")
    if Pattern(pattern).group is not None:
        plan = Schedule(levels=(0.75, 0.5), pattern=pattern, rewinding="rate")
    return run_rounds(folder, take(school.model), names, train, plan, key="k", prune=prune)


def steps_of(ticket: Ticket) -> list[float]:
    return [record.facts["steps"] for record in ticket.records]


def test_the_last_training_has_its_own_length(tmp_path: Path) -> None:
    school = lesson(steps=3)
    assert steps_of(rounds(tmp_path, school, with_last(school, 2, 7))) == [3, 3, 7]


def test_a_round_ends_once_its_mask_has_settled_and_the_last_one_never_does(tmp_path: Path) -> None:
    school = lesson(steps=9)
    early = rounds(tmp_path / "a", school, with_last(school, 2, 11, watch=settling(LEVELS, Pattern("layer"), 0.9)))
    assert steps_of(early) == [7, 7, 11]  # a look at every step behind the two of warm-up, and five masks are compared
    school = lesson(steps=9)
    never = rounds(tmp_path / "b", school, with_last(school, 2, 11, watch=settling(LEVELS, Pattern("layer"), 1e-9)))
    assert steps_of(never) == [9, 9, 11]


def test_a_settled_mask_is_one_that_no_longer_changes() -> None:
    model = tiny_model(layers=2)
    masks = full(weights_of(model, prunable(model)))
    has_emerged = settling((0.5,), Pattern("layer"), 0.01)(0, masks)
    assert [has_emerged(model) for _ in range(5)] == [False] * 4 + [True]
    with torch.no_grad():
        for weight in weights_of(model, prunable(model)).values():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)))
    assert not has_emerged(model)


def test_inputs_of_transposed_matrices_and_experts_are_not_known() -> None:
    for family in ("llama", "opt", "phi3"):
        model = tiny_model(family, layers=2)
        assert inputs_are_known(model, prunable(model)), family
    for family in ("gpt2", "mixtral", "qwen3_moe"):
        model = tiny_model(family, layers=2)
        assert not inputs_are_known(model, prunable(model)), family


@pytest.mark.parametrize("score", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["layer", "2:4"])
def test_rounds_take_from_what_is_left_and_go_by_inputs(tmp_path: Path, pattern: str, score: str) -> None:
    school, batch = lesson(steps=2), random_batch(vocab=VOCABULARY)
    prune = by_inputs(school.model, lambda: [batch], Pattern(pattern), score)
    ticket = rounds(tmp_path, school, with_last(school, 2, 2), pattern, prune)
    masks = [load_masks(tmp_path / f"round-{number:02d}" / "masks.safetensors") for number in range(3)]
    for earlier, later in pairwise(masks):
        assert all(not (later[name] & ~earlier[name]).any() for name in later)
    level = 0.5 if pattern == "2:4" else 0.3
    for name, mask in ticket.masks.items():
        counts = mask.sum(1)
        assert int(mask.sum()) == pytest.approx(level * mask.numel(), rel=0.05), name
        assert score == "sparsegpt" or int(counts.max()) - int(counts.min()) <= 1, name
        if pattern == "2:4":
            assert bool((mask.view(mask.shape[0], -1, 4).sum(2) <= 2).all())
        assert not ticket.weights[name][~mask].any()
    school = lesson(steps=2)
    other = rounds(tmp_path / "magnitude", school, with_last(school, 2, 2), pattern)
    assert mask_distance(ticket.masks, other.masks) > 0.1


@pytest.mark.parametrize("rewinding", ["rate", "weights"])
def test_sparsegpt_moves_the_weights_that_the_next_training_starts_from(tmp_path: Path, rewinding: Any) -> None:
    """One round without training is SparseGPT in one shot; where weights are rewound, only its mask counts."""
    school, batch = lesson(steps=2), random_batch(vocab=VOCABULARY)
    start, names, seen = take(school.model), prunable(school.model), []

    def note(weights: Any, masks: Masks, number: int, checkpoint: Path) -> Trained:
        seen.append({name: value.clone() for name, value in weights.items()})
        return Trained(weights=weights)

    prune = by_inputs(school.model, lambda: [batch], Pattern("layer"), "sparsegpt")
    plan = Schedule(levels=(0.5,), pattern="layer", rewinding=rewinding)
    ticket = run_rounds(tmp_path, start, names, note, plan, key="k", prune=prune)
    put(school.model, start)
    masks = prune_in_one_shot(school.model, [batch], "sparsegpt", 0.5, Pattern("layer"))
    moved, name = take(school.model), names[0]
    assert all(torch.equal(ticket.masks[name], masks[name]) for name in names)
    expected = moved if rewinding == "rate" else {name: start[name] * masks[name] for name in names}
    assert all(torch.equal(seen[1][name], expected[name]) for name in names)
    assert not torch.equal(moved[name], start[name] * masks[name])
