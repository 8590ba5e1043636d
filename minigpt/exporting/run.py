"""`minigpt export`: write, verify, hand over."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from minigpt import __version__, assets
from minigpt.assets import Parent
from minigpt.errors import ExportError
from minigpt.exporting.formats import Format, format_of, rounding_of
from minigpt.files import atomic_path, file_sha256, write_json
from minigpt.lazy import resolve
from minigpt.progress import SILENT, Reporter
from minigpt.runtimes import RECORD, Check, ExportRecord, Source, is_export
from minigpt.types import Corpus

QUALITY_BYTES = 65536
READABLE, READABLE_FOLDER = 0o644, 0o755


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is asked for.

    `precision` None means the format's default, `rounding` likewise (see :class:`Format`). `domain` (a name or file)
    supplies the calibration text of compensated rounding and the held-out text on which the export is measured against
    its source, at most `quality_bytes` of the latter (None: all); `seed` is that of the split, so that with a build's
    seed the text is one the build did not train on. `limit` is for `lm-eval`: at most so many documents and questions.
    `device` is where the source runs; `reporter` is told while the domain's text is read.
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
    device: str = "cpu"
    force: bool = False
    reporter: Reporter = SILENT

    @cached_property
    def corpus(self) -> Corpus:
        """The domain's text, read once for calibration and for measuring."""
        from minigpt.corpus import build_corpus
        from minigpt.domain.config import load_domain

        return build_corpus(load_domain(self.domain), seed=self.seed, reporter=self.reporter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a writer tells: see :class:`minigpt.runtimes.ExportRecord`; `weights` are the files that hold weights.

    `checks` are those of a format that proves itself, for want of a runtime.
    """

    weights: tuple[str, ...]
    bytes_per_token: int = 0
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()


class Writer(Protocol):
    """Writes one format."""

    def __call__(self, request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
        """Write everything but `export.json` and the card into `folder`, which exists and is empty.

        `request.precision` is one of the format's. Tokenizer and config have to lie beside the weights: see
        :func:`minigpt.exporting.common.copy_tokenizer`.

        Raises:
            ExportError: the model cannot be written in this format.
        """


def export(request: ExportRequest, *, reporter: Reporter = SILENT) -> ExportRecord:
    """Write `request.source` into `request.output_dir` and prove that it computes the same.

    Everything happens in a temporary folder beside `output_dir`; an export that fails its checks leaves nothing.

    Raises:
        UnknownName: no such format.
        ConfigError: the format does not come in that precision.
        ExportError: a package is missing, the target is in use, or the export does not compute what its source does.
    """
    row, precision = format_of(request.format, request.precision)
    rounding = rounding_of(request.format, precision, request.rounding)
    request = replace(request, precision=precision, rounding=rounding, reporter=reporter)
    check_packages(request.format, row)
    check_target(request.output_dir, force=request.force)
    started = time.perf_counter()
    with atomic_path(request.output_dir) as folder:
        folder.mkdir()
        with reporter.stage(f"Writing {request.format} in {precision}"):
            writer: Writer = resolve(row.write)
            written = writer(request, folder, reporter)
        record = _record(request, row, written, folder)
        write_json(folder / RECORD, record)
        if row.runtime:
            from minigpt.exporting.proof import prove

            record = prove(request, record, folder, reporter)
        from minigpt.exporting.card import write_card

        write_card(request, row, record, folder)
        record = replace(record, files=_hashes(folder), seconds=time.perf_counter() - started)
        write_json(folder / RECORD, record)
        for path in folder.rglob("*"):
            path.chmod(READABLE_FOLDER if path.is_dir() else READABLE)
    return record


def check_packages(name: str, row: Format) -> None:
    """Refuse before any work what would fail for want of a package.

    Raises:
        ExportError: a package is missing.
    """
    missing = [package for package in row.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"{name} needs {', '.join(missing)}: pip install 'minigpt[{row.extra}]'.")


def check_target(folder: Path, *, force: bool) -> None:
    """Refuse to write over what is there; with `force`, only over another export.

    Raises:
        ExportError: the folder is in use, or is the current one, which a finished export could not take the place of.
    """
    if folder.resolve() == Path.cwd():
        raise ExportError(f"--output-dir {folder} is the folder you are in; name a new one below it.")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_export(folder):
        raise ExportError(f"{folder} exists and is not an export of minigpt; choose another --output-dir.")
    if not force:
        raise ExportError(f"{folder} already holds an export; give --force to write it again.")


def _record(request: ExportRequest, row: Format, written: Written, folder: Path) -> ExportRecord:
    from transformers import AutoConfig

    from minigpt.machine import PACKAGES, versions
    from minigpt.transformer.arch import shape_of

    source = request.source
    return ExportRecord(
        format=request.format,
        precision=str(request.precision),
        source=Source(
            ref=source.ref,
            fingerprint=source.fingerprint,
            precision=source.precision,
            parameters=sum(assets.weights_by_type(source.path).values()),
            bytes=sum(path.stat().st_size for path in source.path.glob("*.safetensors")),
            shape=shape_of(AutoConfig.from_pretrained(source.path, local_files_only=True)),
        ),
        bytes=sum((folder / name).stat().st_size for name in written.weights),
        bytes_per_token=written.bytes_per_token,
        settings=written.settings,
        versions=versions(__version__, (*PACKAGES, *row.needs)),
        files={},
        checks=written.checks,
        seed=request.seed,
    )


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
