"""Run a suite on a model; torch is imported only when a function is called, so that the command line starts fast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from minigpt.corpus.dedup import count_words
from minigpt.errors import CorpusError
from minigpt.evaluation.answers import answers
from minigpt.evaluation.items import ItemScores, QuestionItems, TextItems
from minigpt.evaluation.loops import asking, reading
from minigpt.evaluation.opening import choose_opening, opening_named
from minigpt.evaluation.recitation import recite
from minigpt.evaluation.suite import Suite
from minigpt.files import fingerprint
from minigpt.progress import SILENT, Reporter
from minigpt.types import Document, Question


def evaluate(
    model: Any,
    tokenizer: Any,
    suite: Suite,
    *,
    batch_tokens: int = 8192,
    window: int = 1024,
    template: str | None = None,
    opening: int | None = None,
    reporter: Reporter = SILENT,
) -> ItemScores:
    """Score every held-out document, question and free answer of `suite`.

    Texts stand behind one opening token. Questions keep the form of their prompt: a tokenizer puts before them what it
    puts before any text (`bos`, or nothing), and no opening is added.

    Args:
        model: A Hugging Face causal model, on any device and in any dtype.
        tokenizer: The model's tokenizer.
        suite: Texts and questions by task name.
        batch_tokens: Most tokens in one forward pass, padding included.
        window: Longest input in tokens (fewer if the model has fewer positions).
        template: Prompt with a `{question}` field (None: "Question: ...", newline, "Answer:").
        opening: Id of the token before every text (None: the one that suits the model best on the suite's dev text).
        reporter: Receives the progress, one bar for each task.

    Returns:
        One record for each document and question, in the order of the suite.
    """
    options: dict[str, Any] = {"batch_tokens": batch_tokens, "window": window, "reporter": reporter}
    if opening is None:
        behind = choose_opening(model, tokenizer, suite.dev, batch_tokens=batch_tokens, reporter=reporter)
    else:
        behind = opening_named(tokenizer, opening)
    texts = {
        task: text_bits(model, tokenizer, documents, opening=behind.token, title=reading(task), **options)
        for task, documents in suite.texts.items()
    }
    questions = {
        task: question_scores(
            model, tokenizer, question_set.questions, title=asking(task), template=template, **options
        )
        for task, question_set in suite.questions.items()
    }
    written = answers(model, tokenizer, suite.answers, batch_tokens=batch_tokens, reporter=reporter)
    recitations = recite(
        model, tokenizer, suite.recitations, opening=behind.token, batch_tokens=batch_tokens, reporter=reporter
    )
    return ItemScores(texts=texts, questions=questions, answers=written, recitations=recitations, opening=behind.text)


def text_bits(
    model: Any,
    tokenizer: Any,
    documents: Sequence[Document],
    *,
    batch_tokens: int = 8192,
    window: int = 1024,
    opening: int | None = None,
    title: str = "Reading",
    reporter: Reporter = SILENT,
) -> TextItems:
    """Count the bits that the model needs for each document, and the document's bytes, words and tokens.

    Bits per byte = sum of -log2 p over all tokens, divided by the UTF-8 bytes of the text. Unlike perplexity per
    token, it compares models with different tokenizers. Each passage is scored by itself, behind the opening token.
    Passages of one source are added up, because an interval must not take them for independent. The opening itself is
    not scored, and a beginning token that the tokenizer would add by itself is left out: neither is text.

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        tokenizer: The model's tokenizer.
        documents: Passages to score; those with the same source form one document.
        batch_tokens: Most tokens in one forward pass, padding included.
        window: Longest input in tokens (fewer if the model has fewer positions).
        opening: Id of the token before every text (None: `bos`, else `eos`).
        title: Title of the progress bar.
        reporter: Receives the progress.

    Raises:
        CorpusError: There is no text.
        MiniGPTError: The model gives no finite probabilities.
    """
    import numpy as np

    from minigpt.evaluation.lm import Row, log_probabilities, prefix_token, window_limit, windows

    if not any(document.text for document in documents):
        raise CorpusError("There is no text to evaluate on; check the sources of the domain.")
    keys = tuple(dict.fromkeys(document.source for document in documents))
    owner = {key: index for index, key in enumerate(keys)}
    rows: list[Row] = []
    counts = np.zeros((3, len(keys)), dtype=np.int64)
    prefix, limit = prefix_token(tokenizer) if opening is None else opening, window_limit(model, window)
    for document in documents:
        tokens = tokenizer.encode(document.text, add_special_tokens=False)
        index = owner[document.source]
        counts[:, index] += len(document.text.encode()), _count_words(document.text), len(tokens)
        for inputs, targets in windows(tokens, prefix=prefix, window=limit):
            where = range(len(inputs) - len(targets), len(inputs))
            rows.append(Row(tokens=inputs, where=where, targets=targets, owners=[index] * len(targets)))
    sums = log_probabilities(model, rows, len(keys), batch_tokens=batch_tokens, title=title, reporter=reporter)
    bytes_, words, tokens_ = (tuple(column.tolist()) for column in counts)
    bits = tuple((-sums / np.log(2)).tolist())
    return TextItems(keys=keys, bits=bits, bytes=bytes_, words=words, tokens=tokens_)


def _count_words(text: str) -> int:
    """Count words as lm-eval does, by white space, but each character in scripts that are written without spaces."""
    return sum(max(1, count_words(piece)) for piece in re.split(r"\s+", text))


def question_scores(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    template: str | None = None,
    batch_tokens: int = 8192,
    window: int = 1024,
    title: str = "Asking",
    reporter: Reporter = SILENT,
) -> QuestionItems:
    """Answer multiple-choice questions by the likelihood of their choices (`minigpt.evaluation.mcq`).

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        tokenizer: The model's tokenizer.
        questions: Questions to ask.
        template: Prompt with a `{question}` field (None: `minigpt.evaluation.mcq.TEMPLATE`).
        batch_tokens: Most tokens in one forward pass, padding included.
        window: Longest input in tokens (fewer if the model has fewer positions).
        title: Title of the progress bar.
        reporter: Receives the progress.

    Raises:
        CorpusError: There are no questions, or one is malformed.
    """
    from minigpt.evaluation.mcq import TEMPLATE, choice_loglikelihoods, pick_choices

    if not questions:
        raise CorpusError("There are no questions to ask; check the question sources of the domain.")
    loglikelihoods = choice_loglikelihoods(
        model,
        tokenizer,
        questions,
        template=template or TEMPLATE,
        batch_tokens=batch_tokens,
        window=window,
        title=title,
        reporter=reporter,
    )
    picks = [pick_choices(question, values) for question, values in zip(questions, loglikelihoods, strict=True)]
    return QuestionItems(
        keys=tuple(fingerprint(question.question, question.choices, question.answer) for question in questions),
        answers=tuple(question.answer for question in questions),
        picks=tuple(raw for raw, _ in picks),
        picks_norm=tuple(norm for _, norm in picks),
        chance=sum(1 / len(question.choices) for question in questions) / len(questions),
    )
