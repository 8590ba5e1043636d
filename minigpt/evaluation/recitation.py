"""Recitation: how much of a text a model gives back word for word when it is shown the beginning.

A passage counts as memorized if greedy decoding after its beginning gives the true continuation (Carlini et al. 2023,
"Quantifying Memorization Across Neural Language Models", arXiv 2202.07646, definition 3.1). Beginning and continuation
are counted in characters, so that models with different tokens are compared on the same text. Passages that nobody
trained on are completed too: what a model gives back of them it has guessed, and only the excess is memory. A
paraphrase is not seen (Ippolito et al. 2023, arXiv 2210.17546), nor is a text that another beginning would bring out:
the figure is no proof of privacy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from minigpt.evaluation.items import RecitationItems
from minigpt.progress import SILENT, Reporter
from minigpt.types import Document

# Characters of the beginning that a model is shown: about 32 tokens of English.
SHOWN = 128
# Characters of the continuation: about 25 tokens.
CONTINUED = 100
# Shortest passage that can be completed; one shorter than both is shown up to its middle.
SHORTEST = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class _Completion:
    """A passage as tokens.

    Attributes:
        shown: Tokens of the beginning, the opening of the text among them.
        continued: Tokens of the true continuation.
        beginning: Text of the beginning.
        continuation: Text of the true continuation.
    """

    shown: Sequence[int]
    continued: Sequence[int]
    beginning: str
    continuation: str


def parts_to_recite(text: str) -> tuple[str, str] | None:
    """Cut the beginning of a passage at ends of words into a part to show and its continuation.

    Returns:
        Both parts; the continuation starts with the space before its first word. None for a passage that is too short.
    """
    if len(text) < SHORTEST:
        return None
    middle = _word_end(text, min(SHOWN, len(text) // 2))
    end = len(text) if len(text) - middle <= CONTINUED else middle + _word_end(text[middle:], CONTINUED)
    return text[:middle], text[middle:end]


def recite(
    model: Any,
    tokenizer: Any,
    passages: Mapping[str, Sequence[Document]],
    *,
    opening: int | None = None,
    batch_tokens: int = 8192,
    reporter: Reporter = SILENT,
) -> dict[str, RecitationItems]:
    """Count how many characters of each passage's continuation greedy decoding gives back before its first error.

    Greedy decoding follows the true text as long as each true token is the likeliest one. So a single forward pass over
    the true text finds the first error, without any decoding. The characters that the wrong token shares with the text
    still count.

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        tokenizer: The model's tokenizer.
        passages: Passages by task; those too short to be completed are left out.
        opening: Token put before every passage (None: the beginning token, or else the end token).
        batch_tokens: Most tokens in one forward pass, padding included.
        reporter: Receives the progress.

    Returns:
        Items by task, one entry for each document that has a passage.
    """
    from minigpt.evaluation.lm import Row, likeliest_tokens, prefix_token

    first = prefix_token(tokenizer) if opening is None else opening
    items = {}
    for task, documents in passages.items():
        usable = [(document.source, parts) for document in documents if (parts := parts_to_recite(document.text))]
        if not usable:
            continue
        completions = [_completion(tokenizer, first, parts) for _, parts in usable]
        rows = [
            Row(
                tokens=[*completion.shown, *completion.continued][:-1],
                where=range(len(completion.shown) - 1, len(completion.shown) + len(completion.continued) - 1),
                targets=completion.continued,
                owners=[index],
            )
            for index, completion in enumerate(completions)
        ]
        likeliest = likeliest_tokens(
            model, rows, batch_tokens=batch_tokens, title=f"Completing {task}", reporter=reporter
        )
        recited = [_recited(tokenizer, *pair) for pair in zip(completions, likeliest, strict=True)]
        items[task] = _by_document([source for source, _ in usable], recited, completions)
    return items


def _word_end(text: str, limit: int) -> int:
    """Find the last end of a word at or before `limit`; `limit` itself in scripts that have no spaces."""
    end = text[: limit + 1].rfind(" ")
    return end if end > 0 else limit


def _completion(tokenizer: Any, opening: int, parts: tuple[str, str]) -> _Completion:
    """Tokenize both parts of a passage."""
    beginning, continuation = parts
    before = list(tokenizer.encode(beginning, add_special_tokens=False))
    whole = list(tokenizer.encode(beginning + continuation, add_special_tokens=False))
    # A tokenizer may join the parts; then the cut lies where the texts stop having the same tokens.
    same = _common_start(before, whole)
    return _Completion(
        shown=[opening, *whole[:same]], continued=whole[same:], beginning=beginning, continuation=continuation
    )


def _common_start(left: Sequence[object], right: Sequence[object]) -> int:
    """Count the items that two sequences have in common before they first differ."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _recited(tokenizer: Any, completion: _Completion, likeliest: Sequence[int]) -> int:
    """Count the characters of the true continuation that greedy decoding gives back."""
    pairs = zip(likeliest, completion.continued, strict=True)
    right = next((place for place, (token, true) in enumerate(pairs) if token != true), len(likeliest))
    if right == len(likeliest):
        return len(completion.continuation)
    written = [*completion.shown[1:], *likeliest[: right + 1]]
    # A mark that ends the text is no text: it is left out, and nothing after it is compared.
    text = str(tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    same = _common_start(text, completion.beginning + completion.continuation)
    return max(0, same - len(completion.beginning))


def _by_document(sources: Sequence[str], recited: Sequence[int], completions: Sequence[_Completion]) -> RecitationItems:
    """Add up the passages of each document, which an interval must not take for independent."""
    keys = tuple(dict.fromkeys(sources))
    sums = {key: [0, 0] for key in keys}
    for source, characters, completion in zip(sources, recited, completions, strict=True):
        sums[source][0] += characters
        sums[source][1] += len(completion.continuation)
    return RecitationItems(
        keys=keys,
        recited=tuple(sums[key][0] for key in keys),
        characters=tuple(sums[key][1] for key in keys),
    )
