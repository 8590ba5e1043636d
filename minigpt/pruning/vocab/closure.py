"""Choice of tokens: the most valuable ones for the domain's text, closed under merges, of an exact number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minigpt.errors import PlanError
from minigpt.pruning.vocab.bpe import Bpe, parts_of, read_bpe
from minigpt.types import Ints

# The size of a vocabulary is a multiple of this.
MULTIPLE = 64
# Weight of the general prior.
PRIOR = 0.03
# Added to the rank of a merge in the prior, so that it does not favor the very first merges too much.
_FLATTEN = 100


def closure(tokenizer: Any, wanted: Iterable[int]) -> Ints:
    """Find the smallest set that contains `wanted`, can spell every text, and tokenizes text of its tokens as before.

    A token brings the two tokens whose merge builds it, and so on down to characters. This is sufficient: on a text
    whose tokens are all kept, every merge that the parent runs belongs to the path of a kept token, so it is kept. It
    was the first of all applicable merges, so it is the first of the kept ones. Hence the pruned tokenizer runs the
    same merges in the same order. It is also necessary: a token whose path is cut can never appear.

    Args:
        tokenizer: a fast BPE tokenizer.
        wanted: ids of the tokens to keep.

    Returns:
        Sorted ids, with the required ones (bytes, special and added tokens).

    Raises:
        UnsupportedModel: the tokenizer is no byte-level BPE nor BPE with byte fallback.
        PlanError: an id is not in the vocabulary.
    """
    bpe = read_bpe(tokenizer)
    wanted = set(wanted)
    if unknown := wanted - bpe.names.keys():
        raise PlanError(f"Token id {min(unknown)} is not in the vocabulary of {len(bpe.names)} tokens.")
    return tuple(sorted(close(wanted | bpe.required, parts_of(bpe))))


def keep_tokens(tokenizer: Any, counts: Mapping[int, int], size: int, *, prior: float = PRIOR) -> Ints:
    """Choose the parent tokens of a vocabulary of exactly `size` tokens, missing byte tokens included.

    The required tokens come first, then tokens by how often the parent's merges build them on the counted text
    (:func:`merge_counts`) plus a general prior, then unseen ones by the rank of their merge: BPE learned the most
    frequent pairs of general text first. The prior adds prior * N / (rank + 100) to a token whose merge has that rank,
    with N the number of counted tokens, as if a little general text had been counted too (Zipf's law). It makes the
    domain's text hardly longer, and text of other fields shorter.

    Args:
        tokenizer: a fast BPE tokenizer.
        counts: how often each token id occurs in the domain's text (ids without an entry: never).
        size: number of tokens, a multiple of 64; at or above the parent's own size everything is kept.
        prior: weight of the general prior; 0 ranks seen tokens by the counts alone.

    Returns:
        Sorted parent ids, closed under merges: as many as `size` minus the byte tokens that the parent lacks.

    Raises:
        PlanError: `size` is no multiple of 64 or smaller than what must be kept.
        UnsupportedModel: the tokenizer is no byte-level BPE nor BPE with byte fallback.
    """
    bpe = read_bpe(tokenizer)
    parts = parts_of(bpe)
    if size % MULTIPLE:
        raise PlanError(
            f"A vocabulary of {size} is no multiple of {MULTIPLE}; the next is {-(-size // MULTIPLE) * MULTIPLE}."
        )
    room = size - len(bpe.missing)
    if room >= len(bpe.names):
        return tuple(sorted(bpe.names))
    kept = close(bpe.required, parts)
    if len(kept) > room:
        least = -(-(len(kept) + len(bpe.missing)) // MULTIPLE) * MULTIPLE
        raise PlanError(
            f"A vocabulary of {size} is too small: {len(bpe.required)} byte, special and added tokens, "
            f"{len(kept) - len(bpe.required)} tokens they are made of and {len(bpe.missing)} missing byte tokens "
            f"make {len(kept) + len(bpe.missing)}; ask for at least {least}."
        )
    _fill(kept, _ranked(bpe, counts, parts, prior), parts, room)
    return tuple(sorted(kept))


def close(wanted: Iterable[int], parts: Callable[[int], Ints]) -> set[int]:
    """Close a set of tokens under merges: add the parts of its tokens, their parts, and so on."""
    closed: set[int] = set()
    pending = list(wanted)
    while pending:
        token = pending.pop()
        if token not in closed:
            closed.add(token)
            pending += parts(token)
    return closed


def merge_counts(bpe: Bpe, counts: Mapping[int, int], parts: Callable[[int], Ints]) -> dict[int, int]:
    """Count how often each token is built on the counted text, by itself or as a part of a longer token.

    u(t) = count(t) + sum of u(s) over tokens s completed from t (twice if both parts are t). Dropping t costs about
    u(t) more tokens on that text. As u(part) >= u(whole), the top of a ranking by u is closed under merges, and no
    other set of that size saves more tokens.
    """
    used = {token: count for token, count in counts.items() if count > 0 and token in bpe.names}
    queue: dict[int, list[int]] = {}
    for token in close(used, parts):
        queue.setdefault(len(bpe.names[token]), []).append(token)
    for length in sorted(queue, reverse=True):
        for token in queue[length]:
            for part in parts(token):
                used[part] = used.get(part, 0) + used[token]
    return used


def _ranked(bpe: Bpe, counts: Mapping[int, int], parts: Callable[[int], Ints], prior: float) -> list[int]:
    """Rank all tokens: the most useful first, unused ones by the rank of their merge, unreachable ones last."""
    order: dict[int, int] = {}
    for rank, pair in enumerate(bpe.ranks):
        order.setdefault(bpe.ids["".join(pair)], rank)
    used = merge_counts(bpe, counts, parts)
    never = len(bpe.ranks)
    weight = prior * sum(counts.values())

    def key(token: int) -> tuple[bool, float, int, int]:
        dead = token not in used and not bpe.ignores_merges and len(bpe.names[token]) > 1 and not parts(token)
        rank = order.get(token, never)
        general = weight / (rank + _FLATTEN) if token in order else 0.0
        return dead, -(used.get(token, 0) + general), rank, token

    return sorted(bpe.names, key=key)


def _fill(kept: set[int], ranked: list[int], parts: Callable[[int], Ints], room: int) -> None:
    """Add tokens in order, each with its closure if that fits, until exactly `room` are kept.

    A pass always adds something: of the tokens left out, the shortest has all its parts kept.
    """
    while len(kept) < room:
        for token in ranked:
            if token not in kept:
                extra = close((token,), parts) - kept
                if len(kept) + len(extra) <= room:
                    kept |= extra
            if len(kept) == room:
                return
