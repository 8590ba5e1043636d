"""What the benchmarks read: a domain's texts and questions for one parent, loaded once."""

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
from minigpt.pipeline.read import Corpora, separated
from minigpt.transformer.calibration import calibration_batches
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
        domain_corpus, general = separated(build_corpus(definition), build_corpus(load_domain(definition.general)))
        self.corpora, self.general = Corpora(domain=domain_corpus, general=general), general
        self.folder: Path = assets.parent(base).path
        self.device, self.limit = device, limit
        self.tokenizer = assets.load_tokenizer(self.folder)

    def model(self) -> Any:
        """The parent in fp32."""
        return assets.load_model(self.folder, dtype=torch.float32, device=self.device)

    def texts(self, tokenizer: Any) -> dict[str, TokenText]:
        """Dev, held-out and general held-out text for one vocabulary."""
        named = {
            "dev": self.corpora.domain.dev,
            "heldout": self.corpora.domain.heldout,
            "general": self.general.heldout,
        }
        return {name: token_text(tokenizer, self.part(documents), WINDOW) for name, documents in named.items()}

    def part(self, documents: tuple[Document, ...]) -> list[Document]:
        """As many documents as the limit allows."""
        return take_bytes(documents, self.limit)

    def read(self, model: Any, texts: dict[str, TokenText]) -> dict[str, float]:
        """Bits per byte on each text."""
        return {name: bits_per_byte(model, text) for name, text in texts.items()}

    def ask(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Accuracy on every test set of domain and control."""
        found = {}
        most = None if self.limit is None else max(1, self.limit // 1000)
        for corpus in (self.corpora.domain, self.general):
            for asked in corpus.questions:
                if asked.role == "test" and asked.questions:
                    items = question_scores(model, tokenizer, asked.questions[:most], batch_tokens=BATCH_TOKENS)
                    found[f"{corpus.domain}/{asked.name}"] = sum(items.correct) / len(items.correct)
        return found

    def calibration(self, tokens: int, tokenizer: Any = None) -> list[Any]:
        """Packed calibration text, for the parent's vocabulary or another."""
        batches: list[Any] = calibration_batches(
            tokenizer or self.tokenizer,
            self.corpora.domain.calibration,
            window=WINDOW,
            tokens=tokens,
            batch_tokens=BATCH_TOKENS,
        )
        return batches


def ratios(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """Each text's bits per byte over the other model's."""
    return {name: round(value / theirs[name], 4) for name, value in ours.items()}
