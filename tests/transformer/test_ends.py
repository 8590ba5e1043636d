"""Tokens that end a text: which they are, where training puts one, and that sampling stops at any of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minigpt.transformer import sampling
from minigpt.transformer.ends import configs_in, document_end, end_tokens
from minigpt.transformer.packing import tokenize
from minigpt.types import Document
from tests.support.tiny import tiny_model, tiny_tokenizer

SEPARATOR, OPENING, END = 0, 1, 2


def config(ends: Any) -> Any:
    return SimpleNamespace(eos_token_id=ends)


@pytest.mark.parametrize(
    ("configs", "ends"),
    [
        ((), {SEPARATOR, END}),
        ((config(7),), {SEPARATOR, END, 7}),
        ((config(None), config([7, 9])), {SEPARATOR, END, 7, 9}),
    ],
    ids=["tokenizer", "one", "several"],
)
def test_all_ends_count_the_separator_that_is_only_padding_included(configs: tuple[Any, ...], ends: set[int]) -> None:
    assert end_tokens(tiny_tokenizer(), *configs) == ends


def test_padding_that_separates_nothing_is_no_end() -> None:
    tokenizer = SimpleNamespace(eos_token_id=2, all_special_tokens=["<pad>", "</s>"], all_special_ids=[5, 6])
    assert end_tokens(tokenizer) == {2, 6}


@pytest.mark.parametrize(
    ("configs", "end"), [((), END), ((config(END),), END), ((config([7, END]),), END), ((config(7),), None)]
)
def test_a_document_ends_with_the_tokenizer_s_end_token_if_the_model_stops_at_it(
    configs: tuple[Any, ...], end: int | None
) -> None:
    assert document_end(tiny_tokenizer(), *configs) == end
    assert document_end(SimpleNamespace(eos_token_id=None)) is None


def test_configs_of_a_folder(tmp_path: Any) -> None:
    model = tiny_model(layers=1)
    model.generation_config.eos_token_id = [2, 7]
    model.save_pretrained(tmp_path)
    assert end_tokens(tiny_tokenizer(), *configs_in(tmp_path)) == {SEPARATOR, END, 7}
    (tmp_path / "generation_config.json").unlink()
    assert len(configs_in(tmp_path)) == 1


def test_the_end_stands_behind_documents_and_not_at_cuts() -> None:
    tokenizer = tiny_tokenizer()
    text = "The heart pumps blood through the arteries and the veins of the body."
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole, part = Document(text=text, source="a"), Document(text=text, source="b", ends=False)
    windows = tokenize(tokenizer, [whole, part], window=6, end=END)
    first, second = windows[: -(-(len(ids) + 1) // 5)], windows[-(-(len(ids) + 1) // 5) :]
    assert [token for window in first for token in window[1:]] == [*ids, END]
    assert [token for window in second for token in window[1:]] == ids
    assert tokenize(tokenizer, [whole], window=6) == tokenize(tokenizer, [part], window=6, end=END)


def test_sampling_stops_at_any_end_and_leaves_the_draws_before_it_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "STRIDE", 4)
    model, prompts = tiny_model(layers=2), [[OPENING, 9, END, 30], [OPENING, 40]]
    free = sampling.sample(model, prompts, length=24, seed=1)
    ends = {free[0][9], free[1][12], END}
    stopped = sampling.sample(model, prompts, length=24, seed=1, ends=ends)
    for text, whole, prompt in zip(stopped, free, prompts, strict=True):
        assert text == whole[: len(text)] and text[-1] in ends and len(text) <= 13
        assert not ends & set(text[len(prompt) : -1])


def test_sampling_ends_before_its_length_once_all_texts_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "STRIDE", 4)
    model, steps = tiny_model(layers=1), list[int]()
    real = sampling._make_step

    def counted(*arguments: Any) -> Any:
        step = real(*arguments)
        return lambda read: (steps.append(read), step(read))

    monkeypatch.setattr(sampling, "_make_step", counted)
    every = set(range(model.config.vocab_size))
    texts = sampling.sample(model, [[OPENING, 5], [OPENING, 6, 7]], length=64, ends=every)
    assert [len(text) for text in texts] == [3, 4] and len(steps) == 4
