"""Laws of batching: nothing is lost, nothing is repeated, padding stays within the budget and out of every number."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from minigpt.errors import CorpusError
from minigpt.evaluation import text_bits
from minigpt.healing import TokenText, bits_per_byte, forward
from minigpt.healing.data import MIN_TOKENS, PaddedBatch, batch_by_length, epochs, pad, steps_to_read
from minigpt.transformer.logits import logits_at
from minigpt.types import Document
from tests.support.healing import VOCABULARY, patterned
from tests.support.tiny import FAMILIES, SENTENCES, tiny_model, tiny_tokenizer

WINDOWS = st.lists(st.lists(st.integers(3, 63), min_size=MIN_TOKENS, max_size=40).map(tuple), min_size=1, max_size=40)


def rows(batch: PaddedBatch) -> list[tuple[int, ...]]:
    return [tuple(ids[:length].tolist()) for ids, length in zip(batch.ids, batch.lengths, strict=True)]


def one_epoch(windows: tuple[tuple[int, ...], ...], tokens: int, seed: int) -> list[PaddedBatch]:
    """Batches until as many windows have passed as there are."""
    batches, seen = [], 0
    for batch in epochs(windows, tokens, seed):
        batches.append(batch)
        seen += len(batch.lengths)
        if seen >= len(windows):
            return batches
    raise AssertionError


@settings(max_examples=40, deadline=None)
@given(windows=WINDOWS, tokens=st.integers(48, 200), seed=st.integers(0, 3))
def test_an_epoch_is_each_window_once_within_the_budget(windows: list[tuple[int, ...]], tokens: int, seed: int) -> None:
    batches = one_epoch(tuple(windows), tokens, seed)
    assert Counter(row for batch in batches for row in rows(batch)) == Counter(windows)
    assert all(batch.ids.numel() <= tokens for batch in batches)
    assert all(batch.ids.shape[1] % 8 == 0 for batch in batches)


@settings(max_examples=20, deadline=None)
@given(windows=WINDOWS, tokens=st.integers(48, 200), seed=st.integers(0, 3), packed=st.booleans())
def test_rows_say_where_in_the_text_they_stand(
    windows: list[tuple[int, ...]], tokens: int, seed: int, packed: bool
) -> None:
    """With and without their opening tokens; windows that are too short to learn from do not count."""
    whole = [token for window in windows for token in window]
    stream = epochs([(7,) * (MIN_TOKENS - 1), *windows], tokens, seed, bare=0.4, packed=packed)
    for batch in islice(stream, 12):
        assert batch.origins is not None
        for row, origin in zip(rows(batch), batch.origins.tolist(), strict=True):
            assert tuple(whole[origin : origin + len(row)]) == row


@settings(max_examples=20, deadline=None)
@given(windows=WINDOWS, tokens=st.integers(48, 200), wanted=st.integers(0, 3000), packed=st.booleans())
def test_so_many_steps_read_so_many_tokens_and_one_less_does_not(
    windows: list[tuple[int, ...]], tokens: int, wanted: int, packed: bool
) -> None:
    steps = steps_to_read(windows, wanted, tokens, 3, bare=0.3, packed=packed)
    batches = islice(epochs(windows, tokens, 3, bare=0.3, packed=packed), steps)
    read = [int((batch.lengths - 1).sum()) for batch in batches]
    assert sum(read) >= wanted and (not read or sum(read[:-1]) < wanted)


def test_a_window_beyond_the_budget_is_a_batch_by_itself() -> None:
    lengths = [len(batch) for batch in batch_by_length([(1,) * 100, (1,) * 90, (1,) * 10], 50)]
    assert lengths == [1, 1, 1]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    text = patterned(30)
    first, again, other = (list(islice(epochs(text.windows, 96, seed), 20)) for seed in (1, 1, 2))
    assert [rows(batch) for batch in first] == [rows(batch) for batch in again]
    assert [rows(batch) for batch in first] != [rows(batch) for batch in other]
    once = len(one_epoch(text.windows, 96, 1))
    assert [rows(batch) for batch in first[:once]] != [rows(batch) for batch in first[once : 2 * once]]


def test_sorting_keeps_padding_small() -> None:
    text = patterned(400, shortest=10, longest=200)
    batches = one_epoch(text.windows, 1024, 0)
    assert sum(len(window) for window in text.windows) / sum(batch.ids.numel() for batch in batches) > 0.9


def test_too_short_a_text_is_refused() -> None:
    with pytest.raises(CorpusError, match="more text"):
        next(epochs([(1, 2, 3)], 64, 0))
    with pytest.raises(CorpusError, match="dev text"):
        bits_per_byte(tiny_model(vocab_size=VOCABULARY), TokenText(windows=((1,),), bytes=3))


def test_places_and_labels_by_hand() -> None:
    batch = pad([(1, 5, 6), (1, 7), (1,)])
    assert batch.ids.shape == (3, 8)
    assert batch.places.tolist() == [0, 1, 8]
    assert batch.labels.tolist() == [5, 6, 7]


def test_a_digest_tells_texts_apart() -> None:
    base = TokenText(windows=((1, 2), (3,)), bytes=4)
    others = [TokenText(windows=((1,), (2, 3)), bytes=4), TokenText(windows=base.windows, bytes=5)]
    assert base.digest == TokenText(windows=base.windows, bytes=4).digest
    assert base.digest not in [other.digest for other in others]
    assert base.tokens == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_never_enters(family: str) -> None:
    """Logits of a padded batch are those of each window read by itself."""
    model = tiny_model(family, vocab_size=VOCABULARY)
    text = patterned(5, longest=40)
    batch = pad(text.windows)
    with torch.no_grad():
        together = logits_at(model, batch.places, input_ids=batch.ids)
        alone = torch.cat([model(torch.tensor([window])).logits[0, :-1] for window in text.windows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    labels = torch.tensor([token for window in text.windows for token in window[1:]])
    torch.testing.assert_close(batch.labels, labels)


def test_what_a_family_does_to_its_logits_stays() -> None:
    """The soft cap of Gemma comes after the head and is kept."""
    model = tiny_model("gemma3_text", vocab_size=VOCABULARY)
    batch = pad(patterned(2).windows)
    with torch.no_grad():
        plain = logits_at(model, batch.places, input_ids=batch.ids)
        model.config.final_logit_softcapping = 2.0
        capped = logits_at(model, batch.places, input_ids=batch.ids)
    torch.testing.assert_close(capped, 2 * torch.tanh(plain / 2))
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_bits_per_byte_is_the_sum_over_windows(family: str) -> None:
    model, text = tiny_model(family, vocab_size=VOCABULARY), patterned(7, longest=30)
    nats = 0.0
    with torch.no_grad():
        for window in text.windows:
            ids = torch.tensor([window])
            log_probabilities = functional.log_softmax(model(ids).logits[0, :-1], -1).gather(-1, ids[0, 1:, None])
            nats -= float(log_probabilities.double().sum())
    expected = nats / math.log(2) / text.bytes
    for tokens in (16384, 64):
        assert bits_per_byte(model, text, tokens=tokens, precision="fp32") == pytest.approx(expected, rel=1e-5)


def test_a_large_vocabulary_takes_shorter_passes_over_the_dev_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text, sizes = tiny_model(vocab_size=VOCABULARY), patterned(7, longest=30), list[int]()
    whole = bits_per_byte(model, text, precision="fp32")
    model.register_forward_pre_hook(
        lambda _model, _args, given: sizes.append(given["input_ids"].numel()), with_kwargs=True
    )
    monkeypatch.setattr(forward, "MAX_LOGITS", 64 * VOCABULARY)
    assert bits_per_byte(model, text, precision="fp32") == pytest.approx(whole, rel=1e-5)
    assert max(sizes) <= 64
    assert len(sizes) > 1


def test_bits_per_byte_agrees_with_the_evaluation() -> None:
    """Where every document fits in a window, healing decides by the number that the report shows."""
    tokenizer, model = tiny_tokenizer(), tiny_model()
    documents = [Document(text=text, source=str(index)) for index, text in enumerate(SENTENCES)]
    items = text_bits(model, tokenizer, documents, window=256)
    windows = tuple((tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)) for text in SENTENCES)
    text = TokenText(windows=windows, bytes=sum(len(sentence.encode()) for sentence in SENTENCES))
    expected = sum(items.bits) / sum(items.bytes)
    assert bits_per_byte(model, text, precision="fp32") == pytest.approx(expected, rel=1e-5)


def test_a_share_of_the_windows_lacks_its_opening_token() -> None:
    """About a fifth of them, others in the next epoch; nothing else of a window changes."""
    windows = [(1, *range(10 * place + 100, 10 * place + 110)) for place in range(200)]
    stream = epochs(windows, 10**6, 0, bare=0.2)
    first, second = next(stream), next(stream)
    bare = []
    for batch in (first, second):
        rows = {tuple(row[:length].tolist()) for row, length in zip(batch.ids, batch.lengths, strict=True)}
        bare.append({row for row in rows if row[0] != 1})
        assert {row if row[0] == 1 else (1, *row) for row in rows} == set(windows)
        assert 20 < len(bare[-1]) < 60
    assert bare[0] != bare[1]
