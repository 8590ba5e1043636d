"""Notes of a report: everything that a reader must know to understand its numbers correctly."""

from __future__ import annotations

from minigpt.evaluation import Suite
from minigpt.methods import method_named
from minigpt.methods.cut import repair_of
from minigpt.pipeline.read import Corpora
from minigpt.pipeline.run import Run
from minigpt.pipeline.text import TrainingText
from minigpt.planning.allocate import TOLERANCE
from minigpt.types import Attribution, PrunePlan

# Origin of costs that the build measured itself, as `PrunePlan.sensitivity` says it.
MEASURED = "measured"
RUN_NOISE = (
    "Intervals hold the noise of the documents and questions that were drawn, not that of training again: another run "
    "of the same recipe gives other numbers (docs/results/intervals.md)."
)


def notes(
    run: Run,
    corpora: Corpora,
    suite: Suite,
    text: TrainingText,
    plan: PrunePlan,
    *,
    precision: str,
    trained: bool,
    share: float = 1.0,
) -> tuple[str, ...]:
    """Collect the notes of a build.

    Args:
        run: the build.
        corpora: domain and general text.
        suite: the texts and questions that were measured.
        text: the training text.
        plan: the units that were kept.
        precision: precision of the parent's weights.
        trained: whether any stage was trained.
        share: smallest share of the texts and questions that a stage was measured on.
    """
    lines = [*sensitivity_note(plan), *size_note(plan)]
    repaired = repair_of(method_named(run.options.method), run.settings.repair) is not None
    if not repaired and plan.parameters_after < plan.parameters_before:
        lines.append("The pruned model was not repaired by least squares.")
    lines += part_note(share)
    if trained and text.general_share:
        other = corpora.general is not None and bool(corpora.general.other)
        lines.append(general_note(text, other=other, tuned=run.settings.tuned_parent))
    if run.settings.keep_general is not None:
        lines.append(
            f"General text was to cost at most {run.settings.keep_general:g} times what it costs the parent: it "
            "counted as much as the domain's in statistics, plan, repair, vocabulary and healing."
        )
    lines += [RUN_NOISE, *generated_text_notes(run, text)] if trained else []
    lines += [
        f"The license of {source.name} is not known."
        for source in attributions(corpora, text)
        if source.license == "unknown"
    ]
    if "dequant" in precision.lower():
        lines.append(
            f"The parent is {precision}: training also repairs quantization loss, which flatters every ratio to the "
            "parent. The ratio to the tuned parent is the fair one; the original in full precision was not measured."
        )
    if not run.settings.tuned_parent:
        lines.append("The parent was not tuned: gains over the parent include what any tuning would give.")
    for questions in suite.questions.values():
        if questions.derived and questions.note:
            where = " The definitions stand in the training text." if questions.seen else ""
            lines.append(f"{questions.name}: {questions.note}{where}")
    lines += [f"{task.name}: {task.note}" for task in suite.answers.values() if task.note]
    return tuple(dict.fromkeys(lines))


def sensitivity_note(plan: PrunePlan) -> list[str]:
    """Note the origin of the costs that decided how much of each axis was cut."""
    if not plan.sensitivity:
        return []
    if plan.sensitivity == MEASURED:
        return ["How much to cut where was decided by costs measured on this model with the domain's dev text."]
    return [
        f"How much to cut where was decided by costs from a table, measured once ({plan.sensitivity}). "
        "`--set plan.sensitivity=measure` measures them on this text."
    ]


def general_note(text: TrainingText, *, other: bool, tuned: bool) -> str:
    """Note that general text was trained on, and the rows on which that shows.

    Args:
        text: the training text.
        other: whether general text of sources that nothing was trained on is measured too.
        tuned: whether there is a tuned parent, which read it too.
    """
    readers = "the tuned parent had it too, the untuned parent did not" if tuned else "the parent did not have it"
    fairer = " `general/other`, of sources that nothing was trained on, is the fairer row." if other else ""
    return (
        f"General training text was mixed into {'tuning and ' if tuned else ''}healing, {text.general_share:g} times "
        "as much as domain text, from the sources of the general text that is measured (other documents). So `general` "
        f"shows what is kept with that help; {readers}.{fairer}"
    )


def generated_text_notes(run: Run, text: TrainingText) -> list[str]:
    """Note the generated training text: definitions put as questions, and sampled passages."""
    lines, is_tuned = [], run.settings.tuned_parent
    if is_tuned and run.settings.blend:
        share = f"{run.settings.blend:.0%}".replace("%", " %")
        lines.append(
            f"The model that is pruned and that teaches is a blend of weights: {share} of the untuned parent and the "
            "rest of the tuned parent. The tuned parent that the report compares with is not blended."
        )
    if text.definitions:
        lines.append(
            f"Definitions that stand in the training text were put as {len(text.definitions):,} questions and answers "
            "in the form in which questions are scored. The untuned parent never saw that form; on questions "
            + ("the tuned parent, which did, is the fair comparison." if is_tuned else "it is no fair comparison.")
        )
    if text.answers:
        lines.append(
            f"{len(text.answers):,} training prompts of the tasks with free answers were trained on with their "
            "answers, none of which is measured. The untuned parent never saw that form; on these tasks "
            + ("the tuned parent, which did, is the fair comparison." if is_tuned else "it is no fair comparison.")
        )
    if text.sampled:
        lines.append(
            f"{len(text.sampled):,} passages of the training text were sampled from the parent after tuning on the "
            "real text"
            + (
                "; the tuned parent is the best, on dev text, of runs on the real text and a long one on all of it."
                if is_tuned
                else "."
            )
        )
    return lines


def size_note(plan: PrunePlan) -> list[str]:
    """Note a size that is not the target, with the reason."""
    target, removed = plan.target_parameters, plan.parameters_after < plan.parameters_before
    if not target or not removed or abs(plan.parameters_after - target) <= TOLERANCE * target:
        return []
    return [
        f"The target was {target:,} parameters; the result has {plan.parameters_after:,}, because {plan.method} "
        "removes in coarse steps."
    ]


def part_note(share: float) -> list[str]:
    """Note that the pruned model was measured on a part of the texts and questions."""
    if share >= 1:
        return []
    return [
        f"The pruned model was measured on about {100 * share:.0f} % of the texts and questions before it healed (at "
        "least ten of each): compare it by its paired differences, which are of that part, not by its values."
    ]


def attributions(corpora: Corpora, text: TrainingText) -> tuple[Attribution, ...]:
    """List the sources of the training text, general text included."""
    mixed = corpora.general.attributions if corpora.general is not None and text.general_share else ()
    return (*corpora.domain.attributions, *mixed)
