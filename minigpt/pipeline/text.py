"""Text of a build: the planning text that decides which units are kept, and the training text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minigpt.corpus.definition_questions import definition_documents
from minigpt.corpus.selection import interleave, take_bytes, training_documents
from minigpt.corpus.tasks import task_documents
from minigpt.evaluation.mcq import TEMPLATE
from minigpt.files import fingerprint
from minigpt.healing import TokenText
from minigpt.healing.tokenized import token_text
from minigpt.pipeline.read import Corpora, clear_of_tests
from minigpt.pipeline.settings import Settings
from minigpt.transformer.batches import Batch
from minigpt.transformer.calibration import calibration_batches
from minigpt.types import Document

Documents = tuple[Document, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningText:
    """The text that decides which units are kept; with `text.plan_general` or a bound, general text is half of it.

    Attributes:
        calibration: text for statistics and repair, in this order.
        counted: text in which tokens are counted.
        dev: the domain's dev text, for probes.
        general_dev: general dev text, of which probes read as much; empty without a bound.
        general: general calibration text, for a contrast; empty without general text.
        window: longest piece, in tokens.
        batch_tokens: tokens of one forward pass.
        key: fingerprint of `calibration`, `counted` and the dev text.
        general_key: fingerprint of `general`; empty without general text.
    """

    calibration: Documents
    counted: Documents
    dev: Documents
    general_dev: Documents
    general: Documents
    window: int
    batch_tokens: int
    key: str
    general_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingText:
    """The training text: the same documents for the tuned parent and for the specialist.

    Attributes:
        real: the domain's training text, with general text mixed in.
        definitions: definitions in `real`, put as questions and answers, without those that a test asks.
        answers: training prompts of tasks with free answers, each with its answer, without those that a test asks.
        sampled: passages that the parent wrote after a short tuning on the text above.
        dev: text that decides when to stop.
        general_share: bytes of general text in `real`, relative to the domain's.
        real_key: fingerprint of everything but the sampled passages.
        key: fingerprint of everything.
        sampling_seconds: time that the short tuning and the sampling took.
    """

    real: Documents
    definitions: Documents
    answers: Documents = ()
    sampled: Documents = ()
    dev: Documents
    general_share: float
    real_key: str
    key: str
    sampling_seconds: float = 0.0


def planning_text(corpora: Corpora, settings: Settings) -> PlanningText:
    """Gather the text that decides which units are kept.

    Args:
        corpora: domain and general text.
        settings: the part of general text, the window and the size of a batch are read.
    """
    domain, general = corpora.domain, corpora.general
    calibration, counted = list(domain.calibration), [*domain.calibration, *domain.train]
    general_dev: Documents = ()
    key = domain.fingerprint
    bounded = settings.keep_general is not None
    if general is not None and (settings.text.plan_general or bounded):
        calibration = interleave(calibration, general.calibration)
        size = sum(len(document.text.encode()) for document in counted)
        counted += take_bytes([*general.calibration, *general.train], size)
        # Half of the probes on general text would keep nearly all tokens, at the expense of layers.
        general_dev = general.dev if bounded else ()
        key = fingerprint(domain.fingerprint, general.fingerprint, bounded)
    return PlanningText(
        calibration=tuple(calibration),
        counted=tuple(counted),
        dev=domain.dev,
        general_dev=general_dev,
        general=general.calibration if general is not None else (),
        window=settings.heal.window,
        batch_tokens=settings.evaluation.batch_tokens,
        key=key,
        general_key=general.fingerprint if general is not None else "",
    )


def calibration(text: PlanningText, tokenizer: Any, tokens: int) -> list[Batch]:
    """Pack the calibration text, about `tokens` tokens of it."""
    return _packed(text, text.calibration, tokenizer, tokens)


def general_calibration(text: PlanningText, tokenizer: Any, tokens: int) -> list[Batch]:
    """Pack the general calibration text, about `tokens` tokens of it; empty where there is none."""
    return _packed(text, text.general, tokenizer, tokens) if text.general else []


def _packed(text: PlanningText, documents: Documents, tokenizer: Any, tokens: int) -> list[Batch]:
    """Pack documents into batches of the build's window."""
    return calibration_batches(tokenizer, documents, window=text.window, tokens=tokens, batch_tokens=text.batch_tokens)


def probe_documents(text: PlanningText, limit: int) -> list[Document]:
    """Take about `limit` bytes of dev text, half of them from general text where its loss is bounded."""
    if not text.general_dev:
        return take_bytes(text.dev, limit)
    return [*take_bytes(text.dev, limit // 2), *take_bytes(text.general_dev, limit // 2)]


def training_text(corpora: Corpora, settings: Settings, *, seed: int) -> TrainingText:
    """Gather the training text, without sampled passages.

    Args:
        corpora: domain and general text.
        settings: the texts to add; under a bound on general text, at least as much general text as domain text.
        seed: seed of the wordings of definitions.
    """
    domain, general = corpora.domain, corpora.general
    bounded = general is not None and settings.keep_general is not None
    share = 0.0
    if general is not None:
        share = max(1.0, settings.text.general) if bounded else settings.text.general
    real = training_documents(domain, general, share)
    questions = definition_documents(real, settings.text.definitions, seed, template=TEMPLATE)
    key = fingerprint(
        domain.fingerprint,
        general.fingerprint if general else "",
        corpora.overlap,
        bounded,
        (replace(settings.text, sampled=0, sampled_general=0.0, plan_general=False), seed),
    )
    return TrainingText(
        real=tuple(real),
        definitions=tuple(clear_of_tests(questions, corpora)),
        answers=tuple(clear_of_tests(task_documents(domain.tasks, settings.text.answers), corpora)),
        dev=tuple(take_bytes(domain.dev, settings.text.dev_bytes)),
        general_share=share,
        real_key=key,
        key=key,
    )


def tokenized(
    text: TrainingText, tokenizer: Any, window: int, *, end: int | None = None, sampled: bool = True
) -> tuple[TokenText, TokenText]:
    """Tokenize the training text and the dev text.

    Args:
        text: the text.
        tokenizer: tokenizer of the model that reads.
        window: longest piece in tokens.
        end: token that is trained on where a document ends (None: none is). The dev text has none.
        sampled: whether to read the sampled passages, too.
    """
    documents = (*text.real, *text.definitions, *text.answers, *(text.sampled if sampled else ()))
    return token_text(tokenizer, documents, window, end=end), token_text(tokenizer, text.dev, window)
