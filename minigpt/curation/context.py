"""The folder in which the tasks of a curation work, and the forms in which they hand each other passages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.split import Passage
from minigpt.curation.plan import Plan
from minigpt.domain.config import DomainConfig, load_domain
from minigpt.files import atomic_path, read_json, write_json
from minigpt.types import Document

PLAN = "plan.json"
DOMAIN = "domain.yaml"
TALLY = "tally.json"
ROWS = "rows.jsonl"
STARTS = "starts.npy"

Places = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The folder of a curation, with what all of its tasks must know.

    Attributes:
        work: The folder.
        plan: The plan.
        domain: The domain.
    """

    work: Path
    plan: Plan
    domain: DomainConfig

    def folder(self, stage: str, rank: int) -> Path:
        """Return the folder that holds the result of a task."""
        return self.work / stage / f"{rank:05d}"

    def folders(self, stage: str) -> list[Path]:
        """Return the folders of all tasks of a stage, in their order."""
        return sorted((self.work / stage).glob("[0-9]*"))

    @contextmanager
    def result(self, stage: str, rank: int) -> Iterator[Path]:
        """Yield a folder that becomes the result of a task as a whole or not at all."""
        with atomic_path(self.folder(stage, rank)) as folder:
            folder.mkdir()
            yield folder

    def discard(self, stage: str) -> None:
        """Delete the results of a stage that nothing reads any more, except its counts."""
        for file in (file for folder in self.folders(stage) for file in folder.iterdir()):
            if file.name != TALLY:
                file.unlink(missing_ok=True)

    def tally(self) -> dict[str, int]:
        """Add up the counts of all tasks."""
        total: Counter[str] = Counter()
        for file in sorted(self.work.glob(f"*/*/{TALLY}")):
            total.update(json.loads(file.read_text("utf-8")))
        return dict(sorted(total.items()))


def context_of(work: Path) -> Context:
    """Read the plan and the domain of a curation."""
    return _context(work, (work / PLAN).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _context(work: Path, _changed: int) -> Context:
    plan = read_json(work / PLAN, Plan)
    return Context(work=work, plan=plan, domain=replace(load_domain(str(work / DOMAIN)), root=Path(plan.root)))


def write_tally(folder: Path, tally: Mapping[str, int]) -> None:
    """Write the counts of a task."""
    write_json(folder / TALLY, dict(tally))


def line_of(passage: Passage, origin: int) -> bytes:
    """Return a passage as a line. `origin` is the number of its source."""
    document = passage.document
    row = [document.text, document.source, document.license, document.ends, origin]
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def passage_of(line: bytes, domain: DomainConfig) -> Passage:
    """Return the passage on a line."""
    text, source, license, ends, origin = json.loads(line)
    document = Document(text=text, source=source, license=license, ends=ends)
    return Passage(document=document, origin=domain.corpus[origin].name, declared=domain.corpus[origin].split)


def write_rows(folder: Path, passages: Iterable[Passage], numbers: Mapping[str, int]) -> None:
    """Write passages as lines, with the byte at which each of them starts.

    Args:
        folder: Folder of the two files.
        passages: The passages.
        numbers: Number of each source by its name.
    """
    starts = [0]
    with (folder / ROWS).open("wb") as stream:
        for passage in passages:
            starts.append(starts[-1] + stream.write(line_of(passage, numbers[passage.origin])))
    np.save(folder / STARTS, np.array(starts, np.int64))


def read_rows(folder: Path, wanted: NDArray[np.bool_], domain: DomainConfig) -> list[Passage]:
    """Read the passages that are wanted.

    Args:
        folder: Folder of :func:`write_rows`.
        wanted: True for each passage to read, [passages].
        domain: The domain.
    """
    starts = np.load(folder / STARTS)
    passages = []
    with (folder / ROWS).open("rb") as stream:
        for row in np.flatnonzero(wanted):
            if stream.tell() != starts[row]:
                stream.seek(int(starts[row]))
            passages.append(passage_of(stream.readline(), domain))
    return passages


def numbers_of(domain: DomainConfig) -> dict[str, int]:
    """Return the number of each source by its name."""
    return {source.name: number for number, source in enumerate(domain.corpus)}
