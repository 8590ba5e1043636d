"""Fit, build, export and measure: from the limits of a device to a file, and whether it keeps them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt.exporting import ExportRequest, export
from minigpt.files import write_json
from minigpt.fitting.choose import FitRequest, Fitted, lay_ground, stage_of
from minigpt.fitting.constraints import Constraint, parse_constraints
from minigpt.fitting.engines import engine_named
from minigpt.fitting.rehearse import Pace, check_runtime
from minigpt.fitting.search import needs_measuring
from minigpt.models import find
from minigpt.pipeline import BuildOptions
from minigpt.progress import SILENT, Reporter
from minigpt.report.text import clean
from minigpt.results import BuildReport

RECORD = "fit.json"
# Bytes of held-out text on which the export is measured.
QUALITY_BYTES = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One constraint and what became of it.

    Attributes:
        constraint: the constraint as the user wrote it.
        kind: file, ram or speed.
        limit: the limit in bytes or tokens a second.
        expected: what the choice was expected to have; None where nothing was known.
        measured: what the exported model has; None where it was not measured, because the device is another one.
    """

    constraint: str
    kind: str
    limit: float
    expected: float | None
    measured: float | None

    @property
    def deviation(self) -> float | None:
        """Distance of the measured figure from the limit, as a share of it."""
        return None if self.measured is None else self.measured / self.limit - 1

    @property
    def kept(self) -> bool | None:
        """True if the limit is kept; None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.kind == "speed" else self.measured <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A fitted build: the choice, the export and what was measured on it.

    Attributes:
        domain: the domain.
        fitted: the choice.
        folder: the folder of the export, or the model's own where the runtime reads that.
        outcomes: every constraint and what became of it.
        speed: tokens a second of the exported model while decoding; None where it was not measured.
        parent_speed: those of the uncut parent, by turns in the same run; None where it did not take part.
        ram: peak of resident memory of the process that holds the model; None where it was not measured.
        rounding: ratio of bits per byte of the export to those of the model that it was made from; None for the model
            itself.
    """

    domain: str
    fitted: Fitted
    folder: str
    outcomes: tuple[Outcome, ...]
    speed: float | None
    parent_speed: float | None
    ram: float | None
    rounding: float | None


def fitted_options(options: BuildOptions, fitted: Fitted) -> BuildOptions:
    """Give a build the chosen widths: its planner then only decides which units they are."""
    shape = fitted.best.shape
    widths = {
        "plan.layers": shape.layers,
        "plan.intermediate_size": shape.intermediate_size,
        "plan.kv_groups": shape.kv_groups,
        "plan.vocab_size": shape.vocab_size,
    }
    if shape.experts:
        widths["plan.experts"] = shape.experts
    overrides = {**options.overrides, **{name: str(width) for name, width in widths.items()}}
    return replace(options, target_params=fitted.best.parameters, overrides=overrides)


def export_folder(options: BuildOptions, report: BuildReport, fitted: Fitted) -> Path:
    """Return where the export of a build goes: beside it, named by format and precision."""
    folder = options.folder(report.domain)
    kind = engine_named(fitted.runtime).formats[fitted.best.precision]
    return folder.with_name(f"{folder.name}-{kind}-{fitted.best.precision}") if kind else folder / "model"


def finish_fit(
    request: FitRequest, fitted: Fitted, report: BuildReport, domain: str, reporter: Reporter = SILENT
) -> FitResult:
    """Export a finished build in the chosen runtime and precision, and measure whether it keeps the limits.

    Args:
        request: what was asked.
        fitted: the choice.
        report: the report of the build.
        domain: name or file of its domain, for the text that the export is proved on.
        reporter: told about progress.

    Raises:
        ExportError: the export does not compute what its source does.
    """
    engine, precision = engine_named(fitted.runtime), fitted.best.precision
    folder = export_folder(request.options, report, fitted)
    rounding = None
    if kind := engine.formats[precision]:
        source = find.find_model(str(request.options.folder(report.domain)), reporter=reporter)
        record = export(
            ExportRequest(
                source=source,
                format=kind,
                output_dir=folder,
                precision=precision,
                domain=domain,
                quality_bytes=QUALITY_BYTES,
                force=True,
                seed=request.options.seed,
            ),
            reporter=reporter,
        )
        size, rounding = record.bytes, record.quality.ratio if record.quality else None
    else:
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    constraints = parse_constraints(request.constraints)
    own, parent = (None, None) if request.profile else _timings(request, fitted, folder, constraints, reporter)
    result = FitResult(
        domain=report.domain,
        fitted=fitted,
        folder=str(folder),
        outcomes=tuple(_outcome(item, fitted, size, own, parent) for item in constraints),
        speed=None if own is None else own.decode,
        parent_speed=None if parent is None else parent.decode,
        ram=None if own is None else own.memory,
        rounding=rounding,
    )
    if kind:
        write_json(folder / RECORD, result)
    return result


def _timings(
    request: FitRequest, fitted: Fitted, folder: Path, constraints: Sequence[Constraint], reporter: Reporter
) -> tuple[Pace | None, Pace | None]:
    """Time the exported model, beside the uncut parent where a constraint names it; None where the runtime is not here.

    Returns:
        The timings of the model and of the parent.
    """
    if not needs_measuring(constraints):
        return None, None
    ground, memory = lay_ground(request, reporter), any(item.kind == "ram" for item in constraints)
    check_runtime(ground.engine)
    with tempfile.TemporaryDirectory(prefix="minigpt-fit-") as temporary:
        stage, models = stage_of(ground, Path(temporary), reporter, memory=memory), [folder]
        if any(item.relative for item in constraints):
            models.append(stage.export(fitted.best.precision, stage.whole))
        timed = stage.paces(models)
    return timed[0], timed[1] if len(timed) > 1 else None


def _outcome(constraint: Constraint, fitted: Fitted, size: int, own: Pace | None, parent: Pace | None) -> Outcome:
    """Hold a constraint against what was measured."""
    limit = fitted.limits[constraint.text]
    if constraint.relative and parent is not None:
        limit = constraint.limit(parent.decode)
    measured: float | None = size
    if constraint.kind != "file":
        measured = None if own is None else own.decode if constraint.kind == "speed" else own.memory
    return Outcome(
        constraint=clean(constraint.text),
        kind=constraint.kind,
        limit=limit,
        expected=fitted.best.value(constraint.kind),
        measured=measured,
    )
