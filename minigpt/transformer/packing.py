"""Tokenizing of documents and packing into windows of fixed length, in which documents do not see each other."""

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
    """Rows of packed documents.

    A piece of a document attends to itself only, so the mask is `segment_ids[:, :, None] == segment_ids[:, None, :]`,
    made causal.

    Attributes:
        input_ids: int64 [rows, length], the token ids.
        position_ids: int64 [rows, length]; they restart at 0 in each piece.
        segment_ids: int64 [rows, length]; 0 for padding, and 1, 2 ... for the pieces of a row in order.
    """

    input_ids: Int64
    position_ids: Int64
    segment_ids: Int64

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int((self.segment_ids > 0).sum())


def prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that every text starts with: `bos`, else `eos` (the rule of lm-evaluation-harness).

    Raises:
        CorpusError: the tokenizer has neither.
    """
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if prefix is None:
        raise CorpusError("The tokenizer has neither a bos nor an eos token; set one in its tokenizer_config.json.")
    return int(prefix)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, documents: Iterable[Document], *, window: int, end: int | None = None
) -> list[list[int]]:
    """Turn documents into windows of at most `window` tokens, each of which starts with the prefix token.

    A longer document gives several windows without overlap. Joined without their prefix tokens (and the end token) they
    are the tokens of the document.

    Args:
        tokenizer: the model's tokenizer.
        documents: the documents, in order.
        window: most tokens of a window, the prefix token included.
        end: token that is put behind each passage with which a document ends (None: there is none). It is a token like
            any other: where a document is cut into windows, only the last one ends with it.

    Raises:
        CorpusError: `window` leaves no room for text beside the prefix token.
    """
    if window < 2:
        raise CorpusError(f"A window of {window} token has no room for text beside the prefix token; use 2 or more.")
    prefix, passages = prefix_token(tokenizer), list(documents)
    if not passages:
        return []
    encoded = tokenizer([passage.text for passage in passages], add_special_tokens=False, verbose=False)["input_ids"]
    if end is not None:
        encoded = [[*ids, end] if passage.ends else ids for passage, ids in zip(passages, encoded, strict=True)]
    return [[prefix, *piece] for ids in encoded for piece in _cut(ids, window - 1)]


def pack(token_lists: Sequence[Sequence[int]], length: int, *, pad: int) -> Packed:
    """Fill rows of `length` tokens with whole documents; each goes into the first row that has room for it.

    A document longer than `length` is cut into pieces of `length` tokens, and the rest of it is packed like any other
    document. No token is lost or repeated. Rows keep roughly the order of the documents, so that the first rows are as
    good a sample as the first documents.

    Args:
        token_lists: token ids of each document.
        length: tokens of a row.
        pad: token id of the padding.

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
    """Cut tokens into pieces of `length`; the last one may be shorter."""
    return (tokens[start : start + length] for start in range(0, len(tokens), length))


def _first_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Return the indices of the pieces in each row, when every piece goes into the first row with room for it."""
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
