"""Division of the pool into calibration and training documents, by draw or by relevance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from minigpt.corpus.relevance import Encoder, covering_order, embed, irrelevant, round_robin
from minigpt.corpus.split import CALIBRATION_BYTES, Shares, by_draw, sizes_of, take
from minigpt.progress import Reporter
from minigpt.types import Document

Parts = tuple[list[Document], list[Document]]


def part_by_draw(pool: list[Document], *, seed: int, shares: Shares) -> Parts:
    """Draw the calibration documents at random; return (calibration, training).

    Args:
        pool: Passages that are neither held-out nor dev.
        seed: Seed of the draw.
        shares: Shares of the splits.
    """
    return _part(pool, by_draw((document.source for document in pool), seed), shares)


def part_by_relevance(
    pool: list[Document],
    seeds: Sequence[str],
    encoder: Encoder,
    *,
    seed: int,
    shares: Shares,
    tally: Counter[str],
    reporter: Reporter,
) -> Parts:
    """Drop irrelevant documents and choose calibration documents that cover the rest; return (calibration, training).

    Args:
        pool: Passages that are neither held-out nor dev.
        seeds: Sentences that say what the domain is about.
        encoder: Encoder of passages and seed sentences.
        seed: Seed of the draws.
        shares: Shares of the splits.
        tally: Counts of dropped passages; `irrelevant` is added.
        reporter: Receives progress.
    """
    if not pool:
        return [], []
    embedded = embed(pool, seeds, encoder, seed=seed, reporter=reporter)
    dropped = set(irrelevant(embedded))
    kept = [document for document in pool if document.source not in dropped]
    tally["irrelevant"] += len(pool) - len(kept)
    rows = [index for index, source in enumerate(embedded.sources) if source not in dropped]
    relevant = replace(
        embedded,
        sources=tuple(embedded.sources[index] for index in rows),
        vectors=embedded.vectors[rows],
        relevance=embedded.relevance[rows],
    )
    sizes = sizes_of(kept)
    wanted = min(CALIBRATION_BYTES, int(shares.calibration_of_pool * sum(sizes.values())))
    return _part(kept, covering_order(relevant, sizes, wanted=2 * wanted), shares)


def _part(pool: list[Document], order: Sequence[str], shares: Shares) -> Parts:
    """Give the first documents of `order` to calibration and the others to training."""
    names = take(order, sizes_of(pool), share=shares.calibration_of_pool, limit=CALIBRATION_BYTES)
    taken = set(names)
    calibration = round_robin([document for document in pool if document.source in taken], names)
    return calibration, [document for document in pool if document.source not in taken]
