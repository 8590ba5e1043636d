"""The memory of a teacher must give the answers of the teacher itself, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.healing import TokenText, attention, graphs, memory, train
from minigpt.healing.attention import causal_attention
from minigpt.healing.buffers import Buffers
from minigpt.healing.data import epochs, pad
from minigpt.healing.graphs import GraphedSteps, accumulate_gradients
from minigpt.healing.memory import TeacherMemory, build_memory, memory_pays_off
from minigpt.healing.recipe import Recipe
from minigpt.healing.teacher import Teacher
from minigpt.progress import SILENT
from tests.support.packed import by_mask, captured_on_a_cpu
from tests.support.tiny import tiny_model

CPU = torch.device("cpu")
IDS = torch.tensor([5, 9, 2, -1, 30, 31, 32, 33, 40, 50, 60, 63])
WINDOWS = tuple(tuple((3 * place + row) % len(IDS) for place in range(9 + 5 * (row % 4))) for row in range(30))
TEXT = TokenText(windows=((1, 2), *WINDOWS), bytes=1000)


@pytest.fixture(autouse=True)
def packed_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "packed_attention", by_mask)


def memory_of(teacher: Teacher, text: TokenText = TEXT) -> TeacherMemory:
    stored = build_memory(teacher, text, Buffers.empty(100, 32, 12, CPU), SILENT)
    assert stored is not None
    return stored


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("ids", [None, IDS])
def test_a_step_learns_the_same_from_memory_as_from_the_teacher(family: str, ids: torch.Tensor | None) -> None:
    """Over windows with their opening token, in the order of an epoch, of a teacher with other tokens or the same."""
    model, teacher = tiny_model(family), Teacher(model=tiny_model(family, seed=1), parent_ids=ids)
    if ids is not None:
        model.resize_token_embeddings(len(ids))
    recipe, buffers = Recipe(distill=1.0), Buffers.empty(100, 32, 12, CPU)
    with causal_attention(model, teacher.model):
        stored = memory_of(teacher)
        for batch in islice(epochs(TEXT.windows, 100, 0, packed=True), 3):
            buffers.fill(batch)
            grads = []
            for source in (teacher, stored):
                model.zero_grad()
                accumulate_gradients(model, source, buffers, recipe)
                grads.append([parameter.grad.clone() for parameter in model.parameters()])
            for actual, expected in zip(*grads, strict=True):
                assert expected.any()
                torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_every_token_has_its_own_place() -> None:
    """Batches of several sizes fill the memory without a gap: what is kept of each window is what it says alone."""
    teacher = Teacher(model=tiny_model("llama"))
    with causal_attention(teacher.model):
        stored = memory_of(teacher)
    assert stored.states.shape == (sum(map(len, WINDOWS)), teacher.model.config.hidden_size)
    start = 0
    for window in WINDOWS:
        expected = teacher.logits(torch.tensor([window]), torch.arange(len(window)))
        actual = stored.logits(torch.arange(start, start + len(window)))
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
        start += len(window)


def test_a_teacher_that_bends_its_logits_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As families with soft caps do: states and head alone would not give what it says."""
    teacher = Teacher(model=tiny_model("llama"))
    forward = teacher.model.forward

    def capped(*args: Any, **options: Any) -> Any:
        output = forward(*args, **options)
        output.logits = 0.1 * torch.tanh(output.logits / 0.1)
        return output

    monkeypatch.setattr(teacher.model, "forward", capped)
    with causal_attention(teacher.model):
        assert build_memory(teacher, TEXT, Buffers.empty(100, 32, 12, CPU), SILENT) is None


def test_it_pays_where_text_is_read_often_and_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    config, tokens, cuda = SimpleNamespace(hidden_size=64), sum(map(len, WINDOWS)), torch.device("cuda")
    room = {"bytes": 2 * 64 * tokens * memory.MEMORY_SHARE}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=room["bytes"]))
    assert memory_pays_off(TEXT, config, 2 * tokens, cuda)
    assert not memory_pays_off(TEXT, config, 2 * tokens - 1, cuda)
    room["bytes"] -= 1 * memory.MEMORY_SHARE
    assert not memory_pays_off(TEXT, config, 2 * tokens, cuda)


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logit_scale", "logits_scaling"])
def test_a_head_that_is_not_all_there_is_does_not_pay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = SimpleNamespace(total_memory=10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: room)
    for value, expected in ((None, True), (1.0, True), (30.0, False)):
        config = SimpleNamespace(hidden_size=64, **{name: value})
        assert memory_pays_off(TEXT, config, 10**9, torch.device("cuda")) is expected


def run_counting_readings(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, text: TokenText = TEXT) -> tuple[int, Any]:
    """Return how often a whole run on a CPU had its teacher read the text, and the trained model."""
    captured_on_a_cpu(monkeypatch)
    monkeypatch.setattr(graphs, "memory_pays_off", lambda *_: True)
    calls, real = [], memory.build_memory

    def counted(*arguments: Any) -> TeacherMemory | None:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(graphs, "build_memory", counted)
    model, teacher = tiny_model("llama"), Teacher(model=tiny_model("llama", seed=1))
    train(model, text, TEXT, recipe, teacher=teacher)
    return len(calls), model


@pytest.mark.parametrize(("noise", "distill", "readings"), [(0.0, 1.0, 1), (0.1, 1.0, 0), (0.1, 0.5, 1)])
def test_noise_changes_what_the_teacher_reads(
    noise: float, distill: float, readings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So nothing is remembered then; noise is put into text that is not learnt itself, and into no other."""
    recipe = Recipe(steps=2, tokens_per_step=60, window=32, distill=distill, noise=noise)
    assert run_counting_readings(monkeypatch, recipe)[0] == readings


@pytest.mark.parametrize(("tokens", "window"), [(60, 32), (64, 128), (30, 512)])
def test_a_run_learns_the_same_from_memory(tokens: int, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows behind their opening token, in steps that are longer or shorter than the longest window may be."""
    recipe = Recipe(steps=6, tokens_per_step=tokens, window=window, distill=1.0, bare=0.0, warmup=1, evaluate_every=3)
    readings, from_memory = run_counting_readings(monkeypatch, recipe)
    monkeypatch.setattr(graphs, "memory_pays_off", lambda *_: False)
    from_teacher, teacher = tiny_model("llama"), Teacher(model=tiny_model("llama", seed=1))
    before = [parameter.clone() for parameter in from_teacher.parameters()]
    train(from_teacher, TEXT, TEXT, recipe, teacher=teacher)
    assert readings == 1
    for one, other, start in zip(from_memory.parameters(), from_teacher.parameters(), before, strict=True):
        moved = float((other - start).norm())
        assert moved > 0 and float((one - other).norm()) < 0.1 * moved


def test_a_window_shown_bare_is_taught_what_is_said_behind_its_opening_token() -> None:
    teacher = Teacher(model=tiny_model("llama"))
    buffers = Buffers.empty(100, 32, 12, CPU)
    with causal_attention(teacher.model):
        stored = memory_of(teacher)
        batch = next(epochs(TEXT.windows, 100, 0, bare=0.999, packed=True))
        buffers.fill(batch)
        actual = stored.logits(buffers.origins[: int(batch.lengths[0])])
    assert batch.origins is not None
    row = batch.ids[0, : int(batch.lengths[0])].tolist()
    whole = next(window for window in WINDOWS if list(window[1:]) == row)
    expected = teacher.logits(torch.tensor([whole]), torch.arange(1, len(whole)))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_from_elsewhere_is_refused() -> None:
    model, teacher = tiny_model("llama"), Teacher(model=tiny_model("llama", seed=1))
    steps = GraphedSteps(model, teacher, Recipe(tokens_per_step=100, window=32), list(model.parameters()))
    with causal_attention(teacher.model):
        steps.teacher = memory_of(teacher)
    with pytest.raises(ValueError, match="places in the text"):
        steps.gradients(pad(WINDOWS[:2]))


@pytest.mark.gpu
def test_graphs_learn_the_same_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16, with the kernel of the accelerator."""
    monkeypatch.undo()
    model = tiny_model("llama").cuda()
    teacher = Teacher(model=tiny_model("llama", seed=1).cuda().to(torch.bfloat16))
    parameters = list(model.parameters())
    gradients = []
    for often in (1, 1000):
        with causal_attention(model, teacher.model):
            recipe = Recipe(steps=often, distill=1.0, tokens_per_step=100, window=32)
            steps = GraphedSteps(model, teacher, recipe, parameters, compiled=often > 1)
            with causal_attention(steps.twin):
                steps.make_room(TEXT, SILENT)
                steps.memorize_teacher(TEXT)
                assert isinstance(steps.teacher, TeacherMemory if often > 1 else Teacher)
                steps.gradients(next(_batches()))
        gradients.append([parameter.grad.clone() for parameter in parameters])
    for from_memory, from_teacher in zip(*gradients, strict=True):
        assert float((from_memory - from_teacher).norm() / from_teacher.norm()) < 0.1


def _batches() -> Iterator[Any]:
    return epochs(TEXT.windows, 100, 0, packed=True)
