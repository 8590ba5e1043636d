"""Survey of a domain's own text: amount, languages, personal data, and whether it is enough."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.corpus.personal import counted_in, task_texts
from minigpt.corpus.sources import read_source
from minigpt.corpus.split import Shares
from minigpt.documents.languages import languages
from minigpt.documents.personal import Count
from minigpt.domain.config import DomainConfig
from minigpt.progress import SILENT, Reporter

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


def survey(domain: DomainConfig, reporter: Reporter = SILENT) -> Survey:
    """Read the text of a domain and describe it.

    Args:
        domain: The domain. Sources that are online are left out.
        reporter: Receives progress.

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
        personal=counted_in([*documents, *task_texts(domain)], reporter),
        enough=heldout >= JUDGED and size >= LITTLE,
        remarks=(documents_remark(heldout), size_remark(size)),
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
