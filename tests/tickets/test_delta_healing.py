from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.healing import TokenText
from minigpt.healing.answers import likeliest
from minigpt.healing.data import pad_pieces, pieces_of
from minigpt.healing.stored import StoredTeacher
from minigpt.tickets.delta import Change, parameters_of
from minigpt.tickets.delta_healing import (
    TOP,
    Lesson,
    changed_by_any,
    equal_shares,
    heal_merged,
    healing_recipe,
    joined_text,
    store_lessons,
)
from minigpt.tickets.language import put
from minigpt.transformer.logits import logits_at
from tests.support.tiny import tiny_model as tiny

WINDOWS = tuple(tuple((7 * row + step) % 50 + 1 for step in range(12 + row % 5)) for row in range(24))


def text_of(windows: Any) -> TokenText:
    return TokenText(windows=tuple(windows), bytes=100)


def shifted(model: Any, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in parameters_of(model).items()
    }


def test_domains_train_with_equal_shares_and_without_windows_too_short_to_train_on() -> None:
    long, short = text_of([(1, 2), *WINDOWS]), text_of(WINDOWS[:5])
    shares = equal_shares([long, short])
    assert shares[1] == short
    assert shares[0].windows == WINDOWS[: len(shares[0].windows)]
    assert 0 <= shares[0].tokens - short.tokens < 16
    assert joined_text(shares).windows == shares[0].windows + shares[1].windows


def test_the_mask_is_what_any_ticket_changes() -> None:
    parent = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    values = torch.ones(2)
    tickets = [
        {"a": Change(positions=torch.tensor([0, 5]), values=values)},
        {"a": Change(positions=torch.tensor([4, 5]), values=values)},
    ]
    mask = changed_by_any(tickets, parent)
    assert mask.keys() == {"a"}
    assert mask["a"].tolist() == [[True, False, False], [False, True, True]]


def test_each_ticket_answers_its_own_text(tmp_path: Path) -> None:
    model = tiny("llama")
    weights = [shifted(model, seed) for seed in (0, 1)]
    texts = [text_of(WINDOWS[:10]), text_of(WINDOWS[10:])]
    lessons = [
        Lesson(text=text, dev=text, weights=partial(dict, own)) for text, own in zip(texts, weights, strict=True)
    ]
    recipe = replace(healing_recipe(3), precision="fp32")
    teacher = store_lessons(lessons, model, recipe, tmp_path, key="k")
    for piece in pieces_of(joined_text(texts).windows):
        batch = pad_pieces([piece])
        put(model, weights[0 if piece.ids in WINDOWS[:10] else 1])
        with torch.no_grad():
            expected = likeliest(logits_at(model, batch.places, input_ids=batch.ids), TOP)
        answers = teacher.answers(batch)
        assert torch.equal(answers.tokens[:, 0], expected.tokens[:, 0])
        torch.testing.assert_close(answers.logs, expected.logs, atol=1e-2, rtol=1e-2)


def test_healing_moves_only_the_mask_and_lowers_the_loss(tmp_path: Path) -> None:
    model = tiny("llama")
    before = {name: tensor.clone() for name, tensor in parameters_of(model).items()}
    mask = {name: torch.rand(tensor.shape) < 0.3 for name, tensor in before.items() if tensor.ndim == 2}
    weights = [{name: tensor.clone() for name, tensor in before.items()} for _ in range(2)]
    texts = [text_of(WINDOWS[:10]), text_of(WINDOWS[10:])]
    lessons = [
        Lesson(text=text, dev=text, weights=partial(dict, own)) for text, own in zip(texts, weights, strict=True)
    ]
    recipe = healing_recipe(8, 0.01)
    teacher = store_lessons(lessons, tiny("llama"), recipe, tmp_path, key="k")
    damaged = {name: torch.where(mask[name], tensor * 3, tensor) if name in mask else tensor
               for name, tensor in before.items()}  # fmt: skip
    put(model, damaged)
    training = heal_merged(model, mask, lessons, recipe, teacher)
    losses = [loss for _, loss in training.dev_losses]
    assert min(losses) < losses[0]
    after = parameters_of(model)
    assert any(not torch.equal(after[name], damaged[name]) for name in mask)
    for name, tensor in after.items():
        free = mask.get(name, torch.zeros_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor[~free], before[name][~free])


def test_answers_of_other_tickets_are_not_taken(tmp_path: Path) -> None:
    model = tiny("llama")
    text = text_of(WINDOWS)
    lessons = [Lesson(text=text, dev=text, weights=partial(shifted, model, 0))]
    first = store_lessons(lessons, model, healing_recipe(2), tmp_path, key="k")
    other = store_lessons(lessons, model, healing_recipe(2), tmp_path, key="l")
    assert first.key != other.key
    with pytest.raises(MiniGPTError, match="no answers"):
        StoredTeacher(tmp_path, first.key)
