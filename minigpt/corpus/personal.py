"""Personal data in a corpus: counts by kind, and the warning about them, never the findings themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from minigpt.corpus.sources import read_source
from minigpt.corpus.tasks import read_task
from minigpt.documents.personal import Count, personal_data
from minigpt.domain.config import DomainConfig
from minigpt.progress import SILENT, Reporter
from minigpt.types import Document

# Title of the loop over texts.
TITLE = "Counting personal data"
# Names of a single finding.
SINGLE = {
    "e-mail addresses": "e-mail address",
    "bank accounts (IBAN)": "bank account (IBAN)",
    "payment cards": "payment card",
    "social security numbers": "social security number",
    "dates of birth": "date of birth",
    "identifiers": "identifier",
    "IP addresses": "IP address",
    "phone numbers": "phone number",
    "names after a title": "name after a title",
}


def personal_counts(documents: Iterable[Document]) -> dict[str, int]:
    """Count what looks like personal data in passages, by kind; a kind that does not occur has no entry.

    Args:
        documents: the passages. The same address in two passages counts twice.
    """
    return {kind: count.places for kind, count in personal_data(document.text for document in documents).items()}


def counted_in(texts: Sequence[str], reporter: Reporter) -> dict[str, Count]:
    """Count what looks like personal data in texts, with progress."""
    return personal_data(reporter.track(texts, title=TITLE, total=len(texts)))


def personal_in(domain: DomainConfig, reporter: Reporter = SILENT) -> dict[str, Count]:
    """Count what looks like personal data in the text of a domain as its sources hold it, before any cleaning.

    Args:
        domain: The domain. Sources that are online are left out. A prompt of a task file counts as a document.
        reporter: Receives progress.

    Raises:
        CorpusError: A source or a task file cannot be read.
    """
    return counted_in([*document_texts(domain).values(), *task_texts(domain)], reporter)


def document_texts(domain: DomainConfig) -> dict[str, str]:
    """Read the text of each document of a domain, by its name.

    Raises:
        CorpusError: A source cannot be read.
    """
    texts: dict[str, list[str]] = {}
    for passage in _passages(domain):
        texts.setdefault(passage.source, []).append(passage.text)
    return {name: "\n".join(passages) for name, passages in texts.items()}


def _passages(domain: DomainConfig) -> Iterator[Document]:
    """Yield the passages of all sources of a domain."""
    for source in domain.corpus:
        yield from read_source(source, root=domain.root)


def task_texts(domain: DomainConfig) -> list[str]:
    """Read the prompts and answers of a domain's task files, which may be trained on like its text.

    Raises:
        CorpusError: A task file cannot be read.
    """
    tasks = [read_task(config, domain.root) for config in domain.tasks if config.file and not config.online]
    return ["\n".join((item.prompt, *item.answers)) for task in tasks for item in task.prompts]


def personal_sentence(counts: Mapping[str, int], *, holder: str = "The training text") -> str:
    """Write the counts as a warning; empty if there is nothing to warn of.

    Args:
        counts: numbers by kind, as :func:`personal_counts` gives them.
        holder: the text that was counted in, as the subject of the sentence.
    """
    parts = [f"{count:,} {SINGLE.get(kind, kind) if count == 1 else kind}" for kind, count in counts.items() if count]
    if not parts:
        return ""
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return (
        f"{holder} holds what looks like {listed}; a model can recite such text. Names without a title are not "
        "counted. docs/guide/privacy.md says what to do."
    )
