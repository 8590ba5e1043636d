"""When memory runs out, batches are split: the results are those of whole batches, and one note tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from minigpt.cli.failures import describe
from minigpt.errors import is_out_of_memory
from minigpt.evaluation.lm import Row, likeliest_tokens, log_probabilities
from minigpt.healing import bits_per_byte, train
from minigpt.transformer import stats
from minigpt.transformer.arch import base_model
from minigpt.transformer.portions import Portions, in_smaller_batches
from tests.support.archsuite import model_of, random_batch
from tests.support.healing import VOCABULARY, Notes, patterned, recipe
from tests.support.tiny import tiny_model

TEXT, DEV = patterned(40), patterned(12, seed=1)


def out_of_memory(kind: str) -> BaseException:
    """The error that a library raises when memory runs out."""
    errors = {"numpy": MemoryError("Unable to allocate"), "gpu": torch.OutOfMemoryError("CUDA out of memory")}
    if kind in errors:
        return errors[kind]
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**14)
    return caught.value


@contextmanager
def room_for(model: Any, rows: int, kind: str = "cpu") -> Iterator[list[int]]:
    """Let a model read so many rows at once; yield how many it has read at a time."""
    seen: list[int] = []

    def check(_module: Any, _args: Any, named: Any) -> None:
        if len(named["input_ids"]) > rows:
            raise out_of_memory(kind)
        seen.append(len(named["input_ids"]))

    handle = base_model(model).register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", ["cpu", "numpy", "gpu"])
def test_the_errors_of_all_libraries_are_known_and_described(kind: str) -> None:
    error = out_of_memory(kind)
    assert is_out_of_memory(error)
    assert isinstance(error, Exception) and describe(error).startswith("Not enough memory.")
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_portions_double_and_stay_and_every_row_is_in_one_of_them() -> None:
    notes = Notes()
    portions = Portions("Work", notes)

    def work(parts: Any) -> list[int]:
        if any(part.stop - part.start > 3 for part in parts):
            raise MemoryError
        return [row for part in parts for row in range(part.start, part.stop)]

    assert portions.run(13, work) == list(range(13))
    assert portions.parts == 8 and portions.run(20, work) == list(range(20)) and portions.run(1, work) == [0]
    assert notes.notes == ["Work: memory ran out, so that batches are split; it takes longer."]


def test_a_row_that_does_not_fit_and_other_errors_are_raised() -> None:
    def too_large(_parts: Any) -> None:
        raise MemoryError("too large")

    def broken(_parts: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(MemoryError, match="too large"):
        Portions("Work").run(5, too_large)
    with pytest.raises(RuntimeError, match="shapes"):
        Portions("Work").run(5, broken)


def test_statistics_are_those_of_whole_batches() -> None:
    model, batch, notes = model_of("llama"), random_batch(), Notes()
    whole = stats.collect(model, [batch, batch])
    with room_for(model, 1) as seen:
        split = stats.collect(model, [batch, batch], reporter=notes)
    assert max(seen) == 1 and len(notes.notes) == 1
    assert (split.tokens, split.segments) == (whole.tokens, whole.segments)
    for name in ("ffn_sq", "head_abs", "layer_cos", "angular"):
        torch.testing.assert_close(getattr(split, name), getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_a_pass_that_fits_reads_the_batches_that_it_was_given() -> None:
    batches = [random_batch()]
    assert in_smaller_batches(lambda _model, given, reporter: given)(None, iter(batches)) == batches


def test_scores_are_those_of_whole_batches() -> None:
    model, notes = tiny_model(vocab_size=VOCABULARY), Notes()
    rows = [
        Row(tokens=window[:-1], where=range(len(window) - 1), targets=window[1:], owners=[number] * (len(window) - 1))
        for number, window in enumerate(TEXT.windows)
    ]
    options: dict[str, Any] = {"batch_tokens": 200, "title": "Text"}
    sums, likeliest = log_probabilities(model, rows, len(rows), **options), likeliest_tokens(model, rows, **options)
    with room_for(model, 2) as seen:
        np.testing.assert_allclose(
            log_probabilities(model, rows, len(rows), reporter=notes, **options), sums, rtol=1e-5
        )
        assert likeliest_tokens(model, rows, **options) == likeliest
        assert bits_per_byte(model, DEV) == pytest.approx(bits_per_byte(tiny_model(vocab_size=VOCABULARY), DEV))
    assert max(seen) == 2 and len(notes.notes) == 1


def test_training_takes_the_steps_of_whole_batches() -> None:
    settings = recipe(steps=4, average=0.0)
    whole, split, notes = tiny_model(vocab_size=VOCABULARY), tiny_model(vocab_size=VOCABULARY), Notes()
    expected = train(whole, TEXT, DEV, settings)
    with room_for(split, 2) as seen:
        result = train(split, TEXT, DEV, settings, reporter=notes)
    assert max(seen) == 2
    story = "memory ran out, so that batches are split; it takes longer."
    assert notes.notes == [f"Dev text: {story}", f"Healing: {story}"], "each kind of work learns it once"
    assert result.tokens == expected.tokens
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], value, rtol=1e-3, atol=1e-5)
