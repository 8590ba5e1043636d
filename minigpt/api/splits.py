"""Splits of a domain's text on which a model is measured: those of the build that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt import report, runtimes
from minigpt.domain.config import load_domain
from minigpt.files import path_of, read_json
from minigpt.merging.run import MERGE, MergeRecord
from minigpt.models import find
from minigpt.pipeline.read import document_limit
from minigpt.progress import SILENT, Reporter
from minigpt.results import BuildReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Rules by which a domain's text is read and split.

    Attributes:
        seed: seed of the splits.
        max_documents: number of documents that are sampled; None takes all.
    """

    seed: int = 0
    max_documents: int | None = None


def split_for(model: str, domain: str, seed: int | None, *, reporter: Reporter = SILENT) -> Split:
    """Choose the split of a domain on which a model is measured.

    Args:
        model: any reference of a model.
        domain: name or file of the domain, or the folder of a build.
        seed: the seed that the user gave (None: that of the build behind the model, else behind the domain, else 0).
        reporter: told where the model was trained on text that this split measures.

    Raises:
        MiniGPTError: the report of a build cannot be read, or there is no such domain.
    """
    builds = builds_behind(model)
    split = _split_of((*builds, *builds_of_domain(domain)), domain, seed, otherwise=_seed_of_export(model))
    if others := sorted({build.seed for build in builds} - {split.seed}):
        reporter.note(
            f"{model} was built with seed {' and '.join(map(str, others))}: with seed {split.seed}, some of the text "
            "that is measured is text that it was trained on."
        )
    return split


def split_of_domain(domain: str, seed: int | None) -> Split:
    """Choose the split of a domain that may be given as the folder of a build, whose split it is then.

    Args:
        domain: name or file of the domain, or the folder of a build.
        seed: the seed that the user gave (None: the build's, else 0).
    """
    return _split_of(builds_of_domain(domain), domain, seed)


def builds_behind(model: str) -> tuple[BuildReport, ...]:
    """Read the reports of the builds that made a model: its own, that of an export's source, those that were merged."""
    if folder := find.build_folder(model):
        return (report.load(folder),)
    path, refs = find.place_of(model), tuple[str, ...]()
    if runtimes.is_export(path):
        refs = (runtimes.read_record(path).source.ref,)
    elif (path / MERGE).is_file():
        refs = read_json(path / MERGE, MergeRecord).parts
    folders = [folder for ref in refs if (folder := find.build_folder(ref)) is not None]
    return tuple(report.load(folder) for folder in folders)


def builds_of_domain(domain: str) -> tuple[BuildReport, ...]:
    """Read the report of the build whose folder, or whose `domain.yaml`, stands for a domain."""
    path = path_of(domain)
    folder = path.parent if path.name == "domain.yaml" else path
    is_build = (folder / "domain.yaml").is_file() and (folder / "report.json").is_file()
    return (report.load(folder),) if is_build else ()


def _split_of(builds: Sequence[BuildReport], domain: str, seed: int | None, *, otherwise: int = 0) -> Split:
    """Choose by the build of this domain, if there is one, else by the first: general text has its seed, too."""
    name = load_domain(domain).name
    of_domain = next((build for build in builds if build.domain == name), None)
    build = of_domain or next(iter(builds), None)
    own = otherwise if build is None else build.seed
    return Split(
        seed=own if seed is None else seed, max_documents=None if of_domain is None else document_limit(of_domain)
    )


def _seed_of_export(model: str) -> int:
    """Return the seed in the record of an export whose source is not here any more; 0 for any other model."""
    path: Path = find.place_of(model)
    return runtimes.read_record(path).seed if runtimes.is_export(path) else 0
