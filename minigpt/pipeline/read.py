"""Corpora of a build: read domain and general text, keep them apart, and fingerprint the files behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt.assets.refs import PathRef, parse_ref
from minigpt.corpus import build_corpus, load_corpus, save_corpus
from minigpt.corpus.guard import TEXT_SHARE, drop_overlap
from minigpt.corpus.store import VERSION
from minigpt.corpus.store import fingerprint as corpus_fingerprint
from minigpt.corpus.tasks import guarded_prompts
from minigpt.domain.config import DomainConfig, resolved_yaml
from minigpt.errors import ConfigError, CorpusError
from minigpt.files import fingerprint
from minigpt.pipeline.overrides import apply_overrides
from minigpt.pipeline.settings import PRESETS, CorpusSettings
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import Reporter
from minigpt.results import BuildReport
from minigpt.types import Corpus, Document, QuestionSet

# Stage folder of the corpora.
TEXT = "corpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpora:
    """Domain text and, where there is some, general text, without overlap between training and test text.

    Attributes:
        domain: text of the domain.
        general: general text; None if there is none.
        overlap: share of a measured passage's 8-word runs from which text is too similar to train on, as the stricter
            of both definitions has it.
    """

    domain: Corpus
    general: Corpus | None
    overlap: float = TEXT_SHARE


def document_limit(report: BuildReport) -> int | None:
    """Return how many documents a build sampled at most; None where it read all.

    Reading its domain again with this limit and its seed gives the build's splits.
    """
    if report.preset not in PRESETS:
        return None
    name, settings = "corpus.max_documents", PRESETS[report.preset]
    if name in report.overrides:
        settings = apply_overrides(settings, {name: report.overrides[name]})
    return settings.corpus.max_documents


def source_state(domain: DomainConfig, general: DomainConfig | None, base: str) -> str:
    """Fingerprint everything that a result is made from: definitions, and size and time of every local file in them.

    A changed or missing text, or another parent at the same path, gives another fingerprint.
    """
    definitions = [definition for definition in (domain, general) if definition is not None]
    files = [path for definition in definitions for path in _paths(definition)]
    parent = parse_ref(base)
    files += [parent.path] if isinstance(parent, PathRef) else []
    return fingerprint([resolved_yaml(definition) for definition in definitions], [_stamp(path) for path in files])


def _paths(domain: DomainConfig) -> Iterator[Path]:
    """Yield the local files and folders of text, questions and tasks that a definition names."""
    names = [item.file for group in (domain.corpus, domain.questions, domain.tasks) for item in group]
    yield from (domain.root / name for name in names if name is not None)


def _stamp(path: Path) -> list[tuple[str, int, int]]:
    """List name, size and time of a file, or of all files in a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(item, item.stat()) for item in files if item.is_file()]
    return [(str(item), stat.st_size, stat.st_mtime_ns) for item, stat in stats]


def read_corpora(
    domain: DomainConfig,
    general: DomainConfig | None,
    settings: CorpusSettings,
    *,
    seed: int,
    workspace: Workspace,
    state: str,
    reporter: Reporter,
) -> Corpora:
    """Read, clean and split domain and general text; text that was read before comes from the workspace.

    Args:
        domain: the definition of the field.
        general: the definition of the general text, if there is some.
        settings: how much is read, and whether passages are chosen by relevance.
        seed: seed of the splits.
        workspace: the folder that keeps the corpora.
        state: fingerprint of the sources, of :func:`source_state`.
        reporter: told about progress.

    Raises:
        CorpusError: the text cannot be read, or too little of it is left.
    """
    overlap = min(item.overlap for item in (domain, general) if item is not None)

    def make(folder: Path) -> None:
        corpus = build_corpus(
            domain, seed=seed, relevance=settings.relevance, max_documents=settings.max_documents, reporter=reporter
        )
        if general is not None:
            with reporter.stage("Keeping domain and general text apart"):
                corpus, other = separate(corpus, build_corpus(general, seed=seed, reporter=reporter), overlap=overlap)
            save_corpus(other, folder / "general")
        save_corpus(corpus, folder / "domain")

    folder, _ = workspace.stage(TEXT, fingerprint(VERSION, state, settings, seed), make)
    return Corpora(
        domain=load_corpus(folder / "domain"),
        general=load_corpus(folder / "general") if general is not None else None,
        overlap=overlap,
    )


def separate(domain: Corpus, general: Corpus, *, overlap: float = TEXT_SHARE) -> tuple[Corpus, Corpus]:
    """Drop the training text of both corpora that overlaps the held-out text, dev text or test questions of either.

    General text is calibrated and trained on too, so it may hold no held-out, other or dev document of the domain, and
    the domain's training text may hold none of the general corpus. Dev text of both guides choices, so neither may hold
    text that the other one measures.

    Args:
        domain: text of the domain.
        general: general text.
        overlap: share of runs from which a passage overlaps one that the other corpus measures or chooses by.

    Raises:
        CorpusError: nothing is left to train or calibrate on, or to guide choices.
    """
    tally: Counter[str] = Counter()
    guarded, questions = guarded_text(domain, general)
    sources = {document.source for document in guarded}

    def clean(documents: tuple[Document, ...]) -> tuple[Document, ...]:
        other_sources = [document for document in documents if document.source not in sources]
        tally["control_shares_document"] += len(documents) - len(other_sources)
        return tuple(drop_overlap(other_sources, guarded, questions, tally, share=overlap))

    def clean_dev(dev: tuple[Document, ...], corpus: Corpus) -> tuple[Document, ...]:
        return tuple(drop_overlap(list(dev), [*corpus.heldout, *corpus.other], [], tally, share=overlap))

    dev, general_dev = clean_dev(domain.dev, general), clean_dev(general.dev, domain)
    domain = _with(replace(domain, dev=dev), train=clean(domain.train), calibration=clean(domain.calibration))
    general = _with(
        replace(general, dev=general_dev), train=clean(general.train), calibration=clean(general.calibration)
    )
    emptied = "training" if not domain.train or not domain.calibration else "" if domain.dev else "dev"
    if emptied:
        raise CorpusError(
            f"All {emptied} text of {domain.domain} overlaps text or questions that only measure, its own or those of "
            "its general text; choose other general text, or give the domain more text."
        )
    # Reports have used these keys since schema 1; "control" in them means the general text.
    counts = {**domain.counts, **{f"control_{name.removeprefix('control_')}": count for name, count in tally.items()}}
    return replace(domain, counts=counts), general


def check_bound(domain: DomainConfig, general: Corpus | None, bound: float | None) -> None:
    """Refuse a bound on general text that cannot be kept or measured.

    Args:
        domain: the definition of the field.
        general: general text, if there is some.
        bound: the bound, as a multiple of the parent's bits per byte (None: no bound).

    Raises:
        ConfigError: the bound is not above 1, or there is no general text.
    """
    if bound is None:
        return
    if not bound > 1:
        raise ConfigError(f"--keep-general must be above 1, not {bound:g}: pruning costs something.")
    if general is None or not (general.train and general.dev and general.calibration):
        raise ConfigError(
            f"--keep-general needs general text, and {domain.name} is measured against none; name a `general:` domain "
            "in its domain file."
        )


def guarded_text(domain: Corpus, general: Corpus | None) -> tuple[list[Document], list[QuestionSet]]:
    """Collect the text that no training text may hold: held-out, other and dev text and what both corpora ask in tests.

    Questions whose definitions are meant to be in the training text (`seen`) are left out.
    """
    corpora = [domain] if general is None else [domain, general]
    documents = [document for corpus in corpora for document in (*corpus.heldout, *corpus.other, *corpus.dev)]
    sets = [questions for corpus in corpora for questions in corpus.questions]
    prompts = [prompt for corpus in corpora for prompt in guarded_prompts(corpus.tasks)]
    return documents, [*(item for item in sets if item.role == "test" and not item.seen), *prompts]


def clear_of_tests(documents: list[Document], corpora: Corpora) -> list[Document]:
    """Drop generated documents that overlap held-out text, dev text or test questions."""
    guarded, questions = guarded_text(corpora.domain, corpora.general)
    return drop_overlap(documents, guarded, questions, Counter(), share=corpora.overlap) if documents else []


def _with(corpus: Corpus, *, train: tuple[Document, ...], calibration: tuple[Document, ...]) -> Corpus:
    """Replace the training text of a corpus, and its fingerprint."""
    changed = replace(corpus, train=train, calibration=calibration)
    return replace(changed, fingerprint=corpus_fingerprint(changed))
