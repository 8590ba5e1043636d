"""Documents as tokenized text for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minigpt.healing.data import TokenText
from minigpt.transformer.packing import tokenize
from minigpt.types import Document


def token_text(tokenizer: Any, documents: Sequence[Document], window: int, *, end: int | None = None) -> TokenText:
    """Tokenize documents for training or for measuring a dev loss.

    Args:
        tokenizer: of the model that reads.
        documents: in the order in which they are read.
        window: longest piece in tokens, the opening token included.
        end: token that is trained on where a document ends (:func:`minigpt.transformer.ends.document_end`). Text that
            measures has none: an end is no text, it takes no bytes, and a model without this token must be comparable.
    """
    windows = tuple(tuple(ids) for ids in tokenize(tokenizer, documents, window=window, end=end))
    return TokenText(windows=windows, bytes=sum(len(document.text.encode()) for document in documents))


def behind(text: TokenText, opening: int) -> TokenText:
    """Put another opening token before every window of a text.

    Args:
        text: of :func:`token_text`.
        opening: id of the token.
    """
    return replace(text, windows=tuple((opening, *window[1:]) for window in text.windows))
