"""Texts and questions of a domain for one parent, loaded once for all points of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.corpus import build_corpus
from minigpt.corpus.selection import take_bytes
from minigpt.domain.config import load_domain
from minigpt.evaluation import question_scores
from minigpt.healing import TokenText, bits_per_byte
from minigpt.healing.tokenized import token_text
from minigpt.pipeline.read import Corpora, separate
from minigpt.transformer.calibration import calibration_batches
from minigpt.transformer.ends import document_end
from minigpt.types import Document

# Tokens of a window of text, and of a batch of windows or questions.
WINDOW = 512
BATCH_TOKENS = 16384


class Reader:
    """A parent, its tokenizer, the texts of a domain, and the general text (`control`).

    Args:
        domain: name or file of the domain.
        base: reference of the parent.
        device: the device that models are loaded on.
        limit: bytes of each text that are read (None: all). Each question set is cut to one question for every
            1,000 bytes of it.
    """

    def __init__(self, domain: str, base: str, device: str, limit: int | None = None) -> None:
        definition = load_domain(domain)
        other = load_domain(definition.general)
        overlap = min(definition.overlap, other.overlap)
        corpus, general = separate(build_corpus(definition), build_corpus(other), overlap=overlap)
        self.corpora, self.general = Corpora(domain=corpus, general=general, overlap=overlap), general
        self.folder: Path = assets.parent(base).path
        self.device, self.limit = device, limit
        self.tokenizer = assets.load_tokenizer(self.folder)

    def model(self) -> Any:
        """Load the parent in fp32."""
        return assets.load_model(self.folder, dtype=torch.float32, device=self.device)

    def texts(self, tokenizer: Any) -> dict[str, TokenText]:
        """Tokenize dev, held-out and general held-out text with one vocabulary."""
        own = self.corpora.domain
        named = {"dev": own.dev, "heldout": own.heldout, "general": self.general.heldout}
        return {name: token_text(tokenizer, self.part(documents), WINDOW) for name, documents in named.items()}

    def part(self, documents: tuple[Document, ...]) -> list[Document]:
        """Take as many documents as the limit allows."""
        return take_bytes(documents, self.limit)

    def read(self, model: Any, texts: dict[str, TokenText]) -> dict[str, float]:
        """Measure bits per byte on each text."""
        return {name: bits_per_byte(model, text) for name, text in texts.items()}

    def ask(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Measure accuracy on every test set of the domain and of the general text."""
        accuracy = {}
        most = None if self.limit is None else max(1, self.limit // 1000)
        for corpus in (self.corpora.domain, self.general):
            for question_set in corpus.questions:
                if question_set.role == "test" and question_set.questions:
                    questions = question_set.questions[:most]
                    items = question_scores(model, tokenizer, questions, batch_tokens=BATCH_TOKENS)
                    accuracy[f"{corpus.domain}/{question_set.name}"] = sum(items.correct) / len(items.correct)
        return accuracy

    def calibration(self, tokens: int, tokenizer: Any = None) -> list[Any]:
        """Tokenize and pack calibration text, with the parent's vocabulary unless another tokenizer is given."""
        batches: list[Any] = calibration_batches(
            tokenizer or self.tokenizer,
            self.corpora.domain.calibration,
            window=WINDOW,
            tokens=tokens,
            batch_tokens=BATCH_TOKENS,
        )
        return batches


def training_text(tokenizer: Any, model: Any, documents: list[Document], window: int) -> TokenText:
    """Tokenize training text as a build does, with the end token behind each document."""
    end = document_end(tokenizer, model.config, model.generation_config)
    return token_text(tokenizer, documents, window, end=end)


def ratios(bits: dict[str, float], reference: dict[str, float]) -> dict[str, float]:
    """Divide the bits per byte of each text by those of the reference model."""
    return {name: round(value / reference[name], 4) for name, value in bits.items()}
