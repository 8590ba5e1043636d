"""Survey of a domain's own text: amount, languages, personal data, and whether it is enough."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.corpus.sources import read_source
from minigpt.corpus.split import Shares
from minigpt.corpus.tasks import read_task
from minigpt.documents.languages import languages
from minigpt.documents.personal import Count, personal_data
from minigpt.domain.config import DomainConfig

# Held-out documents below which a report judges nothing, and below which it warns.
JUDGED = 10
COMFORTABLE = 30
# Bytes of text below which a model learns little, and below which it overfits after few steps.
LITTLE = 200_000
MODEST = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Description of a domain's own text.

    Attributes:
        documents: Number of documents.
        bytes: Size of the text.
        words: Number of words.
        languages: Share of each language by ISO 639-1 code; None where no library tells.
        personal: Counts of personal data by kind; a prompt of a task file counts as a document.
        enough: True if a report could judge a specialist built from it.
        remarks: Sentences on whether it is enough.
    """

    documents: int
    bytes: int
    words: int
    languages: dict[str, float] | None
    personal: dict[str, Count]
    enough: bool
    remarks: tuple[str, ...]


def survey(domain: DomainConfig) -> Survey:
    """Read the text of a domain and describe it.

    Args:
        domain: The domain. Sources that are online are left out.

    Raises:
        CorpusError: A source cannot be read.
    """
    texts: dict[str, list[str]] = {}
    splits: dict[str, set[str]] = {}
    for source in domain.corpus:
        for passage in read_source(source, root=domain.root):
            texts.setdefault(passage.source, []).append(passage.text)
            splits.setdefault(source.split, set()).add(passage.source)
    documents = ["\n".join(passages) for passages in texts.values()]
    size = sum(len(text.encode()) for text in documents)
    heldout = len(splits.get("heldout", ())) or round(Shares().heldout * len(splits.get("auto", ())))
    return Survey(
        documents=len(documents),
        bytes=size,
        words=sum(len(text.split()) for text in documents),
        languages=languages(documents),
        personal=personal_data([*documents, *task_texts(domain)]),
        enough=heldout >= JUDGED and size >= LITTLE,
        remarks=(documents_remark(heldout), size_remark(size)),
    )


def task_texts(domain: DomainConfig) -> list[str]:
    """Read the prompts and answers of a domain's task files, which may be trained on like its text.

    Raises:
        CorpusError: A task file cannot be read.
    """
    tasks = [read_task(config, domain.root) for config in domain.tasks if config.file and not config.online]
    return ["\n".join((item.prompt, *item.answers)) for task in tasks for item in task.prompts]


def shortage(domain: DomainConfig) -> str:
    """Say that a domain has too few documents for its splits; empty if it has enough, or is not of files alone.

    Only as many documents are read as are needed. Copies count once.

    Raises:
        CorpusError: A source cannot be read.
    """
    sources = [source for source in domain.corpus if not source.online]
    if any(source.file is None for source in sources):
        return ""
    declared = {source.split for source in sources}
    needed = 2 + sum(split not in declared for split in ("heldout", "dev"))
    texts: dict[str, str] = {}
    for source in sources:
        if source.split in ("auto", "train"):
            for passage in read_source(source, root=domain.root):
                texts.setdefault(passage.text, passage.source)
                if len(set(texts.values())) >= needed:
                    return ""
    count = len(set(texts.values()))
    return (
        f"There {'is' if count == 1 else 'are'} only {count} document{'s' * (count != 1)}, and a build needs at least "
        f"{needed}, one for each split. Add documents."
    )


def documents_remark(heldout: int) -> str:
    """Say what can be measured with so many held-out documents."""
    count = f"About {heldout} documents will be held out for measuring"
    if heldout < JUDGED:
        return f"{count}: too few, a report judges nothing by fewer than {JUDGED}. Add documents."
    if heldout < COMFORTABLE:
        return f"{count}: enough for a verdict, but below {COMFORTABLE} its intervals are wide. More documents help."
    return f"{count}: enough for a verdict."


def size_remark(size: int) -> str:
    """Say what can be learned from so much text."""
    if size < LITTLE:
        return "There is too little text to learn from: a specialist may well be worse than its parent. Add text."
    if size < MODEST:
        return "There is little text: training overfits soon and stops at the best step. More text gives better models."
    return "There is enough text to learn from."
