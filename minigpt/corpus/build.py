"""Build of a corpus: read a domain's text, clean it, split it by document, and keep the splits apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from minigpt.corpus.calibrate import part_by_draw, part_by_relevance
from minigpt.corpus.cleaning import clean, drop_duplicates, drop_unknown_ends, sample_documents
from minigpt.corpus.guard import drop_dev_leaks, drop_overlap, guarded_questions, split_sets_by_seen
from minigpt.corpus.relevance import Encoder, SentenceEncoder
from minigpt.corpus.sources import read_questions, read_source
from minigpt.corpus.split import Passage, Shares, Side, hold_out, on_side, sizes_of
from minigpt.corpus.store import SPLITS, fingerprint
from minigpt.corpus.tasks import file_tasks, guarded_prompts, rule_tasks
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
    """Read a domain's text and questions and split them so that no text is in two splits.

    The result depends on the text, the domain and the seed, but not on the order of reading. The first documents of a
    split are a random sample of it.

    Args:
        domain: The domain. Its general text is a domain too and needs another call.
        seed: Seed of the split and of the order of the documents.
        relevance: True to drop training documents that are unlike the domain's seed sentences, and to choose
            calibration documents that cover the domain, both by embeddings. Only training text is ever filtered.
        max_documents: Number of documents to sample from those that may be trained on; None keeps all.
        encoder: Encoder for `relevance`; None for the packaged sentence encoder.
        reporter: Receives progress.

    Raises:
        CorpusError: There is no text, or there are too few documents for four splits.
    """
    tally: Counter[str] = Counter()
    with reporter.stage(f"Reading the {domain.title or domain.name} corpus"):
        sample = sample_documents(clean(_read(domain, reporter), tally), max_documents, seed, tally)
        passages = drop_duplicates(drop_unknown_ends(sample), seed, tally, reporter)
        questions = drop_dev_leaks(tuple(read_questions(domain, root=domain.root)), tally)
        sides = hold_out(passages, seed=seed, shares=SHARES, history=_tally_text(tally))
        heldout, other, dev, pool = _documents_by_side(passages, sides, tally)
        measured = [*heldout, *other]
        from_files = file_tasks(domain, pool, measured, seed=seed)
        dev = drop_overlap(dev, measured, (), tally, share=domain.overlap)
        guarded = [guarded_questions(question_set, measured) for question_set in questions]
        guarded += guarded_prompts(from_files)
        pool = drop_overlap(pool, [*measured, *dev], guarded, tally, share=domain.overlap)
    if relevance and domain.seeds:
        with reporter.stage("Choosing relevant text"):
            calibration, train = part_by_relevance(
                pool,
                domain.seeds,
                encoder or SentenceEncoder(),
                seed=seed,
                shares=SHARES,
                tally=tally,
                reporter=reporter,
            )
    else:
        calibration, train = part_by_draw(pool, seed=seed, shares=SHARES)
    corpus = Corpus(
        domain=domain.name,
        calibration=tuple(calibration),
        train=tuple(train),
        dev=tuple(dev),
        heldout=tuple(heldout),
        other=tuple(other),
        questions=tuple(split_sets_by_seen(questions, train, measured, limits=_limits(domain), seed=seed)),
        tasks=(*from_files, *rule_tasks(domain, train, heldout, seed=seed)),
        attributions=_attributions(domain, passages, [*calibration, *train, *dev, *measured]),
        counts=dict(sorted(tally.items())),
    )
    _check(corpus)
    return replace(corpus, fingerprint=fingerprint(corpus))


def _read(domain: DomainConfig, reporter: Reporter) -> Iterator[Passage]:
    """Yield the passages of all sources of a domain."""
    for source in domain.corpus:
        for document in reporter.track(read_source(source, root=domain.root), title=source.name):
            yield Passage(document=document, origin=source.name, declared=source.split)


def _documents_by_side(
    passages: list[Passage], sides: dict[str, Side], tally: Counter[str]
) -> tuple[list[Document], ...]:
    """Return the held-out, other, dev and pool documents, each in the order of `passages`."""
    documents = tuple(on_side(side, passages, sides) for side in ("heldout", "other", "dev", "pool"))
    tally["declared_elsewhere"] += len(passages) - sum(map(len, documents))
    return documents


def _limits(domain: DomainConfig) -> dict[str, int | None]:
    """Return the limit of each question set by name."""
    return {config.name: config.limit for config in domain.questions}


def _check(corpus: Corpus) -> None:
    """Raise if cleaning has left a split empty; only `other` may be, where no source declares it."""
    for split in SPLITS:
        if split != "other" and not getattr(corpus, split):
            raise CorpusError(
                f"Too little text: nothing is left for {split} ({_tally_text(corpus.counts)}); add documents."
            )


def _attributions(
    domain: DomainConfig, passages: Iterable[Passage], kept: Iterable[Document]
) -> tuple[Attribution, ...]:
    """Return the attribution of each source that has text in the splits."""
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
            measured_only=source.split in ("heldout", "other"),
        )
        for source in domain.corpus
        if source.name in by_origin
    )


def _licenses(declared: str, documents: Iterable[Document]) -> str:
    """Return the license of a source, or those of its passages if the source declares none."""
    if declared != "unknown":
        return declared
    return ", ".join(sorted({document.license for document in documents})) or declared


def _tally_text(tally: Mapping[str, int]) -> str:
    """Format the counts for a message, e.g. "read 120, empty 3"."""
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in tally.items() if count)
