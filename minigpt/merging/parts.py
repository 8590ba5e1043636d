"""Builds of delta tickets that are to be merged, and their text, read with the settings of each build.

Text that one of the builds measures or chooses by is kept out of the training text of all, as a build does for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from minigpt.corpus.guard import drop_overlap
from minigpt.corpus.selection import take_bytes
from minigpt.errors import AssetError, CorpusError
from minigpt.files import path_of
from minigpt.models import catalog
from minigpt.pipeline.groundwork import read as read_text
from minigpt.pipeline.read import Corpora, guarded_text
from minigpt.pipeline.recipe import read_recipe
from minigpt.pipeline.run import resolve_run
from minigpt.progress import SILENT, Reporter
from minigpt.recipes import RECIPE
from minigpt.tickets.delta_places import ticket_folder
from minigpt.tickets.delta_store import DeltaRecord
from minigpt.types import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A build of a delta ticket that is merged.

    Attributes:
        build: folder of the build.
        ticket: folder of its ticket.
    """

    build: Path
    ticket: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PartText:
    """Text of one of the builds that are merged.

    Attributes:
        domain: name of its domain.
        train: training text, which none of the builds measures or chooses by.
        dev: dev text, which none of the builds measures.
    """

    domain: str
    train: tuple[Document, ...]
    dev: tuple[Document, ...]


def part_of(ref: str) -> Part:
    """Find a build of a delta ticket by its folder or its id in the catalog.

    Raises:
        AssetError: it is none, or does not say from which text it was made.
    """
    path = path_of(ref)
    path = path if path.exists() else catalog.resolve(ref)
    ticket = ticket_folder(path)
    build = ticket.parent if ticket is not None else path
    if ticket is None or not (build / "domain.yaml").is_file() or not (build / "report.json").is_file():
        raise AssetError(f"{ref} is no build of a delta ticket. Make one: minigpt build --domain D --delta 0.05.")
    if not (build / RECIPE).is_file():
        raise AssetError(f"{ref} has no {RECIPE}, so its text cannot be read again. Build it once more.")
    return Part(build=build, ticket=ticket)


def check_same_parent(parts: Sequence[Part], records: Sequence[DeltaRecord]) -> None:
    """Refuse tickets of different parents, or of one in different types.

    Raises:
        AssetError: they are.
    """
    for part, record in zip(parts, records, strict=True):
        if record.dtype != records[0].dtype:
            raise AssetError(
                f"{part.ticket} is stored in {record.dtype}, and {parts[0].ticket} in {records[0].dtype}; build both "
                "with one --dtype."
            )
        if record.parent != records[0].parent:
            raise AssetError(f"{part.ticket} has another parent than {parts[0].ticket}; merge tickets of one parent.")


def read_parts(parts: Sequence[Part], reporter: Reporter = SILENT) -> list[PartText]:
    """Read the text of all builds, and keep apart what one measures and what another learns from.

    Raises:
        CorpusError: text is missing, or nothing is left of it.
    """
    return keep_apart([_corpora_of(part, reporter) for part in parts])


def _corpora_of(part: Part, reporter: Reporter) -> Corpora:
    """Read the text of a build with the settings in its recipe, which decide about its splits."""
    options = read_recipe(part.build / RECIPE)
    with TemporaryDirectory(prefix="minigpt-") as scratch:
        corpora, _ = read_text(resolve_run(options.domains[0], options, reporter, folder=Path(scratch)))
    return corpora


def keep_apart(corpora: Sequence[Corpora]) -> list[PartText]:
    """Drop training text that any of the builds measures or chooses by, and dev text that any of them measures.

    Raises:
        CorpusError: all training or dev text of a domain goes.
    """
    # As strict as the strictest of the builds was with its own text.
    share = min(one.overlap for one in corpora)
    guarded, questions = [], []
    for one in corpora:
        documents, sets = guarded_text(one.domain, one.general)
        guarded += documents
        questions += sets
    sources = {document.source for document in guarded}
    measured = [document for one in corpora for corpus in (one.domain, one.general) if corpus is not None
                for document in (*corpus.heldout, *corpus.other)]  # fmt: skip
    texts = []
    for one in corpora:
        others = [document for document in one.domain.train if document.source not in sources]
        text = PartText(
            domain=one.domain.domain,
            train=tuple(drop_overlap(others, guarded, questions, Counter(), share=share)),
            dev=tuple(drop_overlap(list(one.domain.dev), measured, [], Counter(), share=share)),
        )
        if emptied := "training" if not text.train else "dev" if not text.dev else "":
            raise CorpusError(
                f"All {emptied} text of {text.domain} is text that one of the builds measures; merge builds of other "
                "domains, or give the domain more text."
            )
        texts.append(text)
    return texts


def with_equal_dev(texts: Sequence[PartText], most: int) -> list[PartText]:
    """Cut the dev texts to about the bytes of the smallest, so that each counts as much.

    Args:
        texts: text of each domain.
        most: most bytes of each dev text.
    """
    least = min(most, *(_bytes(text.dev) for text in texts))
    return [replace(text, dev=tuple(take_bytes(text.dev, least))) for text in texts]


def _bytes(documents: Sequence[Document]) -> int:
    """Count the bytes of documents."""
    return sum(len(document.text.encode()) for document in documents)
