"""Tokens to windows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.errors import CorpusError
from minigpt.transformer.packing import Packed, pack, prefix_token, tokenize
from minigpt.types import Document
from tests.support.tiny import SENTENCES, tiny_tokenizer


def pieces(packed: Packed) -> list[list[int]]:
    """Every piece of every row, read off the segment ids."""
    return [
        row[segments == segment].tolist()
        for row, segments in zip(packed.input_ids, packed.segment_ids, strict=True)
        for segment in range(1, segments.max() + 1)
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 16))
def test_pack_loses_nothing_and_crosses_nothing(sizes: list[int], length: int) -> None:
    total = 0
    lists = []
    for size in sizes:
        lists.append(list(range(1000 + total, 1000 + total + size)))
        total += size
    packed = pack(lists, length, pad=-7)
    assert packed.input_ids.shape == packed.position_ids.shape == packed.segment_ids.shape
    assert packed.input_ids.shape[1] == length
    assert packed.tokens == total
    expected = sorted(tokens[i : i + length] for tokens in lists for i in range(0, len(tokens), length))
    assert sorted(pieces(packed)) == expected
    padding = packed.segment_ids == 0
    assert (packed.input_ids[padding] == -7).all() and (packed.position_ids[padding] == 0).all()
    for row, positions, segments in zip(packed.input_ids, packed.position_ids, packed.segment_ids, strict=True):
        used = int((segments > 0).sum())
        assert used and (segments[:used] > 0).all() and (np.diff(segments[:used]) >= 0).all()
        for segment in range(1, segments.max() + 1):
            assert positions[segments == segment].tolist() == list(range(int((segments == segment).sum())))
        del row


def test_pack_example() -> None:
    packed = pack([[1, 2, 3], [4, 5, 6, 7, 8, 9], [10]], 5, pad=0)
    assert packed.input_ids.tolist() == [[1, 2, 3, 9, 10], [4, 5, 6, 7, 8]]
    assert packed.segment_ids.tolist() == [[1, 1, 1, 2, 3], [1, 1, 1, 1, 1]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 4]]
    assert packed.input_ids.dtype == packed.position_ids.dtype == packed.segment_ids.dtype == np.int64


def test_pack_of_nothing_is_empty() -> None:
    assert pack([], 8, pad=0).input_ids.shape == (0, 8)
    with pytest.raises(CorpusError, match="windows of 0"):
        pack([[1]], 0, pad=0)


def test_tokenize_opens_every_window_with_the_prefix() -> None:
    tokenizer = tiny_tokenizer()
    documents = [Document(text=text, source=str(i)) for i, text in enumerate(SENTENCES)]
    whole = tokenize(tokenizer, documents, window=10_000)
    cut = tokenize(tokenizer, documents, window=8)
    assert [tokens[0] for tokens in whole] == [tokenizer.bos_token_id] * len(SENTENCES)
    assert [tokenizer.decode(tokens[1:]) for tokens in whole] == list(SENTENCES)
    assert all(1 < len(tokens) <= 8 and tokens[0] == tokenizer.bos_token_id for tokens in cut)
    assert [t for tokens in cut for t in tokens[1:]] == [t for tokens in whole for t in tokens[1:]]


def test_prefix_falls_back_to_eos_and_is_required() -> None:
    assert prefix_token(SimpleNamespace(bos_token_id=0, eos_token_id=5)) == 0
    assert prefix_token(SimpleNamespace(bos_token_id=None, eos_token_id=5)) == 5
    with pytest.raises(CorpusError, match="bos"):
        prefix_token(SimpleNamespace(bos_token_id=None, eos_token_id=None))


def test_tokenize_edges() -> None:
    assert tokenize(tiny_tokenizer(), [], window=8) == []
    with pytest.raises(CorpusError, match="no room"):
        tokenize(tiny_tokenizer(), [], window=1)
