"""Checks of a domain's own files by reading them: what cannot be read, and whether there is enough to split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from minigpt.corpus.sources import read_question_set, read_source
from minigpt.corpus.split import Shares, must_remain
from minigpt.corpus.survey import COMFORTABLE, documents_remark
from minigpt.domain.config import DomainConfig, SourceConfig
from minigpt.errors import CorpusError

# Passages of a source that are read: text of any size is checked in seconds.
READ = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """Findings about a domain's own files.

    Attributes:
        problems: Sentences on files that cannot be read and on text that cannot be divided.
        remarks: Sentences on how much can be measured, where that is little.
    """

    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def readable(domain: DomainConfig) -> Readable:
    """Read the files of a domain's sources and question sets, each up to a limit.

    Sources of other kinds are not read: they may have to be fetched first.

    Args:
        domain: The domain.
    """
    own = [source for source in domain.corpus if source.file is not None and not source.online]
    problems = list(question_problems(domain))
    names: dict[str, set[str]] = {}
    for source in own:
        try:
            names.setdefault(source.split, set()).update(documents_in(source, domain))
        except CorpusError as error:
            problems.append(f"{source.name}: {error}")
    if problems or len(own) < len(domain.corpus):
        return Readable(problems=tuple(problems))
    return divided({split: len(documents) for split, documents in names.items()})


def documents_in(source: SourceConfig, domain: DomainConfig) -> set[str]:
    """Return the names of a source's documents, of those that are read.

    Raises:
        CorpusError: The source cannot be read.
    """
    return {passage.source for passage in islice(read_source(source, root=domain.root), READ)}


def question_problems(domain: DomainConfig) -> Iterator[str]:
    """Yield the reasons why files of questions cannot be read."""
    for questions in domain.questions:
        if questions.file is not None and not questions.online:
            try:
                read_question_set(questions, root=domain.root)
            except CorpusError as error:
                yield f"{questions.name}: {error}"


def divided(counts: dict[str, int]) -> Readable:
    """Say whether text can be divided, by its number of documents in each split of the domain file.

    Args:
        counts: Documents by split; those of `auto` are divided.
    """
    try:
        must_remain(counts, "")
    except CorpusError as error:
        return Readable(problems=(str(error),))
    heldout = counts.get("heldout", 0) or max(1, round(Shares().heldout * counts.get("auto", 0)))
    return Readable(remarks=(documents_remark(heldout),) if heldout < COMFORTABLE else ())
