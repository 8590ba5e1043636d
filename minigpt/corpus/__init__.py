"""Corpora: text of a domain, read, cleaned, split by document, stored and counted."""

from __future__ import annotations

from minigpt.corpus.build import build_corpus
from minigpt.corpus.describe import statistics
from minigpt.corpus.store import load_corpus, save_corpus

__all__ = ["build_corpus", "load_corpus", "save_corpus", "statistics"]
