"""export.json: what an exported folder says about itself, and the proof that it computes what its source computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import MiniGPTError
from minigpt.files import file_sha256, read_json
from minigpt.types import BuildReport, MetricResult, Shape, StageReport

RECORD = "export.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The model an export was made from. `precision` is that of its stored weights, `bytes` their size on disk."""

    ref: str
    fingerprint: str
    precision: str
    parameters: int
    bytes: int
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison of logits: `against` is the source in PyTorch, or the export itself run in another way.

    `difference` is the largest absolute difference of a logit; a check without `tolerance` is only told.
    """

    name: str
    against: str
    difference: float
    tolerance: float | None

    @property
    def passed(self) -> bool:
        """Whether the difference stays within the tolerance."""
        return self.tolerance is None or self.difference <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """Greedy text of source and export from the same prompts: how many of the `tokens` agree before they part."""

    tokens: int
    agreeing: int
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Held-out text through source and export, measured in pairs.

    The `paired_difference_vs_parent` of `exported` is export - source with its 95 % interval; `fingerprint` names the
    text, as in a build's report.
    """

    domain: str
    fingerprint: str
    source: tuple[MetricResult, ...]
    exported: tuple[MetricResult, ...]

    @property
    def ratio(self) -> float:
        """Bits per byte of the export over those of its source."""
        return self.bits_per_byte.value / headline(self.source).value

    @property
    def bits_per_byte(self) -> MetricResult:
        """The export's headline."""
        return headline(self.exported)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """An export and its proof.

    `bytes` counts every file that the runtime reads weights from; `bytes_per_token` those of them that decoding one
    token reads (an embedding that is not the output projection is a lookup, so it does not count). `settings` says how
    the format was written, `files` maps names to SHA-256, `seconds` is the time that writing and proving took.
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
    """The record of an exported folder.

    Raises:
        MiniGPTError: there is none, or it is damaged.
    """
    return read_json(folder / RECORD, ExportRecord)


def changed_file(folder: Path, record: ExportRecord) -> str | None:
    """The first of the recorded files that is missing or holds something else now; None if all are as exported."""
    for name, known in record.files.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != known:
            return name
    return None


def headline(metrics: tuple[MetricResult, ...]) -> MetricResult:
    """Bits per byte among the metrics of a text."""
    return next(result for result in metrics if result.metric == "bits_per_byte")


def as_report(record: ExportRecord) -> BuildReport:
    """The record as a report that `compare` lines up with others: the source stands as the parent.

    Raises:
        MiniGPTError: nothing was measured on this export, because its format is no model.
    """
    if record.quality is None:
        raise MiniGPTError(f"An export in {record.format} has no figures of its own; compare the model.")
    source, quality = record.source, record.quality
    stages = (
        StageReport(
            stage="parent", parameters=source.parameters, bytes=source.bytes, seconds=0.0, metrics=quality.source
        ),
        StageReport(
            stage="exported",
            parameters=source.parameters,
            bytes=record.bytes,
            seconds=record.seconds,
            metrics=quality.exported,
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
