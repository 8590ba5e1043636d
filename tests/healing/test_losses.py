"""The gradient of healing against written-out losses, the moving average, and the recipe's checks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from minigpt.errors import ConfigError
from minigpt.healing import Recipe
from minigpt.healing.average import Average
from minigpt.healing.losses import ROWS_PER_PART, healing_gradient
from minigpt.healing.run import schedule
from minigpt.healing.teacher import restricted_head


def kl_by_hand(student: list[float], teacher: list[float], temperature: float) -> float:
    """Sum of q ln(q / p) over one row, in Python floats."""
    p, q = (softmax([value / temperature for value in row]) for row in (student, teacher))
    return sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 11, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(11, (5,), generator=generator)


def by_hand(
    student: list[list[float]], teacher: list[list[float]], labels: list[int], distill: float, temperature: float
) -> float:
    """Return the mean loss of the rows, in Python floats."""
    rows = zip(student, teacher, labels, strict=True)
    losses = [
        distill * temperature**2 * kl_by_hand(student_row, teacher_row, temperature)
        - (1 - distill) * math.log(softmax(student_row)[label])
        for student_row, teacher_row, label in rows
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("distill", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_gradient_is_the_slope_of_the_written_out_loss(drawn: Any, distill: float, temperature: float) -> None:
    """Against central differences of the loss in double precision, one logit after the other."""
    student, teacher, labels = (tensor.tolist() for tensor in drawn)
    gradient = healing_gradient(*(drawn[index] for index in (0, 2, 1)), distill, temperature)
    for row, column in ((0, 0), (1, 7), (3, labels[3]), (4, 10)):
        losses = []
        for step in (1e-4, -1e-4):
            moved = [list(values) for values in student]
            moved[row][column] += step
            losses.append(by_hand(moved, teacher, labels, distill, temperature))
        assert float(gradient[row, column]) == pytest.approx((losses[0] - losses[1]) / 2e-4, rel=1e-3, abs=1e-6)


def test_equal_logits_teach_nothing(drawn: Any) -> None:
    student, _, labels = drawn
    assert float(healing_gradient(student, labels, student + 3.0, 1.0, 1.0).abs().max()) < 1e-7


@pytest.mark.parametrize("distill", [0.0, 0.3, 1.0])
def test_the_gradient_is_that_of_the_mixture(drawn: Any, distill: float) -> None:
    """(p - (distill q + (1 - distill) onehot)) / n at temperature 1."""
    student, teacher, labels = drawn
    onehot = torch.nn.functional.one_hot(labels, 11).float()
    expected = (student.softmax(-1) - distill * teacher.softmax(-1) - (1 - distill) * onehot) / len(labels)
    torch.testing.assert_close(healing_gradient(student, labels, teacher, distill, 1.0), expected)


def test_no_teacher_means_cross_entropy(drawn: Any) -> None:
    student, _, labels = drawn
    logits = student.clone().requires_grad_()
    torch.nn.functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(healing_gradient(student, labels, None, 0.7, 2.0), logits.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("distill", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_rows_in_parts_and_with_weights_are_those_autograd_finds(
    distill: float, temperature: float, dtype: torch.dtype
) -> None:
    """More rows than one part holds, a third of them left out; in bf16 only what is returned is rounded."""
    generator = torch.Generator().manual_seed(7)
    rows = 2 * ROWS_PER_PART + 17
    student, teacher = (torch.randn(rows, 13, generator=generator).to(dtype) for _ in range(2))
    labels = torch.randint(13, (rows,), generator=generator)
    weights = (torch.arange(rows) % 3 > 0).float()
    before, plain = student.clone(), student.float().requires_grad_()
    gradient = healing_gradient(student, labels, teacher, distill, temperature, weights=weights)
    functional = torch.nn.functional
    divergence = functional.kl_div(
        (plain / temperature).log_softmax(-1),
        (teacher.float() / temperature).log_softmax(-1),
        log_target=True,
        reduction="none",
    ).sum(-1)
    cross_entropy = functional.cross_entropy(plain, labels, reduction="none")
    mixed = distill * temperature**2 * divergence + (1 - distill) * cross_entropy
    ((mixed * weights).sum() / weights.sum()).backward()
    assert plain.grad is not None and gradient.dtype == dtype and torch.equal(student, before)
    torch.testing.assert_close(
        gradient.float(), plain.grad.to(dtype).float(), rtol=1e-2 if dtype != torch.float32 else 1e-4, atol=1e-7
    )
    assert not gradient[weights == 0].any()


def test_a_restricted_head_picks_rows_and_silences_unknown_tokens() -> None:
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(4, 11), torch.randn(5, 4)
    before = head(hidden)
    picked = restricted_head(head, torch.tensor([4, -1, 0, 10]))(hidden)
    torch.testing.assert_close(picked[:, [0, 2, 3]], before[:, [4, 0, 10]])
    probabilities = picked.softmax(-1)
    assert torch.equal(probabilities[:, 1], torch.zeros(5))
    renormalized = before.softmax(-1)[:, [4, 0, 10]]
    torch.testing.assert_close(probabilities[:, [0, 2, 3]], renormalized / renormalized.sum(-1, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_the_teacher_lacks_adds_nothing_infinite(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 11, bias=False).to(dtype)
    taught = restricted_head(head, torch.tensor([*range(10), -1]))(torch.randn(5, 4, dtype=dtype))
    gradient = healing_gradient(torch.randn(5, 11, dtype=dtype), torch.zeros(5, dtype=torch.long), taught, 1.0, 1.0)
    assert torch.isfinite(gradient).all() and (gradient[:, 10] > 0).all(), "what the teacher never says is unlearnt"


def test_the_average_has_its_closed_form() -> None:
    """After n updates the value is the product of all decays times the start plus what each update left."""
    values = [3.0, -1.0, 4.0, 1.5, -5.0, 9.0]
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    average = Average([parameter], 0.3)
    for value in values:
        parameter.data.fill_(value)
        average.update()
    decays = [min(0.3, (1 + n) / (10 + n)) for n in range(1, len(values) + 1)]
    assert decays[0] < 0.3 == decays[-1]
    weights = [(1 - decay) * math.prod(decays[place + 1 :]) for place, decay in enumerate(decays)]
    expected = math.prod(decays) * 2.0 + sum(a * b for a, b in zip(weights, values, strict=True))
    with average.applied():
        assert parameter.item() == pytest.approx(expected, rel=1e-6)
    assert float(parameter) == values[-1]


def test_the_average_lets_go_when_the_block_fails() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    average = Average([parameter], 0.9)
    parameter.data.fill_(7.0)
    with pytest.raises(ZeroDivisionError), average.applied():
        assert float(parameter) == 1.0
        raise ZeroDivisionError
    assert float(parameter) == 7.0
    average.update()
    assert float(average.values[0]) == pytest.approx(1 + (1 - 2 / 11) * 6)


def test_no_average_is_the_parameter_itself() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    average = Average([parameter], 0.0)
    average.update()
    parameter.data.fill_(5.0)
    with average.applied():
        assert float(parameter) == 5.0


def test_the_schedule_warms_up_and_ends_at_its_final_fraction() -> None:
    recipe = Recipe(steps=110, warmup=10, final=0.1)
    rates = [schedule(step, recipe) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    "wrong",
    [{"distill": 1.5}, {"steps": -1}, {"evaluate_every": 0}, {"average": 1.0}, {"temperature": 0.0}, {"window": 1}],
)
def test_a_recipe_outside_its_ranges_is_refused_in_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))} of a training recipe must be .*\\.$"):
        Recipe(**wrong)


def test_a_recipe_describes_itself() -> None:
    recipe = Recipe(distill=0.7, learning_rate=4e-4, tokens_per_step=1024)
    assert recipe.describe() == (
        "all weights, 0.7 KL to the teacher + 0.3 cross-entropy, AdamW 0.0004 cosine, 1024 tokens a step"
    )
    assert Recipe(adapter="lora", rank=4).at(1e-3).describe().startswith("LoRA rank 4, cross-entropy, AdamW 0.001")
