"""Hold an export against its source, and refuse it where it differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from minigpt import runtimes
from minigpt.errors import ExportError, MiniGPTError, first_line
from minigpt.exporting.quality import measure_quality
from minigpt.exporting.run import ExportRequest
from minigpt.exporting.verify import GREEDY_TOKENS, compare_greedy, compare_logits
from minigpt.progress import Reporter
from minigpt.runtimes import ExportRecord

WORST_RATIO = 1.25
"""Bits per byte of an export over its source's beyond which rounding is not a loss but a defect."""


def prove(request: ExportRequest, record: ExportRecord, folder: Path, reporter: Reporter) -> ExportRecord:
    """Run source and export side by side; the record with what was found.

    Raises:
        ExportError: a check failed: logits differ from the source's (fp32) or from the export's own when it is run in
            another way, greedy text parts (fp32), the tokenizers disagree, or bits per byte rise by over a quarter.
    """
    with reporter.stage("Verifying against PyTorch"):
        source = runtimes.load(request.source.path, device=request.device)
        exported = runtimes.load(folder, device=request.device)
        with running(record):
            checks = compare_logits(source, exported, precision=record.precision)
            greedy = compare_greedy(source, exported, required=record.precision == "fp32")
    found = replace(record, checks=(*record.checks, *checks), greedy=greedy)
    refuse_failures(found)
    with running(record):
        quality = measure_quality(source, exported, request, reporter)
    if quality.ratio > WORST_RATIO:
        raise ExportError(
            f"The {record.format} export in {record.precision} needs {quality.ratio:.2f} times its source's bits per "
            f"byte of {quality.domain}; beyond {WORST_RATIO} it is another model. Choose a higher precision."
        )
    return replace(found, quality=quality)


@contextmanager
def running(record: ExportRecord) -> Iterator[None]:
    """Say which format it was whose runtime failed; what runtimes raise is of every type.

    Raises:
        ExportError: the runtime cannot run what was written.
    """
    try:
        yield
    except MiniGPTError:
        raise
    except Exception as error:
        raise ExportError(
            f"The {record.format} runtime cannot run it ({first_line(error)}); try another format."
        ) from error


def refuse_failures(record: ExportRecord) -> None:
    """Raise unless every check of the record passed.

    Raises:
        ExportError: names the first that did not.
    """
    named = f"The {record.format} export in {record.precision}"
    for check in record.checks:
        if not check.passed:
            raise ExportError(
                f"{named} failed its check {check.name!r}: its logits differ from {check.against} by "
                f"{check.difference:.2g}, and {check.tolerance:.2g} is allowed. Nothing was kept; try another format "
                "or report it with the versions of your packages."
            )
    greedy = record.greedy
    if greedy is not None and greedy.required and greedy.agreeing < greedy.tokens:
        raise ExportError(
            f"{named} failed its check 'greedy text': it parts from the source's after {greedy.agreeing} of "
            f"{GREEDY_TOKENS} tokens. Nothing was kept; try another format."
        )
