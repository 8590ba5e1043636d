"""First tasks of a curation: read a unit, clean it, and sort its passages into partitions by document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from minigpt.corpus import dedup
from minigpt.corpus.cleaning import RANKS, drop_unknown_ends, priority
from minigpt.corpus.localfiles import rows_of_file
from minigpt.corpus.normalize import normalize
from minigpt.corpus.rows import WHOLE
from minigpt.corpus.sources import read_source
from minigpt.corpus.split import STRICTNESS, Passage, draw
from minigpt.curation.context import Context, line_of, numbers_of, passage_of, write_rows, write_tally
from minigpt.curation.near import priority_of
from minigpt.curation.plan import Unit, path_of
from minigpt.curation.ranged import ENTRY, hash_range, places, write_ranged
from minigpt.types import Document

# Bytes of passages that a task holds before it writes them.
SPILL = 1 << 24
GRAMS = "grams.bin"
GRAM_STARTS = "gram-starts.npy"
PASSAGES = "passages.npy"

# What the splits must know of a passage. `document` is the draw of its document, by which it is named.
PASSAGE = np.dtype([("document", "u8"), ("priority", "u8"), ("size", "u4"), ("strictness", "u1")])


def read(context: Context, rank: int, _round: int) -> None:
    """Read one unit, normalize its texts, drop empty ones, and write the others ordered by partition."""
    unit, count = context.plan.units[rank], context.plan.partitions
    source = context.domain.corpus[unit.source]
    tally: Counter[str] = Counter()
    buffer: list[list[bytes]] = [[] for _ in range(count)]
    with context.result("read", rank) as folder:
        size = spills = 0
        for document in documents_of_unit(context, unit):
            tally["read"] += 1
            text = normalize(document.text)
            if not text:
                tally["empty"] += 1
                continue
            cleaned = Document(text=text, source=document.source, license=document.license, ends=document.ends)
            passage = Passage(document=cleaned, origin=source.name, declared=source.split)
            line = line_of(passage, unit.source)
            buffer[draw(context.plan.seed, document.source) % count].append(line)
            size += len(line)
            if size >= SPILL:
                spill(folder, spills, buffer)
                size, spills = 0, spills + 1
        spill(folder, spills, buffer)
        write_tally(folder, tally)


def documents_of_unit(context: Context, unit: Unit) -> Iterator[Document]:
    """Yield the passages of a unit as they are read."""
    source = context.domain.corpus[unit.source]
    if not unit.files:
        yield from read_source(source, root=context.domain.root)
        return
    path = path_of(source, context.domain.root)
    for name in unit.files:
        for _, documents in rows_of_file(source, path, Path(name), span=unit.span or WHOLE):
            yield from documents


def spill(folder: Path, number: int, buffer: list[list[bytes]]) -> None:
    """Write lines that are sorted into partitions, with the byte at which each partition starts, and forget them."""
    starts = [0]
    with (folder / f"{number:04d}.jsonl").open("wb") as stream:
        for lines in buffer:
            starts.append(starts[-1] + stream.write(b"".join(lines)))
            lines.clear()
    np.save(folder / f"{number:04d}.npy", np.array(starts, np.int64))


def lines_of_partition(context: Context, rank: int) -> Iterator[bytes]:
    """Yield the lines of one partition from all units, in their order."""
    for folder in context.folders("read"):
        for index in sorted(folder.glob("*.npy")):
            start, stop = np.load(index, mmap_mode="r")[rank : rank + 2]
            with index.with_suffix(".jsonl").open("rb") as stream:
                stream.seek(int(start))
                yield from stream.read(int(stop - start)).splitlines(keepends=True)


def sketch(context: Context, rank: int, _round: int) -> None:
    """Order the passages of one partition by priority, and describe them for the search for duplicates."""
    seed, domain, count = context.plan.seed, context.domain, context.plan.partitions
    passages = drop_unknown_ends([passage_of(line, domain) for line in lines_of_partition(context, rank)])
    passages.sort(key=lambda passage: priority(passage, seed))
    tokens = [dedup.words(passage.document.text) for passage in passages]
    shingles = [dedup.grams(words, dedup.SHINGLE) for words in tokens]
    described = np.fromiter(_described(passages, seed), PASSAGE, len(passages))
    keys = np.fromiter(
        (
            draw(0, dedup.exact_key(words, passage.document.text))
            for words, passage in zip(tokens, passages, strict=True)
        ),
        np.uint64,
        len(passages),
    )
    rows = np.arange(len(passages))
    bands = dedup.band_hashes(shingles)
    with context.result("sketch", rank) as folder:
        write_rows(folder, passages, numbers_of(domain))
        np.save(folder / PASSAGES, described)
        np.concatenate([np.empty(0, np.uint64), *shingles]).tofile(folder / GRAMS)
        np.save(folder / GRAM_STARTS, np.cumsum([0, *map(len, shingles)], dtype=np.int64))
        for name, hashes, owners in (("keys", keys, rows), ("bands", bands.ravel(), rows.repeat(bands.shape[1]))):
            entries = np.empty(len(hashes), ENTRY)
            entries["hash"], entries["place"] = hashes, places(rank, owners)
            entries["priority"] = described["priority"][owners]
            write_ranged(folder, name, entries, hash_range(hashes, count), count)


def _described(passages: Iterable[Passage], seed: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of `PASSAGE` of each passage."""
    for passage in passages:
        document = passage.document
        drawn = draw(seed, document.source, document.text)
        yield (
            draw(seed, document.source),
            priority_of(RANKS[passage.declared], drawn),
            len(document.text.encode()),
            STRICTNESS[passage.declared],
        )
