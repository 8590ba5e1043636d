"""Training text as batches of windows that do not see each other and need no attention mask.

A causal decoder never looks to the right, so padding behind a window changes none of its logits, and attention
kernels that only know "causal" can be used. A padded batch holds windows of similar length, which keeps the padding at
a few percent. Where the windows of a batch are packed into one row (:mod:`minigpt.healing.graphs`), a batch is filled
by the number of its tokens instead.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import accumulate, islice, takewhile
from random import Random
from typing import TypeVar

import torch
from torch import Tensor

from minigpt.errors import CorpusError

Windows = Sequence[Sequence[int]]
SizedT = TypeVar("SizedT", bound=Sized)

# Shortest window that is trained on; shorter ones teach next to nothing.
MIN_TOKENS = 8
# Number of batches, about, that the windows of one pool fill.
POOL_BATCHES = 32
# Most windows of a packed batch, as a multiple of the average number.
WINDOW_MARGIN = 1.5
# Padded lengths are multiples of this, which matrix products of accelerators need to be fast.
LENGTH_MULTIPLE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenText:
    """Tokenized text.

    Attributes:
        windows: token ids of each window, which starts with the prefix token.
        bytes: size of the text in UTF-8, the denominator of bits per byte.
    """

    windows: tuple[tuple[int, ...], ...]
    bytes: int

    @property
    def tokens(self) -> int:
        """Number of tokens that are predicted: all but the first of each window."""
        return sum(len(window) - 1 for window in self.windows if window)

    @property
    def digest(self) -> str:
        """SHA-256 of windows and size, which names the text in a checkpoint."""
        hasher = hashlib.sha256(str(self.bytes).encode())
        for window in self.windows:
            hasher.update(array("q", [len(window), *window]).tobytes())
        return hasher.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Limit on what training may cost on text of another kind, for example general text.

    Attributes:
        text: dev text of that kind, tokenized for the model that is trained.
        limit: bits per byte on it that the trained model should not exceed.
    """

    text: TokenText
    limit: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A window, with or without its opening token, and its place in the training text.

    Attributes:
        ids: token ids.
        origin: index of the first of them in the training text (see :func:`pieces_of`).
    """

    ids: Sequence[int]
    origin: int

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)

    def bare(self) -> Piece:
        """Return the piece without its first token, the prefix token of the window."""
        return Piece(self.ids[1:], self.origin + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """A batch of right-padded windows on the CPU.

    Attributes:
        ids: int64 [rows, length], the token ids; 0 in the padding.
        lengths: int64 [rows], the tokens of each row without padding.
        origins: int64 [rows], index of each row's first token in the training text (see :func:`pieces_of`); None if it
            is unknown or the rows are not that text unchanged.
    """

    ids: Tensor
    lengths: Tensor
    origins: Tensor | None = None

    def rows(self, part: slice) -> PaddedBatch:
        """Return some of the rows as a batch of its own."""
        origins = None if self.origins is None else self.origins[part]
        return PaddedBatch(ids=self.ids[part], lengths=self.lengths[part], origins=origins)

    @property
    def places(self) -> Tensor:
        """Int64 [n], indices into the flattened ids whose next token is text, row by row.

        They are computed on the CPU, so that an accelerator never has to wait for their number.
        """
        inside = torch.arange(self.ids.shape[1])[None, :] < (self.lengths - 1)[:, None]
        return inside.flatten().nonzero().flatten()

    @property
    def labels(self) -> Tensor:
        """Int64 [n], the token that follows each of `places`."""
        return self.ids.flatten()[self.places + 1]


def pad(windows: Windows) -> PaddedBatch:
    """Right-pad windows to a common length, a multiple of `LENGTH_MULTIPLE`."""
    lengths = torch.tensor([len(window) for window in windows])
    ids = torch.zeros(len(windows), _padded_length(max(len(window) for window in windows)), dtype=torch.long)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = torch.tensor(window, dtype=torch.long)
    return PaddedBatch(ids=ids, lengths=lengths)


def _padded_length(length: int) -> int:
    """Round a length up to a multiple of `LENGTH_MULTIPLE`."""
    return -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def pad_pieces(batch: Sequence[Piece]) -> PaddedBatch:
    """Right-pad the pieces of a batch and note their places in the training text."""
    padded = pad([piece.ids for piece in batch])
    return replace(padded, origins=torch.tensor([piece.origin for piece in batch]))


def pieces_of(windows: Windows) -> list[Piece]:
    """Return the windows that are trained on, in order, with their places in the training text.

    The training text is these windows one behind the other, opening tokens included. Windows of fewer than `MIN_TOKENS`
    tokens are left out of it.
    """
    usable = [window for window in windows if len(window) >= MIN_TOKENS]
    origins = accumulate(map(len, usable), initial=0)
    return [Piece(window, origin) for window, origin in zip(usable, origins, strict=False)]


def split_into_pools(windows: Sequence[SizedT], tokens: int) -> list[Sequence[SizedT]]:
    """Split windows, in order, into pools for about `POOL_BATCHES` batches each.

    Args:
        windows: anything that has a length in tokens.
        tokens: size of a batch.
    """
    total = sum(map(len, windows))
    size = max(1, POOL_BATCHES * tokens * len(windows) // max(1, total))
    return [windows[start : start + size] for start in range(0, len(windows), size)]


def batch_by_length(windows: Sequence[SizedT], tokens: int) -> list[list[SizedT]]:
    """Sort windows by length and cut them into batches of at most `tokens` tokens, padding included.

    A window that is longer than `tokens` becomes a batch of its own.
    """
    batches: list[list[SizedT]] = []
    for window in sorted(windows, key=len, reverse=True):
        if not batches or (len(batches[-1]) + 1) * _padded_length(len(batches[-1][0])) > tokens:
            batches.append([])
        batches[-1].append(window)
    return batches


def max_packed_windows(tokens: int, windows: Sequence[Sized]) -> int:
    """Return how many windows a packed batch may hold: `WINDOW_MARGIN` times the average, and at least 8 more.

    The number is limited because attention of packed windows takes time for every window that it has room for, also
    for those that stay empty.

    Args:
        tokens: size of a batch.
        windows: all windows of the training text.
    """
    average_length = sum(map(len, windows)) / max(1, len(windows))
    average_windows = tokens / max(1.0, average_length)
    return math.ceil(max(WINDOW_MARGIN * average_windows, average_windows + 8))


def first_fit_batches(windows: Sequence[SizedT], tokens: int, max_windows: int) -> list[list[SizedT]]:
    """Put windows into nearly full batches: each goes into the first batch that has room for it.

    In a random order of the windows every batch gets about as many of them. The time grows with the square of the
    number of windows, so give one pool of the text at a time (:func:`split_into_pools`).

    Args:
        windows: in the order that they are placed in; one that is longer than a batch becomes a batch of its own.
        tokens: most tokens of a batch, without padding.
        max_windows: most windows of a batch.
    """
    batches: list[list[SizedT]] = []
    rooms: list[int] = []
    for window in windows:
        fits = (n for n, room in enumerate(rooms) if room >= len(window) and len(batches[n]) < max_windows)
        index = next(fits, len(batches))
        if index == len(batches):
            batches.append([])
            rooms.append(tokens)
        batches[index].append(window)
        rooms[index] -= len(window)
    return batches


def epochs(
    windows: Windows, tokens: int, seed: int, *, bare: float = 0.0, packed: bool = False
) -> Iterator[PaddedBatch]:
    """Yield batches without end; every epoch shows each window once, in an order set by seed and epoch alone.

    In each epoch the windows are shuffled, put into batches pool by pool (:func:`split_into_pools`), and the batches
    are shuffled again.

    Args:
        windows: token ids of all windows of the training text.
        tokens: most tokens of a batch; padding counts, unless the batches are packed.
        seed: sets the order of the windows, and which of them are bare.
        bare: share of the windows that are shown without their opening token, others in every epoch, so that the model
            also works in runtimes that do not add that token.
        packed: fill batches for packing (:func:`first_fit_batches`) instead of by similar length.

    Raises:
        CorpusError: no window is long enough to be trained on.
    """
    return map(pad_pieces, _batches(windows, tokens, seed, bare, packed))


def steps_to_read(
    windows: Windows, wanted: int, tokens: int, seed: int, *, bare: float = 0.0, packed: bool = False
) -> int:
    """Return how many of the first batches of :func:`epochs` have `wanted` or more tokens to predict.

    Args:
        windows: as for :func:`epochs`, like all other arguments.
        wanted: tokens to predict in all batches together.
        tokens: most tokens of a batch.
        seed: sets the order of the windows.
        bare: share of the windows without their opening token.
        packed: whether batches are filled for packing.
    """
    sizes = (sum(len(piece) - 1 for piece in batch) for batch in _batches(windows, tokens, seed, bare, packed))
    return sum(1 for _ in takewhile(lambda read: read < wanted, accumulate(sizes, initial=0)))


def pieces_read(windows: Windows, steps: int, tokens: int, seed: int, *, bare: float = 0.0) -> list[Piece]:
    """Return the windows, opening tokens included, that the first batches of :func:`epochs` show, in order.

    Args:
        windows: as for :func:`epochs`, like all other arguments.
        steps: number of batches.
        tokens: most tokens of a batch.
        seed: sets the order of the windows.
        bare: share of the windows without their opening token.
    """
    batches = islice(_batches(windows, tokens, seed, bare, False), steps)
    # A window without its opening token begins one place behind its origin, where no other window begins.
    shown = {origin for batch in batches for piece in batch for origin in (piece.origin, piece.origin - 1)}
    return [piece for piece in pieces_of(windows) if piece.origin in shown]


def _batches(windows: Windows, tokens: int, seed: int, bare: float, packed: bool) -> Iterator[list[Piece]]:
    """Yield the batches of :func:`epochs` before padding."""
    usable = pieces_of(windows)
    if not usable:
        raise CorpusError(f"No training text of {MIN_TOKENS} tokens or more is left; give the domain more text.")
    max_windows, epoch = max_packed_windows(tokens, usable), 0
    while True:
        generator = Random(f"{seed}/{epoch}")
        drawn = generator.sample(usable, len(usable))
        shuffled = [piece.bare() if bare and generator.random() < bare else piece for piece in drawn]
        batches = [
            batch
            for pool in split_into_pools(shuffled, tokens)
            for batch in (first_fit_batches(pool, tokens, max_windows) if packed else batch_by_length(pool, tokens))
        ]
        generator.shuffle(batches)
        yield from batches
        epoch += 1


def with_noise(batches: Iterator[PaddedBatch], share: float, seed: int, step: int = 0) -> Iterator[PaddedBatch]:
    """Replace a share of the tokens of each batch by tokens from elsewhere in the batch.

    Use it only where the loss is the divergence from a teacher, which reads the noisy text, too, and says what follows
    it. The student then cannot learn a small corpus by heart. The first token of each window is never replaced.

    Args:
        batches: what to train on.
        share: share of the tokens that are replaced, 0 to 1.
        seed: sets, together with the step, which tokens are replaced.
        step: number of the first batch in the run.
    """
    for index, batch in enumerate(batches, start=step):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        rows, length = batch.ids.shape
        is_text = torch.arange(length)[None, :] < batch.lengths[:, None]
        is_text[:, 0] = False
        is_replaced = is_text & (torch.rand(rows, length, generator=generator) < share)
        source = batch.ids[is_text]
        ids = batch.ids.clone()
        count = int(is_replaced.sum())
        ids[is_replaced] = source[torch.randint(len(source), (count,), generator=generator)]
        yield PaddedBatch(ids=ids, lengths=batch.lengths)
