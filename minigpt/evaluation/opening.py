"""Openings: the token that stands before a text, chosen for each model on dev text.

The first token of a text needs something before it. Models differ in what they expect there: after the `<|im_start|>`
of a chat model comes a role and no text. So a model that has never read text behind its own `bos` would be measured at
a disadvantage against one that was trained to. Each model therefore gets the opening that suits it best on dev text,
never on the text that is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigpt.errors import MiniGPTError
from minigpt.files import fingerprint
from minigpt.progress import SILENT, Reporter
from minigpt.types import Document

# Title of the loop that reads the candidates.
OPENING = "Choosing the opening"
# Tokens that models of known families read between documents in pre-training.
SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "</s>", "<s>", "<eos>", "<bos>")
LINE_END = "\n"
# Dev text that is read behind every candidate: beginnings of passages, because an opening matters most right after it.
SAMPLE_BYTES = 6144
PASSAGE_CHARACTERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A token that stands before a text.

    Attributes:
        token: Its id.
        text: What it stands for, e.g. `<|endoftext|>` or a line end.
    """

    token: int
    text: str


def opening_named(tokenizer: Any, token: int) -> Opening:
    """Make the opening of a token id."""
    text = str(tokenizer.decode([token])) or str(tokenizer.convert_ids_to_tokens(token))
    return Opening(token=token, text=text)


def candidates(tokenizer: Any, vocabulary: int) -> tuple[Opening, ...]:
    """List the openings that a tokenizer offers, the usual one (`bos`, else `eos`) first.

    These are `bos`, `eos`, `pad` and the separators of pre-training among the special tokens, and the line end where it
    is one token.

    Args:
        tokenizer: The model's tokenizer.
        vocabulary: Number of ids that the model knows; a tokenizer may have ids beyond it.

    Raises:
        MiniGPTError: There is none.
    """
    tokens = dict.fromkeys(token for token in _tokens(tokenizer) if 0 <= token < vocabulary)
    if not tokens:
        raise MiniGPTError("The tokenizer has no bos_token and no eos_token; set one of them in tokenizer_config.json.")
    return tuple(opening_named(tokenizer, token) for token in tokens)


def _tokens(tokenizer: Any) -> Iterator[int]:
    """Yield the ids of all candidates, some more than once."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if token is not None:
            yield int(token)
    special = {str(token): int(number) for token, number in _special_tokens(tokenizer).items()}
    yield from (special[name] for name in SEPARATORS if name in special)
    line_end = tokenizer.encode(LINE_END, add_special_tokens=False)
    if len(line_end) == 1 and line_end[0] != tokenizer.unk_token_id:
        yield int(line_end[0])


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """Map the special tokens of a tokenizer to their ids."""
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {**dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)), **added}


def sample_for_opening(documents: Sequence[Document], *, limit: int = SAMPLE_BYTES) -> tuple[Document, ...]:
    """Take the beginnings of a few passages, in the order of their hashes, up to `limit` UTF-8 bytes."""
    sample: list[Document] = []
    size = 0
    beginnings = (replace(document, text=document.text[:PASSAGE_CHARACTERS]) for document in documents)
    for beginning in sorted(beginnings, key=lambda item: fingerprint("opening", item.source, item.text)):
        size += len(beginning.text.encode())
        if sample and size > limit:
            break
        sample.append(beginning)
    return tuple(sample)


def choose_opening(
    model: Any,
    tokenizer: Any,
    documents: Sequence[Document],
    *,
    batch_tokens: int = 8192,
    reporter: Reporter = SILENT,
) -> Opening:
    """Find the opening behind which a model needs the fewest bits for dev text; the usual one without text.

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        tokenizer: The model's tokenizer.
        documents: Dev text; a sample of it is read behind every candidate.
        batch_tokens: Most tokens in one forward pass, padding included.
        reporter: Receives the progress.

    Raises:
        MiniGPTError: The tokenizer offers no opening, or the model gives no finite probabilities.
    """
    from minigpt.evaluation.lm import Row, log_probabilities, window_limit

    choices = candidates(tokenizer, int(model.config.vocab_size))
    texts = [document.text for document in sample_for_opening(documents) if document.text]
    if len(choices) == 1 or not texts:
        return choices[0]
    limit = window_limit(model, PASSAGE_CHARACTERS)
    encoded = [list(tokenizer.encode(text, add_special_tokens=False))[:limit] for text in texts]
    rows = [
        Row(tokens=[choice.token, *ids[:-1]], where=range(len(ids)), targets=ids, owners=[owner] * len(ids))
        for owner, choice in enumerate(choices)
        for ids in encoded
        if ids
    ]
    sums = log_probabilities(model, rows, len(choices), batch_tokens=batch_tokens, title=OPENING, reporter=reporter)
    return choices[int(sums.argmax())]
