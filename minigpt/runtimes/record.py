"""Record of an export (`export.json`): its description, and the proof that it computes the same as its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import MiniGPTError
from minigpt.integrity import is_prose, read_signed, sha256_once
from minigpt.results import BuildReport, MetricResult, StageReport
from minigpt.types import Shape

RECORD = "export.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The model that was exported. `precision` is that of its stored weights, `bytes` is their size on disk."""

    ref: str
    fingerprint: str
    precision: str
    parameters: int
    bytes: int
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison of logits.

    Attributes:
        name: Name of the check.
        against: Reference: the source in PyTorch, or the export itself run in another way.
        difference: Largest absolute difference of a logit.
        tolerance: Largest difference allowed; without one the check is only reported and never fails.
    """

    name: str
    against: str
    difference: float
    tolerance: float | None

    @property
    def passed(self) -> bool:
        """True if the difference is within the tolerance."""
        return self.tolerance is None or self.difference <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """Comparison of the greedy text of source and export from the same prompts.

    Attributes:
        tokens: Tokens that were generated.
        agreeing: Tokens before the first difference, in the prompt where it comes earliest.
        required: Whether the export is refused if a token differs.
    """

    tokens: int
    agreeing: int
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Metrics of source and export on held-out text, measured in pairs.

    The `paired_difference_vs_parent` of `exported` is export - source with its 95 % interval; `fingerprint` identifies
    the text, as in a build's report, and `opening` the token that stood before it (empty in older records).
    """

    domain: str
    fingerprint: str
    source: tuple[MetricResult, ...]
    exported: tuple[MetricResult, ...]
    opening: str = ""

    @property
    def ratio(self) -> float:
        """Bits per byte of the export divided by those of its source."""
        return self.bits_per_byte.value / headline(self.source).value

    @property
    def bits_per_byte(self) -> MetricResult:
        """Bits per byte of the export."""
        return headline(self.exported)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """An export and its proof.

    Attributes:
        format: Export format.
        precision: Precision of the weights.
        source: The model that was exported.
        bytes: Size of the files from which the runtime reads weights.
        bytes_per_token: Bytes of weights read to decode one token. An embedding that is not the output projection is
            only looked up, so it does not count.
        settings: Settings with which the format was written.
        versions: Versions of the packages involved.
        files: SHA-256 of each file by name.
        checks: Comparisons of logits.
        greedy: Comparison of greedy text.
        quality: Comparison of metrics.
        seed: Seed of the held-out text.
        seconds: Time to write and prove the export.
        schema_version: Version of this record.
    """

    format: str
    precision: str
    source: Source
    bytes: int
    bytes_per_token: int
    settings: Mapping[str, str | int | float | bool]
    versions: Mapping[str, str]
    files: Mapping[str, str]
    checks: tuple[Check, ...] = ()
    greedy: Greedy | None = None
    quality: Quality | None = None
    seed: int = 0
    seconds: float = 0.0
    schema_version: int = SCHEMA_VERSION


def read_record(folder: Path) -> ExportRecord:
    """Read the record of an export folder.

    Raises:
        MiniGPTError: There is no record, or it is damaged.
    """
    return read_signed(folder / RECORD, ExportRecord)


def changed_file(folder: Path, record: ExportRecord, *, prose: bool = True) -> str | None:
    """Find the first recorded file that is missing or has changed; None if all are as exported.

    Args:
        folder: the export.
        record: its record.
        prose: whether a card that was edited counts, too.
    """
    for name, sha256 in record.files.items():
        path = folder / name
        if (prose or not is_prose(name)) and (not path.is_file() or sha256_once(path) != sha256):
            return name
    return None


def headline(metrics: tuple[MetricResult, ...]) -> MetricResult:
    """Find bits per byte among the metrics of a text."""
    return next(result for result in metrics if result.metric == "bits_per_byte")


def as_report(record: ExportRecord) -> BuildReport:
    """Turn a record into a report for `minigpt compare`, with the source as the parent.

    Raises:
        MiniGPTError: Nothing was measured on this export, because its format is not a model.
    """
    if record.quality is None:
        raise MiniGPTError(f"An export in {record.format} has no figures of its own; compare the model instead.")
    source, quality = record.source, record.quality
    stages = (
        StageReport(
            stage="parent",
            parameters=source.parameters,
            bytes=source.bytes,
            seconds=0.0,
            metrics=quality.source,
            opening=quality.opening,
        ),
        StageReport(
            stage="exported",
            parameters=source.parameters,
            bytes=record.bytes,
            seconds=record.seconds,
            metrics=quality.exported,
            opening=quality.opening,
        ),
    )
    return BuildReport(
        domain=quality.domain,
        base_model=source.ref,
        base_precision=source.precision,
        method=f"export {record.format}",
        preset=record.precision,
        target="",
        seed=record.seed,
        versions=record.versions,
        device="",
        seconds=record.seconds,
        stages=stages,
        shape_before=source.shape,
        shape_after=source.shape,
        fingerprints={quality.domain: quality.fingerprint},
    )
