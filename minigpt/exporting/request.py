"""Types that every writer shares: the request it receives, the result it returns, and its signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minigpt.assets import Parent
from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from minigpt.exporting.formats import QUALITY_BYTES
from minigpt.progress import SILENT, Reporter
from minigpt.runtimes import Check
from minigpt.types import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Everything that one export is asked to do.

    Attributes:
        source: the model to export.
        format: name of a row of :data:`minigpt.exporting.formats.EXPORTERS`.
        output_dir: the folder to create.
        precision: precision of the weights; None means the format's default.
        rounding: how int4 weights are rounded; None means the format's default.
        domain: name or file of the domain that supplies the calibration text of compensated rounding, and the held-out
            text on which the export is measured against its source.
        quality_bytes: most bytes of held-out text to measure on; None means all of it.
        limit: for `lm-eval`, the most documents and questions of each task (None means all); for `draft`, prompts.
        seed: seed of the split. With the seed of a build, the held-out text is text that the build did not train on.
        max_documents: number of the domain's documents to sample, as the build did; None takes all.
        device: torch device that runs the source.
        force: whether an earlier export in `output_dir` may be replaced.
        corpus: the text of `domain` once it is read; :func:`minigpt.exporting.run.export` fills it in.
    """

    source: Parent
    format: str
    output_dir: Path
    precision: str | None = None
    rounding: str | None = None
    domain: str = "general"
    quality_bytes: int | None = QUALITY_BYTES
    limit: int | None = None
    seed: int = 0
    max_documents: int | None = None
    device: str = "cpu"
    force: bool = False
    corpus: Corpus | None = None


def read_corpus(request: ExportRequest, *, reporter: Reporter = SILENT) -> Corpus:
    """Read and split the text of the request's domain.

    Raises:
        ConfigError: the domain cannot be used.
        CorpusError: its text is missing, malformed or too little.
    """
    return build_corpus(
        load_domain(request.domain), seed=request.seed, max_documents=request.max_documents, reporter=reporter
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The result of a writer; its parts go into :class:`minigpt.runtimes.ExportRecord`.

    Attributes:
        weights: names of the files that hold weights.
        bytes_per_token: bytes of weights that decoding one token reads.
        settings: how the format was written, for the record.
        checks: the checks of a format that has no runtime and therefore proves itself.
    """

    weights: tuple[str, ...]
    bytes_per_token: int = 0
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()


class Writer(Protocol):
    """The signature of a function that writes one format."""

    def __call__(self, request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
        """Write everything but `export.json` and the card into `folder`.

        Tokenizer and config have to lie beside the weights: see :func:`minigpt.exporting.common.copy_tokenizer`.

        Args:
            request: the request, with `precision` set to one of the format's.
            folder: an empty folder that exists.
            reporter: receives progress.

        Raises:
            ExportError: the model cannot be written in this format.
        """
