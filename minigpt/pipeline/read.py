"""What a build reads: the text of domain and control, kept apart, and the state of the files behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from minigpt.assets.refs import PathRef, parse_ref
from minigpt.corpus import build_corpus, load_corpus, save_corpus
from minigpt.corpus.guard import without_overlap
from minigpt.domain.config import DomainConfig, load_domain, resolved_yaml
from minigpt.errors import ConfigError, CorpusError
from minigpt.files import fingerprint
from minigpt.pipeline.settings import Settings
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import Reporter
from minigpt.types import Corpus, Document, QuestionSet

TEXT = "corpus"


def control_of(domain: DomainConfig, settings: Settings) -> DomainConfig | None:
    """The control domain, unless the settings leave it out or the domain is its own."""
    if not settings.evaluation.general or domain.general == domain.name:
        return None
    return load_domain(domain.general)


def state_of(domain: DomainConfig, control: DomainConfig | None, base: str) -> str:
    """Names everything the result is made from: definitions, and size and time of every local file they name.

    A text that was changed or taken away, or another parent at the same path, gives another state.
    """
    named = [each for each in (domain, control) if each is not None]
    files = [path for each in named for path in _paths(each)]
    parent = parse_ref(base)
    files += [parent.path] if isinstance(parent, PathRef) else []
    return fingerprint([resolved_yaml(each) for each in named], [_stamp(path) for path in files])


def _paths(domain: DomainConfig) -> Iterator[Path]:
    named = [*(source.file for source in domain.corpus), *(asked.file for asked in domain.questions)]
    yield from (domain.root / name for name in named if name is not None)


def _stamp(path: Path) -> list[tuple[str, int, int]]:
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(item, item.stat()) for item in found if item.is_file()]
    return [(str(item), stat.st_size, stat.st_mtime_ns) for item, stat in stats]


def read_text(
    domain: DomainConfig,
    control: DomainConfig | None,
    settings: Settings,
    seed: int,
    workspace: Workspace,
    reporter: Reporter,
    state: str,
) -> tuple[Corpus, Corpus | None]:
    """The corpora of domain and control, separated, from the workspace if they were read before."""

    def make(folder: Path) -> None:
        chosen = settings.corpus
        own = build_corpus(
            domain, seed=seed, relevance=chosen.relevance, max_documents=chosen.max_documents, reporter=reporter
        )
        if control is not None:
            with reporter.stage("Keeping domain and control apart"):
                own, other = separated(own, build_corpus(control, seed=seed, reporter=reporter))
            save_corpus(other, folder / "control")
        save_corpus(own, folder / "domain")

    folder, _ = workspace.stage(TEXT, fingerprint(state, settings.corpus, seed), make)
    return load_corpus(folder / "domain"), load_corpus(folder / "control") if control is not None else None


def separated(own: Corpus, control: Corpus) -> tuple[Corpus, Corpus]:
    """Both corpora without training text that overlaps what either is tested or decided on.

    General text is calibrated and trained on too, so that no held-out or dev document of the domain may stand in it,
    nor one of the control's held-out documents in the domain's training text. And it decides, where its loss is
    bounded: no held-out document of the domain may stand in the control's dev text.

    Raises:
        CorpusError: nothing is left to train or calibrate on.
    """
    tally: Counter[str] = Counter()
    guarded, questions = guarded_by(own, control)
    sources = {document.source for document in guarded}

    def clean(documents: tuple[Document, ...]) -> tuple[Document, ...]:
        apart = [document for document in documents if document.source not in sources]
        tally["control_shares_document"] += len(documents) - len(apart)
        return tuple(without_overlap(apart, guarded, questions, tally))

    own = _with(own, train=clean(own.train), calibration=clean(own.calibration))
    decided = without_overlap(list(control.dev), own.heldout, [], tally)
    control = _with(
        replace(control, dev=tuple(decided)), train=clean(control.train), calibration=clean(control.calibration)
    )
    if not own.train or not own.calibration:
        raise CorpusError(
            f"All training text of {own.domain} overlaps held-out text or questions of it or of its control; give the "
            "control other text, or the domain more."
        )
    counts = {**own.counts, **{f"control_{name.removeprefix('control_')}": count for name, count in tally.items()}}
    return replace(own, counts=counts), control


def check_bound(domain: DomainConfig, general: Corpus | None, settings: Settings) -> None:
    """Refuse a bound on general text that cannot be kept or measured.

    Raises:
        ConfigError: it is not above 1, or there is no general text.
    """
    if settings.keep_general is None:
        return
    if not settings.keep_general > 1:
        raise ConfigError(f"--keep-general must be above 1, not {settings.keep_general:g}: pruning costs something.")
    if general is None or not (general.train and general.dev and general.calibration):
        raise ConfigError(
            f"--keep-general needs general text, and {domain.name} is measured against none; name a control as "
            "`general` in its domain file."
        )


def guarded_by(own: Corpus, control: Corpus | None) -> tuple[list[Document], list[QuestionSet]]:
    """What no training text may hold: held-out and dev text of domain and control, and their test questions.

    Questions whose definitions are meant to stand in the training text (`seen`) guard nothing.
    """
    both = [own] if control is None else [own, control]
    documents = [document for corpus in both for document in (*corpus.heldout, *corpus.dev)]
    asked = [each for corpus in both for each in corpus.questions]
    return documents, [each for each in asked if each.role == "test" and not each.seen]


def clear_of_tests(documents: list[Document], own: Corpus, control: Corpus | None) -> list[Document]:
    """Text that was made, not read, without what gives away held-out text, dev text or test questions."""
    guarded, questions = guarded_by(own, control)
    return without_overlap(documents, guarded, questions, Counter()) if documents else []


def _with(corpus: Corpus, *, train: tuple[Document, ...], calibration: tuple[Document, ...]) -> Corpus:
    from minigpt.corpus.store import fingerprint as name_of

    changed = replace(corpus, train=train, calibration=calibration)
    return replace(changed, fingerprint=name_of(changed))
