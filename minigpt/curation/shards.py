"""Results of a curation: shards of each split, the domain file that reads them, and a record of what was dropped."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from minigpt.corpus.ownfiles import DECLARED
from minigpt.corpus.split import Passage
from minigpt.curation.context import Context, numbers_of, write_tally
from minigpt.curation.pool import chosen_passages
from minigpt.curation.sides import MEASURED, measured_passages
from minigpt.domain.config import DomainConfig, SourceConfig, resolved_yaml
from minigpt.errors import CorpusError
from minigpt.files import atomic_path, link, write_json, write_text
from minigpt.parsing import load_json

SHARDS = "shards.json"
RECORD = "curation.json"
DOMAIN_FILE = "domain.yaml"
SPLITS = tuple(DECLARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Amount of text.

    Attributes:
        documents: Number of documents.
        passages: Number of passages.
        bytes: Bytes of UTF-8 text.
    """

    documents: int = 0
    passages: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curated:
    """Record of a curated corpus.

    Attributes:
        domain: Name of the domain.
        state: Fingerprint of the text and the settings that it was made from.
        seed: Seed of the splits.
        relevance: True if irrelevant training documents were dropped.
        splits: Amount of text of each split.
        counts: Numbers of passages that were read and dropped.
        files: SHA-256 of each shard by its path.
    """

    domain: str
    state: str
    seed: int
    relevance: bool
    splits: dict[str, Size]
    counts: dict[str, int]
    files: dict[str, str]


def write(context: Context, rank: int, _round: int) -> None:
    """Write the training passages of a partition as shards, one for each source; the last task writes all others."""
    tally: Counter[str] = Counter()
    if rank < context.plan.partitions:
        texts = {"corpus_train": chosen_passages(context, rank, tally)}
    else:
        texts = {f"corpus_{side}": measured_passages(context, side) for side in MEASURED}
    with context.result("write", rank) as folder:
        number = rank % context.plan.partitions
        files = {
            name: digest
            for split, passages in texts.items()
            for name, digest in split_shards(folder, split, number, passages, context.domain)
        }
        sizes = {split: size_of(passages) for split, passages in texts.items()}
        write_json(folder / SHARDS, {"files": files, "splits": sizes})
        write_tally(folder, tally)


def split_shards(
    folder: Path, split: str, number: int, passages: Sequence[Passage], domain: DomainConfig
) -> Iterator[tuple[str, str]]:
    """Write one shard for each source that has passages; yield their paths and hashes."""
    origins = numbers_of(domain)
    by_origin: dict[str, list[Passage]] = {}
    for passage in passages:
        by_origin.setdefault(passage.origin, []).append(passage)
    for origin in sorted(by_origin, key=lambda name: origins[name]):
        path = folder / shard_folder(split, origins[origin], origin) / f"{number:05d}.jsonl"
        path.parent.mkdir(parents=True)
        digest = sha256()
        with path.open("wb") as stream:
            for passage in by_origin[origin]:
                line = row_of(passage)
                digest.update(line)
                stream.write(line)
        yield path.relative_to(folder).as_posix(), digest.hexdigest()


def shard_folder(split: str, number: int, origin: str) -> str:
    """Return the folder of the shards of a split and a source."""
    name = re.sub(r"[^\w.-]+", "-", origin, flags=re.ASCII).strip("-.")[:40]
    return f"{split}/{number:02d}-{name or 'text'}"


def row_of(passage: Passage) -> bytes:
    """Return a passage as a row that domain files can name."""
    document = passage.document
    row = {"text": document.text, "source": document.source, "license": document.license, "ends": document.ends}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def size_of(passages: Sequence[Passage]) -> Size:
    """Measure passages."""
    documents = {passage.document.source for passage in passages}
    size = sum(len(passage.document.text.encode()) for passage in passages)
    return Size(documents=len(documents), passages=len(passages), bytes=size)


def publish(context: Context, output: Path) -> Curated:
    """Put the shards of all tasks into the output folder, the record last.

    Raises:
        CorpusError: Nothing is left to train on, or to measure with.
    """
    folders = context.folders("write")
    parts: list[Mapping[str, Any]] = [load_json((folder / SHARDS).read_text("utf-8")) for folder in folders]
    record = record_of(context, parts)
    empty = [split for split in SPLITS if split != "corpus_other" and not record.splits[split].documents]
    if empty:
        counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in record.counts.items() if count)
        split = empty[0].removeprefix("corpus_")
        raise CorpusError(f"Too little text: nothing is left for {split} ({counts}); add documents.")
    for split in {name.partition("/")[0]: None for name in record.files}:
        with atomic_path(output / split) as temporary:
            temporary.mkdir()
            for folder in folders:
                for file in sorted((folder / split).glob("*/*.jsonl")):
                    target = temporary / file.relative_to(folder / split)
                    target.parent.mkdir(exist_ok=True)
                    link(str(file), str(target))
    write_text(output / DOMAIN_FILE, resolved_yaml(curated_domain(context, record.files)))
    write_json(output / RECORD, record)
    return record


def record_of(context: Context, parts: Sequence[Mapping[str, Any]]) -> Curated:
    """Add up what the tasks wrote."""
    splits = {}
    for split in SPLITS:
        sizes = [Size(**part["splits"][split]) for part in parts if split in part["splits"]]
        splits[split] = Size(
            documents=sum(size.documents for size in sizes),
            passages=sum(size.passages for size in sizes),
            bytes=sum(size.bytes for size in sizes),
        )
    return Curated(
        domain=context.domain.name,
        state=context.plan.state,
        seed=context.plan.seed,
        relevance=context.plan.relevance,
        splits=splits,
        counts=context.tally(),
        files={name: digest for part in parts for name, digest in part["files"].items()},
    )


def curated_domain(context: Context, files: Mapping[str, str]) -> DomainConfig:
    """Return the domain with its sources replaced by the shards, one for each split and source."""
    used = {name.rpartition("/")[0] for name in files}
    return replace(
        context.domain,
        corpus=tuple(
            curated_source(source, split, folder)
            for split in SPLITS
            for number, source in enumerate(context.domain.corpus)
            if (folder := shard_folder(split, number, source.name)) in used
        ),
    )


def curated_source(source: SourceConfig, split: str, folder: str) -> SourceConfig:
    """Return the source that reads the shards of a split and a source."""
    return SourceConfig(
        name=f"{source.name[:100]} ({split.removeprefix('corpus_')})",
        file=folder,
        columns={"ends": "ends"},
        split=DECLARED[split],  # type: ignore[arg-type]
        license=source.license,
        citation=source.citation,
        general_text=source.general_text,
    )
