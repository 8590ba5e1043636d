"""The job behind `minigpt export`: write the model, prove that it computes the same, and hand it over."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from pathlib import Path

from minigpt import __version__, assets
from minigpt.errors import ExportError
from minigpt.exporting.card import write_card
from minigpt.exporting.formats import Format, format_of, rounding_of
from minigpt.exporting.proof import MEASURE, VERIFY, prove
from minigpt.exporting.prospects import settled
from minigpt.exporting.request import ExportRequest, Writer, Written, read_corpus
from minigpt.files import atomic_path, file_sha256, open_to_readers
from minigpt.integrity import write_signed
from minigpt.lazy import resolve
from minigpt.machine import PACKAGES, versions
from minigpt.progress import SILENT, Reporter
from minigpt.progress.stages import Stage, counted, passing
from minigpt.runtimes import RECORD, ExportRecord, Source, is_export
from minigpt.transformer.arch import shape_of

READ, WRITE = "read", "write"
# Stages of an export; a format that nothing runs is only written.
STAGES = (
    Stage(name=READ, title="Reading the text"),
    Stage(name=WRITE, title="Writing"),
    Stage(name=VERIFY, title="Verifying against PyTorch"),
    Stage(name=MEASURE, title="Measuring bits per byte"),
)


def export(request: ExportRequest, *, reporter: Reporter = SILENT) -> ExportRecord:
    """Write `request.source` into `request.output_dir` and prove that it computes the same.

    Everything happens in a temporary folder beside `output_dir`; an export that fails its checks leaves nothing.

    Args:
        request: the model, the format and the text to measure on.
        reporter: receives progress.

    Returns:
        The record that is saved as `export.json`.

    Raises:
        UnknownName: no such format.
        ConfigError: the format does not come in that precision, or the domain cannot be used.
        CorpusError: the domain has too little text.
        ExportError: a package is missing, the target is in use, the format cannot hold the model, or the export does
            not compute what its source does.
        AssetError: nothing here reads what would be written.
        UnsupportedModel: the model cannot be rounded as the request says.
    """
    row, precision = format_of(request.format, request.precision)
    rounding_of(request.format, precision, request.rounding)  # refuse before transformers is imported
    request = replace(request, precision=precision)
    check_packages(request.format, row)
    check_target(request.output_dir, force=request.force)
    if row.runtime:
        request = settled(request)
    started = time.perf_counter()
    reporter = counted(reporter, [stage for stage in STAGES if row.runtime or stage.name == WRITE])
    if row.runtime:
        # Rounding calibrates on this text and the proof measures on it, so it is read once, before the slow work.
        with passing(reporter, READ, "Reading the text"):
            request = replace(request, corpus=read_corpus(request, reporter=reporter))
    with atomic_path(request.output_dir) as folder:
        folder.mkdir()
        with passing(reporter, WRITE, f"Writing {request.format} in {precision}"):
            writer: Writer = resolve(row.write)
            written = writer(request, folder, reporter)
        record = _new_record(request, row, written, folder)
        write_signed(folder / RECORD, record)
        if row.runtime:
            record = prove(request, record, folder, reporter)
        write_card(request, row, record, folder)
        record = replace(record, files=_file_hashes(folder), seconds=time.perf_counter() - started)
        write_signed(folder / RECORD, record)
        open_to_readers(folder)
    return record


def write_unproved(request: ExportRequest, *, reporter: Reporter = SILENT) -> ExportRecord:
    """Write a model that is only to be timed, or is measured by other means: nothing is verified here.

    Args:
        request: the model and the format. Where it names no rounding, int4 is rounded to the nearest code, which needs
            no text.
        reporter: receives progress.

    Raises:
        UnknownName: no such format.
        ConfigError: the format does not come in that precision.
        ExportError: a package is missing, the target is in use, or the model cannot be written in this format.
    """
    row, precision = format_of(request.format, request.precision)
    plain = "nearest" if rounding_of(request.format, precision, request.rounding) else None
    request = replace(request, precision=precision, rounding=request.rounding or plain)
    check_packages(request.format, row)
    check_target(request.output_dir, force=request.force)
    if row.runtime:
        request = settled(request, proved=False)
    writer: Writer = resolve(row.write)
    with atomic_path(request.output_dir) as folder:
        folder.mkdir()
        record = _new_record(request, row, writer(request, folder, reporter), folder)
        write_signed(folder / RECORD, record)
    return record


def check_packages(name: str, row: Format) -> None:
    """Check that the packages of a format are installed, before any work is done.

    Args:
        name: the format's name, for the message.
        row: the format.

    Raises:
        ExportError: a package is missing.
    """
    missing = [package for package in row.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"{name} needs {', '.join(missing)}: pip install 'minigpt[{row.extra}]'.")


def check_target(folder: Path, *, force: bool) -> None:
    """Check that an export may be written to `folder`.

    Args:
        folder: the folder to create.
        force: whether an earlier export there may be replaced. Nothing else is ever replaced.

    Raises:
        ExportError: the folder is in use, or is the current one, which a finished export cannot replace.
    """
    if folder.resolve() == Path.cwd():
        raise ExportError(f"--output-dir {folder} is the folder you are in; name a new one below it.")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_export(folder):
        raise ExportError(f"{folder} exists and is not an export of minigpt; choose another --output-dir.")
    if not force:
        raise ExportError(f"{folder} already holds an export; give --force to write it again.")


def _new_record(request: ExportRequest, row: Format, written: Written, folder: Path) -> ExportRecord:
    """Describe a written export that is not proved yet."""
    # transformers takes seconds to import; a request that is refused should not wait for it.
    from transformers import AutoConfig

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


def _file_hashes(folder: Path) -> dict[str, str]:
    """Map every file of an export, except its record, to its SHA-256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
