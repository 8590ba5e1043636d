"""Tasks that hold documents out and collect all text that only measures or guides choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.build import SHARES
from minigpt.corpus.cleaning import priority
from minigpt.corpus.guard import drop_overlap
from minigpt.corpus.split import STRICTNESS, Passage, Side, on_side
from minigpt.curation.context import ROWS, Context, numbers_of, passage_of, read_rows, write_rows, write_tally
from minigpt.curation.drawing import DEV, HELDOUT, Drawn, draw_splits
from minigpt.curation.duplicates import exact_duplicates, near_duplicates, survivors
from minigpt.curation.reading import PASSAGES
from minigpt.files import write_json
from minigpt.parsing import load_json

SIDES = "sides.json"
MEASURED: tuple[Side, ...] = ("heldout", "other", "dev")


def split(context: Context, _rank: int, _round: int) -> None:
    """Draw the held-out and dev documents from the documents of all partitions."""
    dropped = {
        "exact_duplicates": len(exact_duplicates(context)),
        "near_duplicates": len(near_duplicates(context)),
    }

    def parts() -> Iterator[Drawn]:
        for partition in range(context.plan.partitions):
            yield documents_in(context, partition)[1]

    counts = {**context.tally(), **dropped}
    history = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    drawn = draw_splits(parts, SHARES, history=history)
    with context.result("split", 0) as folder:
        write_json(folder / SIDES, {side: sorted(names) for side, names in drawn.items()})
        write_tally(folder, dropped)


def documents_in(context: Context, partition: int) -> tuple[NDArray[np.bool_], Drawn]:
    """Return which passages of a partition are no duplicates, and the documents that these belong to."""
    passages = np.load(context.folder("sketch", partition) / PASSAGES)
    kept = survivors(context, partition, len(passages))
    names, index = np.unique(passages["document"][kept], return_inverse=True)
    documents = Drawn.empty(len(names))
    documents.names[:] = names
    np.add.at(documents.sizes, index, passages["size"][kept])
    np.maximum.at(documents.strictness, index, passages["strictness"][kept])
    return kept, documents


def passages_on(context: Context, partition: int, side: Side, tally: Counter[str]) -> list[Passage]:
    """Read the passages on a side from a partition, without duplicates.

    Args:
        context: The curation.
        partition: The partition.
        side: The side.
        tally: Counts; `declared_elsewhere` is added for passages whose source declares another split.
    """
    folder = context.folder("sketch", partition)
    kept, documents = documents_in(context, partition)
    names = documents.names[sides_of(context, documents) == side]
    kept &= np.isin(np.load(folder / PASSAGES)["document"], names)
    passages = read_rows(folder, kept, context.domain)
    sides = {passage.document.source: side for passage in passages}
    allowed = {id(document) for document in on_side(side, passages, sides)}
    tally["declared_elsewhere"] += len(passages) - len(allowed)
    return [passage for passage in passages if id(passage.document) in allowed]


def sides_of(context: Context, documents: Drawn) -> NDArray[np.str_]:
    """Return the side of each document."""
    drawn = load_json((context.folder("split", 0) / SIDES).read_text("utf-8"))
    sides = np.full(len(documents.names), "pool", "<U8")
    for side in (HELDOUT, DEV):
        sides[np.isin(documents.names, np.array(drawn[side], np.uint64))] = side
    for side in MEASURED:
        sides[documents.strictness == STRICTNESS[side]] = side
    return sides


def measured(context: Context, _rank: int, _round: int) -> None:
    """Collect the text that only measures or guides choices; dev text that overlaps the others is dropped."""
    tally: Counter[str] = Counter()
    partitions = range(context.plan.partitions)
    texts = {
        side: [passage for partition in partitions for passage in passages_on(context, partition, side, tally)]
        for side in MEASURED
    }
    for passages in texts.values():
        passages.sort(key=lambda passage: priority(passage, context.plan.seed))
    texts["dev"] = clear(texts["dev"], [*texts["heldout"], *texts["other"]], context.domain.overlap, tally)
    with context.result("measured", 0) as folder:
        for side in MEASURED:
            (folder / side).mkdir()
            write_rows(folder / side, texts[side], numbers_of(context.domain))
        write_tally(folder, tally)


def clear(passages: Sequence[Passage], guarded: Sequence[Passage], share: float, tally: Counter[str]) -> list[Passage]:
    """Drop passages that overlap guarded ones."""
    documents = [passage.document for passage in passages]
    kept = drop_overlap(documents, [passage.document for passage in guarded], (), tally, share=share)
    ids = {id(document) for document in kept}
    return [passage for passage in passages if id(passage.document) in ids]


def measured_passages(context: Context, side: Side) -> list[Passage]:
    """Read the passages that were collected for a side."""
    with (context.folder("measured", 0) / side / ROWS).open("rb") as stream:
        return [passage_of(line, context.domain) for line in stream]
