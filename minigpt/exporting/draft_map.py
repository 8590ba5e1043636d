"""The map from a draft's token ids to those of its parent, and the arithmetic of assisted generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """Map between two vocabularies, in the form of EAGLE-3 drafts (Li et al. 2025, arXiv:2503.01840).

    Attributes:
        d2t: offset of each draft token: its id in the parent is its own id + the offset, [draft].
        t2d: true for the parent's tokens that the draft has, [parent].
        lacking: true for draft tokens that the parent lacks, such as padding rows, [draft]. Their offset is 0; a
            verifier rejects what they propose.
    """

    d2t: Ints
    t2d: Flags
    lacking: Flags


def map_ids(draft: Mapping[str, int], parent: Mapping[str, int], *, draft_rows: int, parent_rows: int) -> IdMap:
    """Match the tokens of two vocabularies by their spelling.

    Args:
        draft: ids by spelling, of the draft's tokenizer.
        parent: ids by spelling, of the parent's tokenizer.
        draft_rows: rows of the draft's embedding, padding included.
        parent_rows: rows of the parent's.
    """
    d2t, t2d = np.zeros(draft_rows, dtype=np.int64), np.zeros(parent_rows, dtype=np.bool_)
    lacking = np.ones(draft_rows, dtype=np.bool_)
    for spelling, number in draft.items():
        if spelling in parent:
            d2t[number] = parent[spelling] - number
            t2d[parent[spelling]] = True
            lacking[number] = False
    return IdMap(d2t=d2t, t2d=t2d, lacking=lacking)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Tokens of assisted generation: proposed by the draft, accepted by the parent, and passes of the parent."""

    proposed: int
    accepted: int
    passes: int

    @property
    def acceptance(self) -> float:
        """Share of the proposed tokens that were accepted; 0 where none was proposed."""
        return self.accepted / self.proposed if self.proposed else 0.0


def count_tokens(lengths: Sequence[int], prompt: int, generated: int) -> Counts:
    """Count the tokens of one text by the lengths of the parent's inputs.

    A pass reads the tokens that its cache lacks and the proposed ones, and gives one token more than it accepts
    (Leviathan et al. 2023, arXiv:2211.17192, algorithm 1). The cache lacks the whole prompt at first, then one token.

    Args:
        lengths: tokens that each pass read.
        prompt: tokens of the prompt.
        generated: tokens of the text.
    """
    proposed = sum(lengths) - prompt - (len(lengths) - 1)
    return Counts(proposed=proposed, accepted=generated - len(lengths), passes=len(lengths))


def add(counts: Sequence[Counts]) -> Counts:
    """Add the counts of several texts."""
    return Counts(
        proposed=sum(one.proposed for one in counts),
        accepted=sum(one.accepted for one in counts),
        passes=sum(one.passes for one in counts),
    )
