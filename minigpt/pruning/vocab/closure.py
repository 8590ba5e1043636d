"""Which tokens to keep: the best for the domain's text, closed under merges, of an exact number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minigpt.errors import PlanError
from minigpt.pruning.vocab.bpe import Bpe, parts_of, read_bpe
from minigpt.types import Ints

MULTIPLE = 64
PRIOR = 0.03
_FLATTEN = 100


def closure(tokenizer: Any, wanted: Iterable[int]) -> Ints:
    """The smallest set that contains `wanted`, can spell every text, and tokenizes text of its tokens as before.

    With every token come the two tokens whose merge builds it, and so on down to characters. This is enough: on a
    text whose tokens are all kept, each merge the parent runs belongs to a kept token's path, so it is kept; it was
    the first of all applicable merges, so it is the first of the kept ones; hence the child runs the same merges in
    the same order, whatever else was dropped. It is also needed: a token whose path is cut can never appear.

    Args:
        tokenizer: a fast BPE tokenizer.
        wanted: token ids.

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
    (:func:`merge_counts`) plus a general prior, then unseen ones by merge rank: BPE learnt the most frequent pairs of
    general text first. The prior adds prior * N / (rank + 100) to a token whose merge has that rank, N the number of
    counted tokens, as if a little general text had been counted along (Zipf's law). At 0.03, with 16,384 of 49,152
    tokens, a domain's unseen text grows by at most 0.15 % in tokens and another domain's shrinks by 0.6 to 3.4 %
    (chosen on text that is not held out).

    Args:
        tokenizer: a fast BPE tokenizer.
        counts: how often each token id occurs in the domain's text (ids without an entry: never).
        size: tokens wanted, a multiple of 64. At or above the parent's own size everything is kept.
        prior: weight of the general prior; 0 ranks seen tokens by the counts alone.

    Returns:
        Sorted parent ids, closed under merges: `size` less the number of byte tokens the parent lacks.

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
    """`wanted` with the parts of its tokens and theirs."""
    closed: set[int] = set()
    pending = list(wanted)
    while pending:
        token = pending.pop()
        if token not in closed:
            closed.add(token)
            pending += parts(token)
    return closed


def merge_counts(bpe: Bpe, counts: Mapping[int, int], parts: Callable[[int], Ints]) -> dict[int, int]:
    """How often each token is built on the counted text, as a token or on the way to a longer one.

    u(t) = count(t) + sum of u(s) over tokens s completed from t (twice if both parts are t). Dropping t costs about
    u(t) more tokens on that text. As u(part) >= u(whole), the top of a ranking by u is closed under merges, and no
    other set of that size saves more: the cost of the closure is shared by all who need it.
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
    """All tokens, the most useful first; of the unused the earliest merge first, dead ones (never built) last."""
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
