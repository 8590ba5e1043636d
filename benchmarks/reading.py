"""What the benchmarks read: a domain's texts and questions for one parent, loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from minigpt.evaluation import question_scores
from minigpt.healing import TokenText, bits_per_byte
from minigpt.pipeline.read import separated
from minigpt.pipeline.text import calibration_batches, dev_sample, token_text
from minigpt.types import Document

WINDOW = 512
BATCH_TOKENS = 16384


class Reader:
    """A parent, its tokenizer and the texts of a domain and its control.

    Args:
        domain: name or file.
        base: reference of the parent.
        device: where models go.
        limit: bytes of each text that is read; of each question set one question for every 1,000 (None: all).
    """

    def __init__(self, domain: str, base: str, device: str, limit: int | None = None) -> None:
        definition = load_domain(domain)
        own, control = build_corpus(definition), build_corpus(load_domain(definition.general))
        self.corpus, self.control = separated(own, control)
        self.folder: Path = assets.parent(base).path
        self.device, self.limit = device, limit
        self.tokenizer = assets.load_tokenizer(self.folder)

    def model(self) -> Any:
        """The parent in fp32."""
        return assets.load_model(self.folder, dtype=torch.float32, device=self.device)

    def texts(self, tokenizer: Any) -> dict[str, TokenText]:
        """Dev, held-out and general held-out text for one vocabulary."""
        named = {"dev": self.corpus.dev, "heldout": self.corpus.heldout, "general": self.control.heldout}
        return {name: token_text(tokenizer, self.part(documents), WINDOW) for name, documents in named.items()}

    def part(self, documents: tuple[Document, ...]) -> list[Document]:
        """As many documents as the limit allows."""
        taken: list[Document] = dev_sample(documents, self.limit)
        return taken

    def read(self, model: Any, texts: dict[str, TokenText]) -> dict[str, float]:
        """Bits per byte on each text."""
        return {name: bits_per_byte(model, text) for name, text in texts.items()}

    def ask(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Accuracy on every test set of domain and control."""
        found = {}
        most = None if self.limit is None else max(1, self.limit // 1000)
        for corpus in (self.corpus, self.control):
            for asked in corpus.questions:
                if asked.role == "test" and asked.questions:
                    items = question_scores(model, tokenizer, asked.questions[:most], batch_tokens=BATCH_TOKENS)
                    found[f"{corpus.domain}/{asked.name}"] = sum(items.correct) / len(items.correct)
        return found

    def calibration(self, tokens: int, tokenizer: Any = None) -> list[Any]:
        """Packed calibration text, for the parent's vocabulary or another."""
        batches: list[Any] = calibration_batches(
            tokenizer or self.tokenizer,
            self.corpus.calibration,
            window=WINDOW,
            tokens=tokens,
            batch_tokens=BATCH_TOKENS,
        )
        return batches


def ratios(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """Each text's bits per byte over the other model's."""
    return {name: round(value / theirs[name], 4) for name, value in ours.items()}
