"""Tasks on the text that is trained on: keep it clear of what measures it, and drop what is irrelevant."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np

from minigpt.corpus.guard import Guard, drop_dev_leaks, guarded_questions
from minigpt.corpus.relevance import FLOOR, TAIL, SentenceEncoder, embed
from minigpt.corpus.sources import read_questions
from minigpt.corpus.split import Passage, draw
from minigpt.curation.context import PLAN, ROWS, Context, context_of, numbers_of, passage_of, write_rows, write_tally
from minigpt.curation.sides import measured_passages, passages_on

SCORES = "scores.npy"
DROPPED = "dropped.npy"
SCORE = np.dtype([("relevance", "f4"), ("document", "u8")])


def guard(context: Context, rank: int, _round: int) -> None:
    """Keep the training passages of a partition that give away no text and no question that measures."""
    tally: Counter[str] = Counter()
    passages = passages_on(context, rank, "pool", tally)
    rules = guard_of(context.work, (context.work / PLAN).stat().st_mtime_ns)
    ids = {id(document) for document in rules.keep([passage.document for passage in passages], tally)}
    kept = [passage for passage in passages if id(passage.document) in ids]
    with context.result("guard", rank) as folder:
        write_rows(folder, kept, numbers_of(context.domain))
        write_tally(folder, tally)


@lru_cache(maxsize=1)
def guard_of(work: Path, _changed: int) -> Guard:
    """Build the guard of a curation, once in each process: its tables hold all text that only measures."""
    context = context_of(work)
    tested = [item.document for side in ("heldout", "other") for item in measured_passages(context, side)]
    dev = [item.document for item in measured_passages(context, "dev")]
    sets = drop_dev_leaks(tuple(read_questions(context.domain, root=context.domain.root)), Counter())
    questions = [guarded_questions(question_set, tested) for question_set in sets]
    return Guard([*tested, *dev], questions, share=context.domain.overlap)


def guarded_passages(context: Context, rank: int) -> list[Passage]:
    """Read what :func:`guard` kept of a partition."""
    with (context.folder("guard", rank) / ROWS).open("rb") as stream:
        return [passage_of(line, context.domain) for line in stream]


def score(context: Context, rank: int, _round: int) -> None:
    """Compute how relevant each training document of a partition is to the domain."""
    documents = [passage.document for passage in guarded_passages(context, rank)]
    scores = np.empty(0, SCORE)
    if documents:
        embedded = embed(documents, context.domain.seeds, encoder_of(), seed=context.plan.seed)
        scores = np.empty(len(embedded.sources), SCORE)
        scores["relevance"] = embedded.relevance
        scores["document"] = [draw(context.plan.seed, source) for source in embedded.sources]
    with context.result("score", rank) as folder:
        np.save(folder / SCORES, scores)


@lru_cache(maxsize=1)
def encoder_of() -> SentenceEncoder:
    """Load the sentence encoder, once in each process, with one thread so that sums do not depend on the machine."""
    import torch

    torch.set_num_threads(1)
    return SentenceEncoder("cpu")


def choose(context: Context, _rank: int, _round: int) -> None:
    """Choose the irrelevant documents of all partitions by :func:`minigpt.corpus.relevance.irrelevant`'s rule."""
    below = [np.empty(0, SCORE)]
    count = 0
    for folder in context.folders("score"):
        scores = np.load(folder / SCORES)
        count += len(scores)
        below.append(scores[scores["relevance"] < FLOOR])
    ordered = np.sort(np.concatenate(below), order=("relevance", "document"))
    with context.result("choose", 0) as folder:
        np.save(folder / DROPPED, np.sort(ordered["document"][: int(TAIL * count)]))


def chosen_passages(context: Context, rank: int, tally: Counter[str]) -> list[Passage]:
    """Read the training passages of a partition, without irrelevant ones.

    Args:
        context: The curation.
        rank: The partition.
        tally: Counts; `irrelevant` is added.
    """
    passages = guarded_passages(context, rank)
    if not context.plan.relevance:
        return passages
    dropped = set(np.load(context.folder("choose", 0) / DROPPED).tolist())
    kept = [item for item in passages if draw(context.plan.seed, item.document.source) not in dropped]
    tally["irrelevant"] += len(passages) - len(kept)
    return kept
