"""Stages of a build as a table: which of them a run goes through, their work, and the disk that each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from minigpt.methods import method_named
from minigpt.methods.table import ROUNDS
from minigpt.pipeline.measure import TITLES
from minigpt.pipeline.outlook import Sizes, reading, training
from minigpt.pipeline.run import Run
from minigpt.progress.rates import Work
from minigpt.tickets.delta_training import round_recipe, rounds_of

# Work that nothing but itself says anything about.
UNKNOWN = Work(kind="sample", operations=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A stage of builds.

    Attributes:
        name: name of its step; `{}` stands for a number.
        title: its title where nothing in it has one.
        times: says how often a run goes through it.
        work: work of it; None where it is little, or not counted.
        disk: bytes that it leaves in the folder of stages until the build is finished.
    """

    name: str
    title: str
    times: Callable[[Run], int] = lambda run: 1
    work: Callable[[Sizes], Work | None] = lambda sizes: None
    disk: Callable[[Sizes], int] = lambda sizes: 0


def _tunes(run: Run) -> int:
    """Count tuned parents."""
    return int(run.settings.tuned_parent)


def _writes(run: Run) -> int:
    """Count briefly tuned parents: one for the tuned parent, or for sampled text where something is trained on it."""
    return int(run.settings.tuned_parent or _samples(run))


def _samples(run: Run) -> int:
    """Count samplings of text."""
    return int(bool(run.settings.text.sampled) and (run.settings.tuned_parent or not run.options.masked))


def _twins(run: Run) -> int:
    """Count distilled twins."""
    return int(run.settings.twin and not run.options.masked)


def _heals(run: Run) -> int:
    """Count healings: none without steps."""
    return int(run.settings.heal.steps > 0)


def _search(sizes: Sizes) -> Work | None:
    """Return the work of the runs of a search that are certain; longer ones depend on what these find."""
    tune = sizes.settings.tune
    runs = len(tune.rates) + sum(tune.shorter) + (len(tune.muon) if tune.adapter == "full" else 0)
    return training(tune.recipe(), sizes.parent, 0.0, "Tuning", steps=runs * tune.steps)


def _long_run(sizes: Sizes) -> Work | None:
    """Return the work of tuning over as many tokens as healing reads, at most."""
    heal, tune = sizes.settings.heal, sizes.settings.tune.recipe()
    tokens = heal.steps * max(heal.tokens_per_step, heal.window)
    steps = tokens / max(tune.tokens_per_step, tune.window)
    return training(tune, sizes.parent, 0.0, "Tuning", steps=steps)


def _evaluation(student: bool, share: Callable[[Sizes], float] = lambda sizes: 1.0) -> Callable[[Sizes], Work | None]:
    """Return the function for the work of an evaluation, of the specialist or of a model of the parent's size."""

    def work(sizes: Sizes) -> Work | None:
        return reading(sizes.student if student else sizes.parent, share(sizes) * sizes.tokens, "evaluate")

    return work


def _healing(title: str, student: bool) -> Callable[[Sizes], Work | None]:
    """Return the function for the work of healing the specialist, or of training a twin of the parent's size."""

    def work(sizes: Sizes) -> Work | None:
        trained = sizes.student if student else sizes.parent
        return training(sizes.settings.heal, trained, sizes.parent, title)

    return work


def _plan(sizes: Sizes) -> Work | None:
    """Return the work of statistics and probes, about: a probe reads its repair's text twice, and dev text once."""
    plan = sizes.settings.plan
    return reading(sizes.parent, plan.tokens * (2 if plan.contrast else 1) + 3 * plan.probe_tokens * sizes.probes)


def _cut(sizes: Sizes) -> Work | None:
    """Return the work of the repair's text, which original and pruned layers read."""
    return reading(sizes.parent, sizes.settings.repair.tokens)


def _rounds(sizes: Sizes) -> Work | None:
    """Return the work of the rounds of a ticket: a training of all weights, and one after every pruning.

    Where a score knows the inputs, each layer reads the text twice: for its own, and for those of the next one.
    """
    lottery, heal = sizes.settings.lottery, sizes.settings.heal
    last = lottery.last if lottery.last is not None else lottery.steps_of(heal.steps)
    steps = lottery.rewind + lottery.rounds * lottery.steps_of(heal.steps) + last
    work = training(heal, sizes.parent, sizes.parent, "Round", steps=steps)
    if work is None or lottery.score in (None, "magnitude"):
        return work
    read = sizes.parent * sizes.settings.plan.tokens * lottery.rounds * 2
    return replace(work, operations=work.operations + read)


def _parent_bytes(sizes: Sizes) -> int:
    """Return the bytes of a model of the parent's size."""
    return sizes.parent_bytes


def _student_bytes(sizes: Sizes) -> int:
    """Return the bytes of the specialist."""
    return sizes.student_bytes


# Stages that all sizes and methods of a domain share.
GROUND = (
    Row(name="parent", title="Parent"),
    Row(name="corpus", title="Reading the text"),
    Row(name="tuned_first", title="Tuning the parent", times=_writes, work=_search, disk=_parent_bytes),
    Row(name="sampled", title="Sampling text", times=_samples, work=lambda sizes: UNKNOWN),
    Row(name="tuned", title="Tuning the parent on all text", times=_tunes, work=_long_run, disk=_parent_bytes),
    Row(name="measured_parent", title=TITLES["parent"], work=_evaluation(student=False)),
    Row(
        name="blended",
        title="Blending",
        times=lambda run: int(run.settings.tuned_parent and run.settings.blend > 0),
        disk=_parent_bytes,
    ),
    Row(name="measured_parent_tuned", title=TITLES["parent_tuned"], times=_tunes, work=_evaluation(student=False)),
    Row(
        name="tuned_seed{}",
        title="Tuning the parent again",
        times=lambda run: _tunes(run) * (run.settings.tune.seeds - 1),
        work=_long_run,
    ),
    Row(
        name="distilled",
        title="Training the distilled twin",
        times=_twins,
        work=_healing("Training the distilled twin", student=False),
        disk=_parent_bytes,
    ),
    Row(
        name="measured_parent_distilled",
        title=TITLES["parent_distilled"],
        times=_twins,
        work=_evaluation(student=False),
    ),
)
# Rounds of a method that needs them, which all sizes share.
ROUNDS_ROW = Row(
    name="rounds",
    title="Rounds of the ticket",
    times=lambda run: int(ROUNDS in method_named(run.options.method).needs),
    work=_rounds,
)
PLAN = (
    ROUNDS_ROW,
    Row(name="plan", title="Activation statistics and plan", work=_plan),
)
CUT = (
    Row(name="pruned", title="Pruning", work=_cut, disk=_student_bytes),
    Row(
        name="measured_pruned",
        title=TITLES["pruned"],
        work=_evaluation(True, lambda sizes: sizes.settings.evaluation.pruned_share),
    ),
)
HEAL = (
    Row(name="healed", title="Healing", times=_heals, work=_healing("Healing", True), disk=_student_bytes),
    Row(name="measured_healed", title=TITLES["healed"], work=_evaluation(True)),
)
FORM = (Row(name="measured_pruned", title="Evaluating the method's own form", work=_evaluation(False)),)
DELTA_START = Row(
    name="delta_dense",
    title="Training all weights, where the ticket starts",
    times=lambda run: 1 - _tunes(run),
    work=lambda sizes: training(sizes.settings.heal, sizes.parent, 0.0, "Training all weights"),
    disk=_parent_bytes,
)
DELTA_END = (
    Row(name="delta", title="Storing the delta ticket", disk=_parent_bytes),
    Row(name="measured_delta", title=TITLES["delta"], work=_evaluation(False)),
)
END = (Row(name="report", title="Report, model card and catalog"),)
CONDITIONAL = (
    Row(name="conditional_layers", title="Conditional form: converting layers", work=lambda sizes: UNKNOWN),
    Row(name="conditional_choice", title="Conditional form: choosing layers", work=lambda sizes: UNKNOWN),
    Row(name="conditional", title="Conditional form: healing", work=lambda sizes: UNKNOWN, disk=_student_bytes),
    Row(name="measured_conditional", title=TITLES["conditional"], work=_evaluation(True)),
)
# A ticket of `minigpt lottery`.
TICKET_ROWS = (
    Row(name="healed", title="Rounds of the ticket", work=_rounds, disk=_parent_bytes),
    HEAL[-1],
)


def rows_of(run: Run) -> tuple[Row, ...]:
    """Return the rows of a whole build with these options."""
    if run.options.delta is not None:
        return (*GROUND, *delta_rows(run, run.options.delta), *END, *conditional_rows(run))
    if run.options.masked:
        return (*GROUND, *FORM, *END)
    return (*GROUND, *PLAN, *CUT, *HEAL, *END, *conditional_rows(run))


def delta_rows(run: Run, fraction: float) -> tuple[Row, ...]:
    """Return the rows of a delta ticket: one for each of its rounds, whose steps differ.

    Args:
        run: the build.
        fraction: share of the weights that the ticket may change.
    """
    rounds = rounds_of(fraction, run.settings.delta)
    return (DELTA_START, *(_delta_round(number, one.steps) for number, one in enumerate(rounds, 1)), *DELTA_END)


def _delta_round(number: int, steps: int) -> Row:
    """Return the row of one round of a delta ticket."""

    def work(sizes: Sizes) -> Work | None:
        recipe = round_recipe(sizes.settings.heal, sizes.settings.delta, steps)
        return training(recipe, sizes.parent, sizes.parent, "Round")

    return Row(name=f"delta_{number}", title="Round of the ticket", work=work, disk=_parent_bytes)


def planning_rows(run: Run) -> tuple[Row, ...]:
    """Return the rows of planning alone; the parent is tuned first where the build prunes a tuned one."""
    tuning = ("tuned_first", "sampled", "tuned", "blended") if run.settings.tuned_parent else ()
    return (*(row for row in GROUND if row.name in ("corpus", "parent", *tuning)), *PLAN)


def conditional_rows(run: Run) -> tuple[Row, ...]:
    """Return the rows of the conditional form, where the options ask for one."""
    return CONDITIONAL if run.options.conditional is not None else ()


def names_of(row: Row, run: Run) -> tuple[str, ...]:
    """Return the names of the stages of a row, none where the run leaves it out."""
    return tuple(row.name.format(number) for number in range(1, row.times(run) + 1))


def works_of(run: Run, rows: Sequence[Row], sizes: Sizes) -> dict[str, Work]:
    """Return the work of each stage of a run, by name, where it is counted."""
    return {name: work for row in rows if (work := row.work(sizes)) is not None for name in names_of(row, run)}
