"""Division of a domain's text into units that are read apart, by the text alone and never by the workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minigpt.corpus.rows import Span, files_in, spans
from minigpt.corpus.sources import fetch_data
from minigpt.domain.config import DomainConfig, SourceConfig, resolved_yaml
from minigpt.errors import ConfigError
from minigpt.files import fingerprint

# Version of the procedure: raised when the same text would be curated otherwise.
VERSION = 2
# Bytes of text in a unit and in a partition: the memory of a task grows with them.
SHARD_BYTES = 1 << 24
# Bytes of text behind one byte of a compressed file, about.
UNPACKED = 4
# Bytes that a data set on the Hub is taken for, since its size is not known before it is read.
HUB_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A part of a source that one task reads.

    Attributes:
        source: Number of the source in the domain file.
        files: Files of the source; none for the whole source.
        span: Part of a single long file of JSON lines; None for whole files.
    """

    source: int
    files: tuple[str, ...] = ()
    span: Span | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the tasks of a curation must agree on.

    Attributes:
        units: Units that are read.
        partitions: Number of partitions. All passages of a document are in one of them.
        seed: Seed of the splits and of the order in which duplicates give way.
        relevance: True if training documents that are unlike the domain's seed sentences are dropped.
        root: Folder that the paths of the domain are relative to.
        state: Fingerprint of the text and the settings.
    """

    units: tuple[Unit, ...]
    partitions: int
    seed: int
    relevance: bool
    root: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Settings of a curation.

    Attributes:
        seed: Seed of the splits and of the order in which duplicates give way.
        relevance: True to drop training documents that are unlike the domain's seed sentences.
        shard_bytes: Bytes of text in a unit and in a partition, about. The memory of a worker grows with it.
    """

    seed: int = 0
    relevance: bool = False
    shard_bytes: int = SHARD_BYTES


def check_relevance(source: DomainConfig | Path, wishes: Wishes) -> None:
    """Refuse to choose text by relevance where no seed sentences say what is relevant.

    Args:
        source: The domain, or a folder of text.
        wishes: The settings.

    Raises:
        ConfigError: There are none.
    """
    if not wishes.relevance or (isinstance(source, DomainConfig) and source.seeds):
        return
    name = source.name if isinstance(source, DomainConfig) else f"the folder {source}"
    remedy = "" if isinstance(source, DomainConfig) else ", as `minigpt domains new` writes one"
    raise ConfigError(
        f"--relevance compares text with seed sentences, and {name} has none; list some under `seeds` in a domain "
        f"file{remedy}, or leave --relevance out."
    )


def plan_of(domain: DomainConfig, wishes: Wishes, *, state: str) -> Plan:
    """Divide the text of a domain into units.

    Args:
        domain: The domain. Its online sources are left out.
        wishes: The settings.
        state: Fingerprint of the text and the settings.

    Raises:
        CorpusError: A source is missing.
    """
    sources = [(number, source) for number, source in enumerate(domain.corpus) if not source.online]
    size = sum(bytes_of(source, domain.root) for _, source in sources)
    return Plan(
        units=tuple(
            unit for number, source in sources for unit in units_of(number, source, domain.root, wishes.shard_bytes)
        ),
        partitions=max(1, -(-size // wishes.shard_bytes)),
        seed=wishes.seed,
        relevance=wishes.relevance and bool(domain.seeds),
        root=str(domain.root),
        state=state,
    )


def path_of(source: SourceConfig, root: Path) -> Path:
    """Return the path of a source of files."""
    return root / Path(source.file or "").expanduser()


def units_of(number: int, source: SourceConfig, root: Path, shard_bytes: int) -> Iterator[Unit]:
    """Yield the units of a source. Only files can be divided, and only if all of their documents are wanted."""
    if not source.file or source.limit is not None:
        yield Unit(source=number)
        return
    together: list[str] = []
    size = 0
    for file in files_in(path_of(source, root)):
        bytes_in = file.stat().st_size
        if file.suffix.lower() == ".jsonl" and bytes_in > shard_bytes:
            yield from (Unit(source=number, files=(str(file),), span=span) for span in spans(file, shard_bytes))
            continue
        if together and size + bytes_in > shard_bytes:
            yield Unit(source=number, files=tuple(together))
            together, size = [], 0
        together.append(str(file))
        size += bytes_in
    if together:
        yield Unit(source=number, files=tuple(together))


def data_files(source: SourceConfig, root: Path) -> list[Path]:
    """Return the files that a source is read from; none for one on the Hub."""
    if source.file:
        return files_in(path_of(source, root))
    if source.reader:
        data = fetch_data(source.ref or "", root)
        return sorted(item for item in data.rglob("*") if item.is_file()) if data.is_dir() else [data]
    return []


def bytes_of(source: SourceConfig, root: Path) -> int:
    """Estimate the bytes of text of a source."""
    if source.hub:
        return HUB_BYTES
    files = ((file, file.stat().st_size) for file in data_files(source, root))
    return sum(size * (1 if file.suffix.lower() in (".jsonl", ".txt", ".md") else UNPACKED) for file, size in files)


def state_of(source: DomainConfig | Path, wishes: Wishes) -> str:
    """Fingerprint the text of a domain or a folder, by size and time of its files, and the settings.

    Raises:
        CorpusError: A source is missing.
    """
    if isinstance(source, DomainConfig):
        definition = resolved_yaml(source)
        files = [file for item in source.corpus if not item.online for file in data_files(item, source.root)]
    else:
        definition = str(source.resolve())
        files = sorted(item for item in source.resolve().rglob("*") if item.is_file())
    stamps = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in (file.stat(),)]
    return fingerprint(VERSION, definition, stamps, wishes)
