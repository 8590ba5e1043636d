"""Teaching across vocabularies: the same model under other numbers teaches nothing, and only what both can say."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch

from minigpt.healing import Teacher, TokenText, train
from minigpt.healing.data import pad
from minigpt.pruning.vocab import TrimmedTokenizer, encode_parent_ids, keep_tokens, trim_model, trim_tokenizer
from minigpt.transformer.logits import logits_at
from tests.support.healing import VOCABULARY, patterned, recipe
from tests.support.tiny import FAMILIES, SENTENCES, tiny_model, tiny_tokenizer


def token_text(tokenizer: Any) -> TokenText:
    windows = tuple((tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)) for text in SENTENCES)
    return TokenText(windows=windows, bytes=sum(len(text.encode()) for text in SENTENCES))


def child_of(parent: Any, size: int = 384) -> tuple[TrimmedTokenizer, Any]:
    tokenizer = tiny_tokenizer()
    counts = Counter(token for text in SENTENCES for token in tokenizer.encode(text))
    trimmed = trim_tokenizer(tokenizer, keep_tokens(tokenizer, counts, size))
    return trimmed, trim_model(deepcopy(parent), trimmed)


def text_by(teacher: Teacher, trimmed: TrimmedTokenizer, count: int = 8, length: int = 24) -> TokenText:
    """Return text that the teacher writes greedily, in the student's tokens; a student close to it predicts it well."""
    ids = torch.tensor([[1, 10 + place] for place in range(count)])
    while ids.shape[1] < length:
        last = torch.arange(count) * ids.shape[1] + ids.shape[1] - 1
        ids = torch.cat([ids, teacher.logits(ids, last).argmax(-1, keepdim=True)], dim=1)
    windows = tuple(tuple(row) for row in ids.tolist())
    return TokenText(windows=windows, bytes=sum(len(trimmed.tokenizer.decode(row).encode()) for row in windows))


def divergence(student: Any, teacher: Teacher, text: TokenText) -> float:
    batch = pad(text.windows)
    with torch.no_grad():
        student_log_p = logits_at(student, batch.places, input_ids=batch.ids).log_softmax(-1)
        teacher_log_p = teacher.logits(batch.ids, batch.places).log_softmax(-1)
        return float(torch.nn.functional.kl_div(student_log_p, teacher_log_p, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_parent_whose_tokens_are_renumbered_teaches_itself_nothing(family: str) -> None:
    """The student has every token of the parent in another order: before training the divergence is zero."""
    parent = tiny_model(family, vocab_size=VOCABULARY)
    order = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(3))
    student = deepcopy(parent)
    with torch.no_grad():
        student.get_input_embeddings().weight.copy_(parent.get_input_embeddings().weight[order])
        student.get_output_embeddings().weight.copy_(parent.get_output_embeddings().weight[order])
    old_to_new = order.argsort()
    text = patterned(6)
    renumbered = TokenText(
        windows=tuple(tuple(old_to_new[list(window)].tolist()) for window in text.windows), bytes=text.bytes
    )
    assert divergence(student, Teacher(model=parent, parent_ids=order), renumbered) == pytest.approx(0, abs=1e-6)
    assert divergence(student, Teacher(model=parent), renumbered) > 0.1


def test_a_trimmed_student_and_its_parent_agree_before_training() -> None:
    """The student's logits are the parent's, restricted to kept tokens: nothing to learn yet."""
    parent = tiny_model()
    trimmed, student = child_of(parent)
    teacher = Teacher(model=parent, parent_ids=torch.tensor(trimmed.old_ids))
    text = token_text(trimmed.tokenizer)
    assert teacher.readable_part(text) == text
    assert divergence(student, teacher, text) == pytest.approx(0, abs=1e-6)


def test_distillation_brings_a_damaged_student_back() -> None:
    """Only the teacher is heard (distill 1), and the student comes nearer to it on text it did not see."""
    parent = tiny_model(seed=1)
    trimmed, student = child_of(parent)
    with torch.no_grad():
        for layer in student.model.layers:
            layer.mlp.down_proj.weight.mul_(0.3)
    teacher = Teacher(model=parent, parent_ids=torch.tensor(trimmed.old_ids))
    text = token_text(trimmed.tokenizer)
    before = divergence(student, teacher, text)
    frozen = {name: value.clone() for name, value in parent.state_dict().items()}
    settings = recipe(distill=1.0, steps=20, tokens_per_step=256, evaluate_every=20, average=0.0)
    result = train(student, text, text_by(teacher, trimmed), settings, teacher=teacher)
    assert "all weights, KL to the teacher, " in result.recipe
    assert result.best_step == 20
    assert divergence(student, teacher, text) < 0.8 * before
    assert all(torch.equal(value, frozen[name]) for name, value in parent.state_dict().items())
    assert all(parameter.grad is None for parameter in parent.parameters())


def test_windows_the_teacher_cannot_read_are_left_out() -> None:
    text = TokenText(windows=((1, 2, 3), (1, 5), (1, 4, 4)), bytes=10)
    teacher = Teacher(model=None, parent_ids=torch.tensor([0, 1, 2, -1, 4, 5]))
    assert teacher.readable_part(text).windows == ((1, 5), (1, 4, 4))
    assert Teacher(model=None).readable_part(text) is text
    assert Teacher(model=None, parent_ids=torch.arange(6)).readable_part(text) is text


def test_a_teacher_is_asked_in_its_own_numbers() -> None:
    """Its answer at kept columns is what it says to the parent's ids; a token it lacks gets no probability."""
    parent = tiny_model()
    trimmed, student = child_of(parent)
    ids = torch.tensor([*trimmed.old_ids, *[-1] * 3])
    text = token_text(trimmed.tokenizer)
    batch = pad(text.windows)
    answer = Teacher(model=parent, parent_ids=ids).logits(batch.ids, batch.places)
    assert answer.shape == (text.tokens, len(trimmed.old_ids) + 3)
    row = 0
    for window in text.windows:
        with torch.no_grad():
            parent_logits = parent(torch.tensor([encode_parent_ids(trimmed, window)])).logits[0, :-1]
        expected = parent_logits[:, list(trimmed.old_ids)]
        torch.testing.assert_close(answer[row : row + len(window) - 1, :-3], expected, rtol=1e-4, atol=1e-4)
        row += len(window) - 1
    assert float(answer.softmax(-1)[:, -3:].max()) == 0.0
    assert student.get_output_embeddings().weight.shape[0] == len(trimmed.old_ids)
