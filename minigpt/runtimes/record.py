"""export.json: what an exported folder says about itself, and the proof that it computes what its source computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.files import read_json
from minigpt.types import MetricResult

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

    `exported.paired_difference_vs_parent` is export - source with its 95 % interval.
    """

    domain: str
    source: MetricResult
    exported: MetricResult

    @property
    def ratio(self) -> float:
        """Bits per byte of the export over those of its source."""
        return self.exported.value / self.source.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """An export and its proof.

    `bytes` counts every file that the runtime reads weights from; `bytes_per_token` those of them that decoding one
    token reads (an embedding that is not the output projection is a lookup, so it does not count). `settings` says how
    the format was written, `files` maps names to SHA-256.
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
    quality: tuple[Quality, ...] = field(default_factory=tuple)
    schema_version: int = SCHEMA_VERSION


def read_record(folder: Path) -> ExportRecord:
    """The record of an exported folder.

    Raises:
        MiniGPTError: there is none, or it is damaged.
    """
    return read_json(folder / RECORD, ExportRecord)
