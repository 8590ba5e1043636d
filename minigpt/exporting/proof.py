"""Proof of an export: run it beside its source, and refuse it where the two differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from minigpt import runtimes
from minigpt.errors import ExportError, MiniGPTError, first_line
from minigpt.exporting.quality import measure_quality
from minigpt.exporting.request import ExportRequest
from minigpt.exporting.verify import GREEDY_TOKENS, compare_greedy, compare_logits
from minigpt.progress import Reporter
from minigpt.progress.stages import passing
from minigpt.runtimes import ExportRecord

# Names of the stages of a proof.
VERIFY, MEASURE = "verify", "measure"
# Bits per byte of an export over its source's beyond which rounding is not a loss but a defect.
WORST_RATIO = 1.25


def prove(request: ExportRequest, record: ExportRecord, folder: Path, reporter: Reporter) -> ExportRecord:
    """Run source and export side by side, and measure both.

    Args:
        request: the request that was written.
        record: the record of the export, without proof.
        folder: the folder of the export.
        reporter: receives progress.

    Returns:
        The record with checks, greedy text and quality.

    Raises:
        CorpusError: the domain has no held-out text.
        ExportError: a check failed. Logits differ from the source's (fp32) or from the export's own when it is run in
            another way, greedy text differs (fp32), the tokenizers disagree, or bits per byte rise beyond
            `WORST_RATIO`.
    """
    with passing(reporter, VERIFY, "Verifying against PyTorch"):
        source = runtimes.load(request.source.path, device=request.device)
        exported = runtimes.load(folder, device=request.device)
        with naming_failures(record), reporter.stage("Comparing logits"):
            checks = compare_logits(source, exported, precision=record.precision)
        with naming_failures(record), reporter.stage("Comparing greedy text"):
            greedy = compare_greedy(source, exported, required=record.precision == "fp32")
    checked = replace(record, checks=(*record.checks, *checks), greedy=greedy)
    refuse_failures(checked)
    with naming_failures(record), passing(reporter, MEASURE, "Measuring bits per byte of both"):
        quality = measure_quality(source, exported, request, reporter)
    if quality.ratio > WORST_RATIO:
        raise ExportError(
            f"The {record.format} export in {record.precision} needs {quality.ratio:.2f} times its source's bits per "
            f"byte of {quality.domain}; beyond {WORST_RATIO} it is another model. Choose a higher precision."
        )
    return replace(checked, quality=quality)


@contextmanager
def naming_failures(record: ExportRecord) -> Iterator[None]:
    """Turn a failure of a runtime, which may be of any type, into an error that names the format.

    Raises:
        ExportError: the runtime cannot run what was written.
    """
    try:
        yield
    except MiniGPTError:
        raise
    except Exception as error:
        raise ExportError(
            f"The {record.format} runtime cannot run this export ({first_line(error)}); try another format."
        ) from error


def refuse_failures(record: ExportRecord) -> None:
    """Raise unless every check of the record passed.

    Raises:
        ExportError: a check failed; the message names the first one.
    """
    subject = f"The {record.format} export in {record.precision}"
    for check in record.checks:
        if not check.passed:
            raise ExportError(
                f"{subject} failed its check {check.name!r}: its logits differ from {check.against} by "
                f"{check.difference:.2g}, and {check.tolerance:.2g} is allowed. Nothing was kept; try another format "
                "or report it with the versions of your packages."
            )
    greedy = record.greedy
    if greedy is not None and greedy.required and greedy.agreeing < greedy.tokens:
        raise ExportError(
            f"{subject} failed its check 'greedy text': it differs from the source's after {greedy.agreeing} of "
            f"{GREEDY_TOKENS} tokens. Nothing was kept; try another format."
        )
