"""Curation of corpora of any size: shards of text are cleaned, deduplicated and split by many workers."""

from __future__ import annotations

from minigpt.curation.run import curate

__all__ = ["curate"]
