"""Answers in short: exact where all tokens are kept, one bucket for the rest, the gradient of the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minigpt.healing.answers import Answers, joined, likeliest
from minigpt.healing.losses import healing_gradient
from minigpt.healing.planes import Layout, pack, unpack

ROWS, VOCAB = 7, 40


def logits(seed: int, vocab: int = VOCAB) -> Tensor:
    return 3 * torch.randn(ROWS, vocab, generator=torch.Generator().manual_seed(seed))


def divergence(student: Tensor, answers: Answers, temperature: float) -> Tensor:
    """The formula of the module, softened and scaled back, as the mean over the rows."""
    logs = torch.log_softmax(student / temperature, dim=-1)
    q, r = answers.logs.exp(), answers.rest.exp()
    inside = (q * (answers.logs - logs.gather(-1, answers.tokens))).sum(-1)
    rest = logs.scatter(-1, answers.tokens, -torch.inf).logsumexp(-1)
    outside = torch.where(r > 0, r * (answers.rest - rest), 0.0)
    return temperature**2 * (inside + outside).mean()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("distill", [1.0, 0.3])
def test_all_tokens_give_the_gradient_of_the_whole_divergence(temperature: float, distill: float) -> None:
    student, teacher, labels = logits(0), logits(1), torch.arange(ROWS)
    expected = healing_gradient(student, labels, teacher, distill, temperature)
    answers = likeliest(teacher, 1000, temperature)
    assert answers.tokens.shape == (ROWS, VOCAB)
    torch.testing.assert_close(healing_gradient(student, labels, answers, distill, temperature), expected)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("count", [1, 5, VOCAB - 1])
def test_the_gradient_is_that_of_the_formula(count: int, temperature: float) -> None:
    student, labels = logits(0).requires_grad_(), torch.arange(ROWS)
    answers = likeliest(logits(1), count, temperature)
    divergence(student, answers, temperature).backward()
    actual = healing_gradient(student.detach(), labels, answers, 1.0, temperature)
    torch.testing.assert_close(actual, student.grad, rtol=1e-4, atol=1e-7)


def test_the_divergence_grows_with_the_tokens_up_to_the_whole_one() -> None:
    student, teacher = logits(0), logits(1)
    whole = torch.nn.functional.kl_div(
        torch.log_softmax(student, -1), torch.log_softmax(teacher, -1), log_target=True, reduction="batchmean"
    )
    values = [float(divergence(student, likeliest(teacher, count), 1.0)) for count in (1, 4, 16, VOCAB)]
    assert values == sorted(values) and values[0] < values[-1]
    assert values[-1] == pytest.approx(float(whole), rel=1e-5)


def test_a_student_that_gives_the_rest_nothing_gets_no_nan() -> None:
    student = torch.full((1, 8), -200.0)
    student[0, 3] = 200.0
    answers = likeliest(torch.tensor([[0.0, 0, 0, 1, 0, 0, 0, 0]]), 1)
    completed = answers.completed(torch.softmax(student, -1))
    assert completed.isfinite().all()


@pytest.mark.parametrize("vocab", [VOCAB, 70_000])
def test_packed_answers_come_back_in_sixteen_bits(vocab: int) -> None:
    answers = likeliest(logits(1, vocab), 9)
    layout = Layout(count=9, vocab=vocab)
    again = unpack(pack(answers, layout), ROWS, layout)
    assert torch.equal(again.tokens, answers.tokens)
    assert torch.equal(again.logs, answers.logs.half().float())
    assert torch.equal(again.rest, answers.rest.half().float())


def test_answers_are_joined_in_order() -> None:
    answers = likeliest(logits(1), 3)
    again = joined([answers[:2], answers[2:]])
    assert torch.equal(again.tokens, answers.tokens) and torch.equal(again.rest, answers.rest)
