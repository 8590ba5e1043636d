"""From text to fixed windows of tokens in which no document sees another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minigpt.errors import CorpusError
from minigpt.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Rows of packed documents, each array int64 of shape [rows, length].

    `segment_ids` numbers the pieces of a row from 1, in order; 0 is padding. `position_ids` restart at 0 in each
    piece. A piece attends to itself only, so a mask is `segment_ids[:, :, None] == segment_ids[:, None, :]`, causal.
    """

    input_ids: Int64
    position_ids: Int64
    segment_ids: Int64

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.segment_ids > 0).sum())


def prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token every text starts with: `bos`, else `eos` (lm-evaluation-harness's rule).

    Raises:
        CorpusError: the tokenizer has neither.
    """
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if prefix is None:
        raise CorpusError("The tokenizer has neither a bos nor an eos token; set one in its tokenizer_config.json.")
    return int(prefix)


def tokenize(tokenizer: PreTrainedTokenizerBase, documents: Iterable[Document], *, window: int) -> list[list[int]]:
    """Turn documents into token lists of at most `window` tokens, each opened by the prefix token.

    A longer document gives several lists, cut without overlap: joined, without their prefixes, they are the
    document's tokens.

    Raises:
        CorpusError: `window` leaves no room beside the prefix.
    """
    if window < 2:
        raise CorpusError(f"A window of {window} token has no room for text beside the prefix token; use 2 or more.")
    prefix, texts = prefix_token(tokenizer), [document.text for document in documents]
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [[prefix, *piece] for ids in encoded for piece in _cut(ids, window - 1)]


def pack(token_lists: Sequence[Sequence[int]], length: int, *, pad: int) -> Packed:
    """Fill rows of `length` tokens with whole documents, first fit in the order given.

    A list longer than `length` is cut into windows of `length`; the rest of it is packed like any other. No token is
    lost or repeated, and rows keep roughly the order of the texts, so that the first rows are as good a sample as
    the first texts.

    Raises:
        CorpusError: `length` is not positive.
    """
    if length < 1:
        raise CorpusError(f"Cannot pack into windows of {length} tokens; use 1 or more.")
    pieces = [piece for tokens in token_lists for piece in _cut(tokens, length)]
    rows = _first_fit([len(piece) for piece in pieces], length)
    shape = (len(rows), length)
    ids, positions, segments = np.full(shape, pad, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, members in enumerate(rows):
        start = 0
        for segment, member in enumerate(members, start=1):
            end = start + len(pieces[member])
            ids[row, start:end] = pieces[member]
            positions[row, start:end] = np.arange(end - start)
            segments[row, start:end] = segment
            start = end
    return Packed(input_ids=ids, position_ids=positions, segment_ids=segments)


def _cut(tokens: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    return (tokens[start : start + length] for start in range(0, len(tokens), length))


def _first_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Indices of the pieces in each row; every piece goes to the first row with room for it."""
    rows: list[list[int]] = []
    room = np.zeros(len(sizes), np.int64)
    for index, size in enumerate(sizes):
        row = int(np.argmax(room[: len(rows)] >= size)) if rows else 0
        if not rows or room[row] < size:
            row = len(rows)
            rows.append([])
            room[row] = length
        rows[row].append(index)
        room[row] -= size
    return rows
