"""Languages of texts, by a small library without a network (langid: Lui and Baldwin 2012)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec

# Characters of a text that are looked at, and fewest letters that tell a language.
LOOKED_AT = 2000
FEWEST_LETTERS = 20
# Most texts that are looked at.
MOST = 1000


def languages(texts: Sequence[str]) -> dict[str, float] | None:
    """Return the share of each language in the texts by length, the largest first.

    Returns:
        Shares by ISO 639-1 code; empty if no text is long enough. None if the library is not installed.
    """
    if find_spec("py3langid") is None:
        return None
    from py3langid import classify

    sizes: dict[str, int] = {}
    for text in spread(texts, MOST):
        beginning = text[:LOOKED_AT]
        if sum(sign.isalpha() for sign in beginning) >= FEWEST_LETTERS:
            code = str(classify(beginning)[0])
            sizes[code] = sizes.get(code, 0) + len(text)
    whole = sum(sizes.values())
    return {code: size / whole for code, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))}


def spread(texts: Sequence[str], most: int) -> Iterable[str]:
    """Return at most so many of the texts, at equal distances."""
    return texts[:: max(1, -(-len(texts) // most))]
