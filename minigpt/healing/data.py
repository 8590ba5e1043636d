"""Training text as right-padded batches of windows: no window sees another, and no mask is needed.

A causal decoder never looks to the right, so padding behind a window changes none of its logits, and attention
kernels that only know "causal" can be used. Windows of like length come together, which keeps the padding at a few
percent; batches that will be packed (:mod:`minigpt.healing.graphs`) are gathered by the tokens they hold.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from random import Random
from typing import TypeVar

import torch
from torch import Tensor

from minigpt.errors import CorpusError

Windows = Sequence[Sequence[int]]
SizedT = TypeVar("SizedT", bound=Sized)
SHORTEST = 8
POOL = 32
ROOM = 1.5
"""Windows of a packed batch at most, relative to the average."""
MULTIPLE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenText:
    """Tokenized text: `windows` each open with the prefix token, `bytes` is the UTF-8 size of the text."""

    windows: tuple[tuple[int, ...], ...]
    bytes: int

    @property
    def tokens(self) -> int:
        """Tokens that are predicted (all but each window's first)."""
        return sum(len(window) - 1 for window in self.windows if window)

    @property
    def digest(self) -> str:
        """SHA-256 of windows and size: names the text in a checkpoint."""
        hasher = hashlib.sha256(str(self.bytes).encode())
        for window in self.windows:
            hasher.update(array("q", [len(window), *window]).tobytes())
        return hasher.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Dev text of another kind, tokenized for the model that is trained, and the bits per byte it may cost at most."""

    text: TokenText
    limit: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A window, or all of it but its opening token, and where its first token stands in the training text."""

    ids: Sequence[int]
    origin: int

    def __len__(self) -> int:
        """Tokens."""
        return len(self.ids)

    def bare(self) -> Piece:
        """Without its opening token."""
        return Piece(self.ids[1:], self.origin + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """A batch on the CPU: `ids` int64 [rows, length], `lengths` int64 [rows].

    `origins` int64 [rows] are where the rows start in the training text (see :func:`pieces`), if that is known and
    the rows are its text, unchanged.
    """

    ids: Tensor
    lengths: Tensor
    origins: Tensor | None = None

    @property
    def places(self) -> Tensor:
        """Int64 [n]: places in the flattened ids whose next token is text, row by row.

        Found on the CPU, so that an accelerator never has to wait for a count.
        """
        inside = torch.arange(self.ids.shape[1])[None, :] < (self.lengths - 1)[:, None]
        return inside.flatten().nonzero().flatten()

    @property
    def labels(self) -> Tensor:
        """Int64 [n]: the token that follows each of `places`."""
        return self.ids.flatten()[self.places + 1]


def pad(windows: Windows) -> Padded:
    """Right-pad windows to a common length, a multiple of `MULTIPLE`."""
    lengths = torch.tensor([len(window) for window in windows])
    ids = torch.zeros(len(windows), _padded(max(len(window) for window in windows)), dtype=torch.long)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = torch.tensor(window, dtype=torch.long)
    return Padded(ids=ids, lengths=lengths)


def _padded(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE


def gathered(batch: Sequence[Piece]) -> Padded:
    """The pieces of a batch, padded, with their places in the text."""
    told = pad([piece.ids for piece in batch])
    return replace(told, origins=torch.tensor([piece.origin for piece in batch]))


def pieces(windows: Windows) -> list[Piece]:
    """The windows that are learnt from, in their order, as if they lay one behind the other.

    Windows of fewer than `SHORTEST` tokens teach next to nothing and are left out.
    """
    usable = [window for window in windows if len(window) >= SHORTEST]
    return [Piece(*each) for each in zip(usable, accumulate(map(len, usable), initial=0), strict=False)]


def parts(windows: Sequence[SizedT], tokens: int) -> list[Sequence[SizedT]]:
    """The windows in parts of about `POOL` batches of `tokens` tokens, in their order."""
    total = sum(map(len, windows))
    size = max(1, POOL * tokens * len(windows) // max(1, total))
    return [windows[start : start + size] for start in range(0, len(windows), size)]


def group(windows: Sequence[SizedT], tokens: int) -> list[list[SizedT]]:
    """Cut windows, sorted by length, into batches of at most `tokens` tokens, padding included.

    A window that is longer than that is a batch by itself.
    """
    batches: list[list[SizedT]] = []
    for window in sorted(windows, key=len, reverse=True):
        if not batches or (len(batches[-1]) + 1) * _padded(len(batches[-1][0])) > tokens:
            batches.append([])
        batches[-1].append(window)
    return batches


def most_together(tokens: int, windows: Sequence[Sized]) -> int:
    """Windows that a packed batch may hold: half as many again as the average, 8 more at least.

    Attention of packed windows takes its time for every place that stays empty.

    Args:
        tokens: of a batch.
        windows: of the whole text.
    """
    average = sum(map(len, windows)) / max(1, len(windows))
    usual = tokens / max(1.0, average)
    return math.ceil(max(ROOM * usual, usual + 8))


def together(windows: Sequence[SizedT], tokens: int, most: int) -> list[list[SizedT]]:
    """Put windows into batches of at most `most` windows and `tokens` tokens that waste next to none.

    First fit in the order given: where that is drawn, every batch has about as many windows. The time it takes grows
    with the square of the windows, so give it a part of the text (:func:`parts`).

    Args:
        windows: in the order of the draw; one that is longer than a batch is one by itself.
        tokens: of a batch.
        most: windows of a batch.
    """
    batches: list[list[SizedT]] = []
    rooms: list[int] = []
    for window in windows:
        fits = (n for n, room in enumerate(rooms) if room >= len(window) and len(batches[n]) < most)
        place = next(fits, len(batches))
        if place == len(batches):
            batches.append([])
            rooms.append(tokens)
        batches[place].append(window)
        rooms[place] -= len(window)
    return batches


def epochs(windows: Windows, tokens: int, seed: int, *, bare: float = 0.0, packed: bool = False) -> Iterator[Padded]:
    """Batches for ever: every epoch sees each window once, in an order that depends on seed and epoch alone.

    Windows are shuffled, batches made within pools of about `POOL` of them, and shuffled again. A share `bare` of the
    windows, others in every epoch, is shown without its opening token: runtimes that add none then meet nothing new.

    Batches hold windows of like length, at most `tokens` tokens with their padding; where they are to be `packed`, what
    comes, at most `tokens` tokens without padding in :func:`most_together` windows.

    Raises:
        CorpusError: no window is long enough to learn from.
    """
    return map(gathered, _batches(windows, tokens, seed, bare, packed))


def steps_to_read(
    windows: Windows, wanted: int, tokens: int, seed: int, *, bare: float = 0.0, packed: bool = False
) -> int:
    """The first so many batches of :func:`epochs` have `wanted` tokens or more to predict; arguments as there."""
    sizes = (sum(len(piece) - 1 for piece in batch) for batch in _batches(windows, tokens, seed, bare, packed))
    return sum(1 for _ in takewhile(lambda before: before < wanted, accumulate(sizes, initial=0)))


def _batches(windows: Windows, tokens: int, seed: int, bare: float, packed: bool) -> Iterator[list[Piece]]:
    usable = pieces(windows)
    if not usable:
        raise CorpusError(f"No training text of {SHORTEST} tokens or more is left; give the domain more text.")
    most, epoch = most_together(tokens, usable), 0
    while True:
        order = Random(f"{seed}/{epoch}")
        drawn = order.sample(usable, len(usable))
        shuffled = [each.bare() if bare and order.random() < bare else each for each in drawn]
        batches = [
            batch
            for part in parts(shuffled, tokens)
            for batch in (together(part, tokens, most) if packed else group(part, tokens))
        ]
        order.shuffle(batches)
        yield from batches
        epoch += 1


def noisy(batches: Iterator[Padded], share: float, seed: int, step: int = 0) -> Iterator[Padded]:
    """Replace a share of the text's tokens by tokens from elsewhere in the batch, the opening token excepted.

    Only for learning from a teacher alone, which reads the same text: it then says what follows the noise, and a
    small corpus is not learnt by heart. What is replaced depends on seed and step.
    """
    for place, batch in enumerate(batches, start=step):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + place)
        rows, length = batch.ids.shape
        text = torch.arange(length)[None, :] < batch.lengths[:, None]
        text[:, 0] = False
        replaced = text & (torch.rand(rows, length, generator=generator) < share)
        source = batch.ids[text]
        ids = batch.ids.clone()
        count = int(replaced.sum())
        ids[replaced] = source[torch.randint(len(source), (count,), generator=generator)]
        yield Padded(ids=ids, lengths=batch.lengths)
