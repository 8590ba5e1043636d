"""Choice of what to build: search with the costs of this machine or of a carried profile, rehearse, and correct."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets, environment
from minigpt.assets import DEFAULT_BASE, Parent
from minigpt.errors import ConfigError, PlanError, UnsupportedModel
from minigpt.exporting.support import working_formats
from minigpt.files import fingerprint, read_json, write_json
from minigpt.fitting.constraints import Constraint, parse_constraints
from minigpt.fitting.costmodel import FEWEST, CostModel, fit_costs
from minigpt.fitting.engines import ENGINES, Engine, engine_named
from minigpt.fitting.filesize import file_sizes
from minigpt.fitting.narrow import narrowed
from minigpt.fitting.profile import Profile, Sample, read_profile, write_profile
from minigpt.fitting.rehearse import Stage, check_runtime, profile_shapes
from minigpt.fitting.search import Choice, Point, Space, needs_measuring, search
from minigpt.machine import device_name
from minigpt.methods import method_named
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.settings import settings_for
from minigpt.planning.budget import Budget, budget_for
from minigpt.planning.sensitivity import Sensitivity, shipped
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import arch_of, shape_of
from minigpt.types import AXES, Shape

# Version of the rules by which is chosen; a kept choice by other rules is not taken up.
RULES = 2
# Key of the parent of the shipped sensitivity, which stands for parents that have none.
KNOWN = ("llama", 576, Shape(layers=30, intermediate_size=1536, kv_groups=3, vocab_size=49152))


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """Build options and the limits of a device that they are fitted to.

    Attributes:
        options: options of the build, without a target.
        constraints: the limits of the device, as the user wrote them.
        runtime: name of a row of :data:`minigpt.fitting.engines.ENGINES`.
        profile: profile of another device; None measures this one.
    """

    options: BuildOptions
    constraints: tuple[str, ...]
    runtime: str = "llama.cpp"
    profile: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The choice that a fit ends with.

    Attributes:
        runtime: the runtime.
        best: what to build.
        others: the nearest alternatives, with why each was not chosen.
        limits: the limit of each constraint by its text, in bytes or tokens a second.
        sensitivity: the origin of the expected costs of pruning.
        machine: the hardware that speed and memory were measured on; empty where nothing had to be measured.
        rehearsed: the rehearsal of what is built; None where there was none.
        rehearsals: number of rehearsals.
        fits: False if no rehearsed model keeps the limits, and the nearest is taken.
        axes: axes that the parent's family has, of :data:`minigpt.types.AXES`.
    """

    runtime: str
    best: Point
    others: tuple[tuple[Point, str], ...]
    limits: Mapping[str, float]
    sensitivity: str
    machine: str = ""
    rehearsed: Sample | None = None
    rehearsals: int = 0
    fits: bool = True
    axes: tuple[str, ...] = ("vocab", "ffn", "kv_groups", "layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Everything that a choice starts from: parent, runtime, budget and expected costs."""

    parent: Parent
    config: Any
    tokenizer: Any
    engine: Engine
    budget: Budget
    sensitivity: Sensitivity


def choose(request: FitRequest, reporter: Reporter = SILENT) -> Fitted:
    """Choose shape and precision; the same request again gives the same choice, so that an interrupted build resumes.

    Raises:
        ConfigError: a constraint cannot be read, or contradicts an option.
        PlanError: nothing fits.
        AssetError: the runtime is not here, so that its speed cannot be measured.
        UnsupportedModel: nothing is known to be written for the runtime from this parent.
    """
    constraints = parse_constraints(request.constraints)
    check_options(request.options)
    ground = lay_ground(request, reporter)
    check_formats(ground.engine, ground.config, ground.tokenizer)
    memo = _memo(request, ground)
    if memo.is_file() and not request.options.force:
        return read_json(memo, Fitted)
    fitted = _choose(request, ground, constraints, reporter)
    memo.parent.mkdir(parents=True, exist_ok=True)
    write_json(memo, fitted)
    return fitted


def check_options(options: BuildOptions) -> None:
    """Refuse options that a fit contradicts.

    Raises:
        PlanError: a size is given too, or nothing would be pruned and written.
    """
    if (options.target_size, options.target_params, options.target_bytes) != (None,) * 3:
        raise PlanError("--fit finds the size; leave out --target-size, --target-params and --target-bytes.")
    if options.delta is not None or options.masked:
        raise PlanError("--fit builds a smaller model; leave out --delta and --paper-form.")


def check_formats(engine: Engine, config: Any, tokenizer: Any) -> None:
    """Refuse a parent that no file for the runtime can be written from, before anything is measured or built.

    Args:
        engine: the runtime.
        config: the parent's Hugging Face config.
        tokenizer: its tokenizer.

    Raises:
        UnsupportedModel: there is none; the message names the runtimes that there are files for.
    """
    known = {"", *working_formats(config, tokenizer)}  # no format is a plain model folder
    if known >= set(engine.formats.values()):
        return
    others = [name for name, row in ENGINES.items() if known >= set(row.formats.values())]
    raise UnsupportedModel(
        f"--fit cannot write {config.model_type} models with this tokenizer for {engine.name}; "
        f"take --runtime {' or '.join(others)}."
    )


def axes_of(ground: Ground) -> tuple[str, ...]:
    """Return the axes that the parent's family has, in the order of all axes."""
    family = arch_of(ground.config).axes
    return tuple(axis for axis in AXES if axis in family)


def lay_ground(request: FitRequest, reporter: Reporter) -> Ground:
    """Find the parent, and collect what the planner allows and expects."""
    from transformers import AutoConfig

    options, engine = request.options, engine_named(request.runtime)
    settings = settings_for(options.preset, options.overrides, keep_general=options.keep_general).plan
    parent = assets.parent(options.base, reporter=reporter)
    config, tokenizer = AutoConfig.from_pretrained(parent.path), assets.load_tokenizer(parent.path)
    budget = budget_for(config, tokenizer, method_named(options.method), 0, settings=settings, kinds=options.kinds)
    limits = replace(budget.limits, experts=(shape_of(config).experts,))
    table = shipped(str(config.model_type), int(config.hidden_size), shape_of(config), settings.healing)
    if table is None:
        known = shipped(*KNOWN, settings.healing)
        assert known is not None  # the table is shipped
        table = replace(known, source=f"borrowed, as this parent has none of its own: {known.source}")
    return Ground(
        parent=parent,
        config=config,
        tokenizer=tokenizer,
        engine=engine,
        budget=replace(budget, limits=limits),
        sensitivity=table,
    )


def _memo(request: FitRequest, ground: Ground) -> Path:
    """Return the file that keeps the choice of this request on this machine."""
    options = request.options
    carried = None if request.profile is None else read_profile(request.profile)
    key = fingerprint(
        (sorted(request.constraints), request.runtime, carried),
        (ground.parent.fingerprint, options.method, options.preset, options.overrides, options.kinds),
        (device_name("cpu"), environment.threads(), RULES),
    )
    return environment.home() / "fits" / f"{key}.json"


def _choose(request: FitRequest, ground: Ground, constraints: Sequence[Constraint], reporter: Reporter) -> Fitted:
    """Search once if bytes decide alone; else measure, search and rehearse."""
    if not needs_measuring(constraints):
        return _fitted(ground, search(space_of(ground, constraints, {})), constraints)
    if request.profile is not None:
        profile = read_profile(request.profile)
        models = _models(profile, ground.engine, constraints)
        space = space_of(ground, resolved(constraints, models), models)
        return replace(_fitted(ground, search(space), space.constraints), machine=profile.machine)
    check_runtime(ground.engine)
    with tempfile.TemporaryDirectory(prefix="minigpt-fit-") as folder:
        limits_memory = any(item.kind == "ram" for item in constraints)
        stage = stage_of(ground, Path(folder), reporter, memory=limits_memory)
        profile = measured_profile(
            stage, ground, precisions_of(ground.engine, constraints), force=request.options.force
        )
        models = _models(profile, ground.engine, constraints)
        end = narrowed(stage, space_of(ground, constraints, models), profile, reporter)
    return Fitted(
        runtime=ground.engine.name,
        best=end.best,
        others=end.others,
        limits={constraint.text: constraint.amount for constraint in end.constraints},
        sensitivity=ground.sensitivity.source,
        machine=profile.machine,
        rehearsed=end.sample,
        rehearsals=end.rehearsals,
        fits=end.fits,
        axes=axes_of(ground),
    )


def stage_of(ground: Ground, folder: Path, reporter: Reporter, *, memory: bool) -> Stage:
    """Make a stage for rehearsals of a parent's cuts."""
    sizes = file_sizes(ground.config, ground.tokenizer)
    return Stage(
        parent=ground.parent, sizes=sizes, engine=ground.engine, folder=folder, memory=memory, reporter=reporter
    )


def space_of(ground: Ground, constraints: Sequence[Constraint], models: Mapping[str, CostModel]) -> Space:
    """Put together what a search reads."""
    return Space(
        engine=ground.engine,
        sizes=file_sizes(ground.config, ground.tokenizer),
        parent=shape_of(ground.config),
        limits=ground.budget.limits,
        parameters=ground.budget.costs.total,
        sensitivity=ground.sensitivity,
        models=models,
        constraints=constraints,
    )


def precisions_of(engine: Engine, constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Choose the precisions that are measured: several only where memory is limited."""
    return engine.timed if any(constraint.kind == "ram" for constraint in constraints) else engine.timed[:1]


def measured_profile(stage: Stage, ground: Ground, precisions: Sequence[str], *, force: bool = False) -> Profile:
    """Measure this machine, unless that was done before for this parent and runtime.

    Args:
        stage: where models are rehearsed.
        ground: parent and runtime.
        precisions: precisions to measure.
        force: measure again.
    """
    machine, threads = device_name("cpu"), environment.threads()
    key = fingerprint(machine, threads, ground.engine.name, ground.parent.fingerprint, stage.workload, stage.memory)
    file = environment.home() / "profiles" / f"{key}.json"
    profile = Profile(machine=machine, threads=threads, parent=ground.parent.ref, workload=stage.workload)
    if file.is_file() and not force:
        profile = read_profile(file)
    for precision in precisions:
        if len(profile.of(ground.engine.name, precision)) < FEWEST:
            shapes = profile_shapes(stage.whole, ground.budget.limits)
            profile = profile.with_samples(*stage.time(precision, shapes))
            write_profile(file, profile)
    return profile


def profile_device(base: str | None, runtimes: Sequence[str], reporter: Reporter = SILENT) -> Profile:
    """Measure this machine in several runtimes, for a fit that is made elsewhere.

    Args:
        base: the parent; None takes the default one.
        runtimes: names of runtimes.
        reporter: told about progress.

    Raises:
        AssetError: a runtime is not here.
        ConfigError: no runtime is named.
    """
    if not runtimes:
        raise ConfigError("Name at least one runtime to measure with --runtime.")
    options = BuildOptions(domains=("general",), base=base or DEFAULT_BASE)
    profile: Profile | None = None
    for name in runtimes:
        ground = lay_ground(FitRequest(options=options, constraints=(), runtime=name), reporter)
        check_runtime(ground.engine)
        with tempfile.TemporaryDirectory(prefix="minigpt-fit-") as folder:
            stage = stage_of(ground, Path(folder), reporter, memory=True)
            part = measured_profile(stage, ground, ground.engine.timed, force=True)
        profile = part if profile is None else profile.with_samples(*part.samples)
    assert profile is not None  # there is a runtime
    return profile


def _models(profile: Profile, engine: Engine, constraints: Sequence[Constraint]) -> dict[str, CostModel]:
    """Fit the costs of the precisions that the constraints need and the profile holds, or say that it holds none."""
    wanted = precisions_of(engine, constraints)
    usable = [name for name in wanted if len(profile.of(engine.name, name)) >= FEWEST] or wanted[:1]
    return {name: fit_costs(profile, engine.name, name) for name in usable}


def resolved(constraints: Sequence[Constraint], models: Mapping[str, CostModel]) -> tuple[Constraint, ...]:
    """Turn multiples of the parent's speed into tokens a second.

    The parent's speed is that of the uncut parent in the same runtime, in the fastest precision that was measured.
    """
    fastest = max((model.parent for model in models.values()), default=0.0)
    return tuple(replace(constraint, amount=constraint.limit(fastest), relative=False) for constraint in constraints)


def _fitted(ground: Ground, choice: Choice, constraints: Sequence[Constraint]) -> Fitted:
    """Record a choice."""
    return Fitted(
        runtime=ground.engine.name,
        best=choice.best,
        others=choice.others,
        limits={constraint.text: constraint.amount for constraint in constraints},
        sensitivity=ground.sensitivity.source,
        axes=axes_of(ground),
    )
