"""Fit, build, export and measure: from the limits of a device to a file, and whether it keeps them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt.exporting import ExportRequest, export
from minigpt.files import write_json
from minigpt.fits import WITHIN, Fit, Outcome
from minigpt.fitting.choose import FitRequest, Fitted, lay_ground, stage_of
from minigpt.fitting.constraints import Constraint, parse_constraints
from minigpt.fitting.engines import engine_named
from minigpt.fitting.rehearse import Pace, check_runtime
from minigpt.fitting.search import needs_measuring
from minigpt.models import find
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.fitted import keep_fit
from minigpt.pipeline.read import document_limit
from minigpt.progress import SILENT, Reporter
from minigpt.report.text import clean
from minigpt.results import BuildReport, Interval
from minigpt.runtimes import gguf

RECORD = "fit.json"
# Bytes of held-out text on which the export is measured.
QUALITY_BYTES = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A fitted build: the choice, the export and what was measured on it.

    Attributes:
        domain: the domain.
        fitted: the choice.
        folder: the folder of the export, or the model's own where the runtime reads that.
        outcomes: every constraint and what became of it.
        speed: tokens a second of the exported model while decoding, as the limit of speed has it measured, else the
            median of its turns; None where it was not measured.
        parent_speed: those of the uncut parent, by turns in the same run; None where it did not take part.
        ratio: ratio of the two by paired turns, with its 95 % interval.
        ram: peak of resident memory of the process that holds the model; None where it was not measured.
        rounding: ratio of bits per byte of the export to those of the model that it was made from; None for the model
            itself.
        remarks: sentences on limits that were missed, and why.
    """

    domain: str
    fitted: Fitted
    folder: str
    outcomes: tuple[Outcome, ...]
    speed: float | None
    parent_speed: float | None
    ram: float | None
    rounding: float | None
    ratio: Interval | None = None
    remarks: tuple[str, ...] = ()


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


def check_readable(request: FitRequest, reporter: Reporter = SILENT) -> None:
    """Refuse a fit whose exported file could not be checked here, before the build has cost an hour.

    Args:
        request: what was asked.
        reporter: told about progress.

    Raises:
        AssetError: nothing here reads the file.
    """
    ground = lay_ground(request, reporter)
    if "gguf" in ground.engine.formats.values():
        gguf.check_readable(ground.config)


def finish_fit(
    request: FitRequest, fitted: Fitted, report: BuildReport, domain: str, reporter: Reporter = SILENT
) -> FitResult:
    """Export a finished build in the chosen runtime and precision, and measure whether it keeps the limits.

    The outcome goes into `fit.json` beside the export, and into the report and the page of the build.

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
                max_documents=document_limit(report),
            ),
            reporter=reporter,
        )
        size, rounding = record.bytes, record.quality.ratio if record.quality else None
    else:
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    constraints = parse_constraints(request.constraints)
    parent, own = (None, None) if request.profile else _timings(request, folder, constraints, reporter)
    outcomes = tuple(outcome_of(item, fitted, size, own, parent) for item in constraints)
    result = FitResult(
        domain=report.domain,
        fitted=fitted,
        folder=str(folder),
        outcomes=outcomes,
        speed=next((item.measured for item in outcomes if item.kind == "speed"), own.speed.value if own else None),
        parent_speed=None if parent is None else parent.speed.value,
        ram=None if own is None else own.memory,
        rounding=rounding,
        ratio=None if own is None else own.ratio,
        remarks=remarks(outcomes, fitted, None if parent is None else parent.speed.value),
    )
    if kind:
        write_json(folder / RECORD, result)
    keep_fit(domain, fitted_options(request.options, fitted), record_of(result), reporter)
    return result


def record_of(result: FitResult) -> Fit:
    """Return what the report of a build keeps of a fit."""
    return Fit(
        runtime=result.fitted.runtime,
        precision=result.fitted.best.precision,
        export=Path(result.folder).name,
        machine=result.fitted.machine,
        outcomes=result.outcomes,
        remarks=result.remarks,
    )


def _timings(
    request: FitRequest, folder: Path, constraints: Sequence[Constraint], reporter: Reporter
) -> tuple[Pace | None, Pace | None]:
    """Time the exported model by turns with the uncut parent.

    Returns:
        The timings of the parent and of the model; None where only bytes are limited.
    """
    if not needs_measuring(constraints):
        return None, None
    ground, memory = lay_ground(request, reporter), any(item.kind == "ram" for item in constraints)
    check_runtime(ground.engine)
    with tempfile.TemporaryDirectory(prefix="minigpt-fit-") as temporary:
        stage = stage_of(ground, Path(temporary), reporter, memory=memory)
        parent, own = stage.paces([stage.reference(), folder])
    return parent, own


def outcome_of(constraint: Constraint, fitted: Fitted, size: int, own: Pace | None, parent: Pace | None) -> Outcome:
    """Hold a constraint against what was measured."""
    limit, expected = fitted.limits[constraint.text], fitted.best.value(constraint.kind)
    measured: float | None = size
    spread = None
    if constraint.kind == "speed" and own is not None:
        spread = own.speed
        if constraint.relative and parent is not None:
            expected = None if expected is None else expected / limit * constraint.limit(parent.speed.value)
            limit, spread = constraint.limit(parent.speed.value), times(own.ratio, parent.speed.value)
        measured = spread.value
    elif constraint.kind != "file":
        measured = None if own is None else own.memory
    return Outcome(
        constraint=clean(constraint.text),
        kind=constraint.kind,
        limit=limit,
        expected=expected,
        measured=measured,
        low=None if spread is None else spread.low,
        high=None if spread is None else spread.high,
    )


def times(interval: Interval, factor: float) -> Interval:
    """Multiply a value and its interval."""
    return Interval(value=interval.value * factor, low=interval.low * factor, high=interval.high * factor)


def remarks(outcomes: Sequence[Outcome], fitted: Fitted, parent: float | None) -> tuple[str, ...]:
    """Say in sentences which limits were missed, by how much, and whether the machine itself changed.

    Args:
        outcomes: the constraints and what became of them.
        fitted: the choice.
        parent: tokens a second of the parent beside the exported model; None where it was not timed.
    """
    sentences = [sentence for item in outcomes for sentence in _missed(item)]
    known = [item for item in outcomes if item.near is not None]
    if known and all(item.kept for item in known) and not any(item.near for item in known):
        nearest = min(known, key=lambda item: abs(item.deviation or 0.0))
        sentences.append(
            f"More was removed than the limits need: the nearest of them, {nearest.constraint}, is "
            f"{abs(nearest.deviation or 0.0):.0%} off."
        )
    before = None if fitted.rehearsed is None else fitted.rehearsed.parent_decode
    if sentences and parent is not None and before is not None and abs(parent / before - 1) > WITHIN:
        sentences.append(
            f"The machine itself changed: beside the rehearsal the parent had {before:.1f} tokens/s, and beside the "
            f"file {parent:.1f}."
        )
    return tuple(sentences)


def _missed(item: Outcome) -> Iterator[str]:
    """Yield a sentence for a limit that is not kept, and one for a speed whose interval is too wide to say."""
    if item.kept is False:
        words = f"{item.constraint} is missed by {abs(item.deviation or 0.0):.1%}"
        if item.high is not None and item.high >= item.limit:
            words += ", which the noise of the machine can explain"
        yield f"{words}."
    if item.low is not None and item.high is not None and (item.high - item.low) / 2 > WITHIN * item.limit:
        yield (
            f"{item.constraint}: turns differ so much ({item.low:.0f} to {item.high:.0f} tokens/s) that {WITHIN:.0%} "
            "cannot be told; repeat it with less other work on the machine, or with OMP_NUM_THREADS=1."
        )
