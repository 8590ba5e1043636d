"""From a domain definition to a clean corpus in four disjoint splits: the story of the pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from minigpt.corpus.calibrate import part_by_draw, part_by_relevance
from minigpt.corpus.cleaning import clean, sampled, without_duplicates
from minigpt.corpus.guard import by_seen, tested, without_dev_leaks, without_overlap
from minigpt.corpus.relevance import Encoder, SentenceEncoder
from minigpt.corpus.sources import read_questions, read_source
from minigpt.corpus.split import Passage, Shares, Side, hold_out, on_side, sizes_of
from minigpt.corpus.store import SPLITS, fingerprint
from minigpt.domain.config import DomainConfig
from minigpt.errors import CorpusError
from minigpt.progress import SILENT, Reporter
from minigpt.types import Attribution, Corpus, Document

SHARES = Shares()


def build_corpus(
    domain: DomainConfig,
    *,
    seed: int = 0,
    relevance: bool = False,
    max_documents: int | None = None,
    encoder: Encoder | None = None,
    reporter: Reporter = SILENT,
) -> Corpus:
    """Read a domain's text and questions and split them so that no text stands on two sides.

    The result follows from the text, the domain and the seed, not from the order of reading. Every beginning of a
    split is a fair sample of it.

    Args:
        domain: The definition, whose `general` control text is a domain of its own and built by another call.
        seed: Chooses the split and the order of the documents.
        relevance: Leave out training documents foreign to the domain's seed texts and choose calibration documents
            that cover the domain, both by embeddings. Held-out and dev text is never filtered.
        max_documents: Keep a random sample of this many of the documents that no source declares held-out or dev.
        encoder: Replaces the packaged sentence encoder.
        reporter: Receives progress.

    Raises:
        CorpusError: no text, or too few documents for four splits.
    """
    tally: Counter[str] = Counter()
    with reporter.stage(f"Reading the {domain.title or domain.name} corpus"):
        passages = sampled(clean(_read(domain, reporter), tally), max_documents, seed, tally)
        passages = without_duplicates(passages, seed, tally)
        questions = without_dev_leaks(tuple(read_questions(domain, root=domain.root)), tally)
        sides = hold_out(passages, seed=seed, shares=SHARES, history=_said(tally))
        heldout, dev, pool = _sides(passages, sides, tally)
        dev = without_overlap(dev, heldout, (), tally, share=domain.overlap)
        asked = [tested(found, heldout) for found in questions]
        pool = without_overlap(pool, [*heldout, *dev], asked, tally, share=domain.overlap)
    if relevance and domain.seeds:
        with reporter.stage("Choosing relevant text"):
            chosen = encoder or SentenceEncoder()
            calibration, train = part_by_relevance(
                pool, domain.seeds, chosen, seed=seed, shares=SHARES, tally=tally, reporter=reporter
            )
    else:
        calibration, train = part_by_draw(pool, seed=seed, shares=SHARES)
    corpus = Corpus(
        domain=domain.name,
        calibration=tuple(calibration),
        train=tuple(train),
        dev=tuple(dev),
        heldout=tuple(heldout),
        questions=tuple(by_seen(questions, train, heldout, limits=_limits(domain), seed=seed)),
        attributions=_attributions(domain, passages, [*calibration, *train, *dev, *heldout]),
        counts=dict(sorted(tally.items())),
    )
    _check(corpus)
    return replace(corpus, fingerprint=fingerprint(corpus))


def _read(domain: DomainConfig, reporter: Reporter) -> Iterator[Passage]:
    for source in domain.corpus:
        for document in reporter.track(read_source(source, root=domain.root), title=source.name):
            yield Passage(document=document, origin=source.name, declared=source.split)


def _sides(passages: list[Passage], sides: dict[str, Side], tally: Counter[str]) -> tuple[list[Document], ...]:
    """Held-out, dev and pool documents, in the order of `passages`."""
    found = tuple(on_side(side, passages, sides) for side in ("heldout", "dev", "pool"))
    tally["declared_elsewhere"] += len(passages) - sum(map(len, found))
    return found


def _limits(domain: DomainConfig) -> dict[str, int | None]:
    return {config.name: config.limit for config in domain.questions}


def _check(corpus: Corpus) -> None:
    """Raise if a split has become empty on the way."""
    for split in SPLITS:
        if not getattr(corpus, split):
            raise CorpusError(f"Too little text: nothing is left for {split} ({_said(corpus.counts)}); add documents.")


def _attributions(
    domain: DomainConfig, passages: Iterable[Passage], kept: Iterable[Document]
) -> tuple[Attribution, ...]:
    """What each source of the domain gave to the splits, sources that gave nothing left out."""
    origin = {(passage.document.source, passage.document.text): passage.origin for passage in passages}
    by_origin: dict[str, list[Document]] = {}
    for document in kept:
        by_origin.setdefault(origin[document.source, document.text], []).append(document)
    return tuple(
        Attribution(
            name=source.name,
            license=_licenses(source.license, by_origin[source.name]),
            citation=source.citation,
            documents=len({document.source for document in by_origin[source.name]}),
            bytes=sum(sizes_of(by_origin[source.name]).values()),
        )
        for source in domain.corpus
        if source.name in by_origin
    )


def _licenses(declared: str, documents: Iterable[Document]) -> str:
    """The source's license, else those of its passages."""
    if declared != "unknown":
        return declared
    return ", ".join(sorted({document.license for document in documents})) or declared


def _said(tally: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in tally.items() if count)
