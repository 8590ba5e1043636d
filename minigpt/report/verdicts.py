"""The plain sentences of a report, computed from its intervals and from nothing else."""

from __future__ import annotations

from minigpt.report.figures import (
    ENOUGH_ITEMS,
    HEADLINE,
    at_chance,
    final_stage,
    is_seen,
    metric_of,
    ratio,
    verdict,
    verdict_vs_parent,
    verdict_vs_tuned,
)
from minigpt.report.text import number, percent
from minigpt.types import BuildReport, Interval, MetricResult

WORDS = {
    "better": "better than the parent",
    "worse": "worse than the parent",
    "not distinguishable": "not distinguishable from the parent",
    "too few to tell": "too few to tell",
}
UNINFORMATIVE = "uninformative (the parent itself is at chance)"


def sentences(report: BuildReport) -> tuple[str, ...]:
    """The verdict of a build: own domain, against the tuned control, questions, general text."""
    candidates = (_domain(report), _tuned(report), _questions(report), _general(report))
    return tuple(sentence for sentence in candidates if sentence)


def _domain(report: BuildReport) -> str | None:
    final = final_stage(report)
    ours = metric_of(final, report.domain, HEADLINE)
    parent_stage = report.stage("parent")
    parent = metric_of(parent_stage, report.domain, HEADLINE)
    if ours is None or parent is None or parent_stage is None or final is parent_stage:
        return None
    kept = percent(final.parameters / parent_stage.parameters) if parent_stage.parameters else "?"
    return (
        f"On held-out {report.domain} text, with {kept} of the parameters, the {final.stage} model needs "
        f"{number(ours.value)} bits per byte, {_times(ours, parent)} the parent's {number(parent.value)}: "
        f"{_standing(report, ours)}{_evidence(ours, ours.paired_difference_vs_parent)}."
    )


def _tuned(report: BuildReport) -> str | None:
    tuned = metric_of(report.stage("parent_tuned"), report.domain, HEADLINE)
    final = final_stage(report)
    ours = metric_of(final, report.domain, HEADLINE)
    if tuned is None:
        if report.stage("parent") is None or final.stage == "parent":
            return None
        return (
            f"The control (the unpruned parent tuned on the same text) was skipped by the {report.preset} preset: how "
            "much of this is the text and how much the pruning costs stays open."
        )
    if ours is None:
        return None
    words = verdict_vs_tuned(report, ours) or _unpaired(ours, tuned)
    words += _evidence(ours, ours.paired_difference_vs_tuned) if ours.paired_difference_vs_tuned else ""
    return (
        f"Against the parent tuned on the same text ({number(tuned.value)}): {_times(ours, tuned)}, {words}. "
        "This ratio is the price of pruning alone."
    )


def _unpaired(ours: MetricResult, tuned: MetricResult) -> str:
    """The more cautious comparison of reports that hold no paired difference to the tuned parent."""
    relation = verdict(ours, tuned)
    return {
        "not distinguishable": "the unpaired intervals overlap",
        "too few to tell": f"{relation} (n={ours.n})",
    }.get(relation, f"{relation}, the unpaired intervals do not overlap")


def _general(report: BuildReport) -> str | None:
    final = final_stage(report)
    ours = metric_of(final, "general", HEADLINE)
    parent = metric_of(report.stage("parent"), "general", HEADLINE)
    if ours is None or parent is None or final.stage == "parent":
        return None
    advice = ". Outside its domain use the parent." if verdict_vs_parent(report, ours) == "worse" else "."
    return f"On general text: {_times(ours, parent)} the parent, {_standing(report, ours)}{advice}"


def _questions(report: BuildReport) -> str | None:
    """Count verdicts on the domain's question sets; sets on text that was trained on are left to the table."""
    final = final_stage(report)
    if final.stage == "parent":
        return None
    tasks = sorted({result.task for result in final.metrics if result.task.startswith(f"{report.domain}/")})
    found = [_question_set(report, task) for task in tasks if not is_seen(task)]
    judged = [words for words in found if words]
    if not judged:
        return None
    if len(judged) == 1:
        return f"On the {report.domain} questions: {judged[0]}."
    parts = [f"{judged.count(words)} {words}" for words in dict.fromkeys((*WORDS.values(), *judged)) if words in judged]
    return f"Of {len(judged)} {report.domain} question sets: {', '.join(parts)}."


def _question_set(report: BuildReport, task: str) -> str | None:
    """The words on one set, judged by the first accuracy that the parent has clearly above chance.

    Where the parent guesses, nothing can be lost; where it does not, a child that guesses is a loss and said as one.
    """
    pairs = []
    for name in ("accuracy", "accuracy_norm"):
        ours, theirs = metric_of(final_stage(report), task, name), metric_of(report.stage("parent"), task, name)
        if ours and theirs:
            pairs.append((ours, theirs))
    if not pairs:
        return None
    if min(result.n for pair in pairs for result in pair) < ENOUGH_ITEMS:
        return WORDS["too few to tell"]
    for ours, theirs in pairs:
        if theirs.chance is None or theirs.low > theirs.chance:
            guessing = " and no longer distinguishable from guessing" if at_chance(ours) else ""
            return _standing(report, ours) + guessing
    return UNINFORMATIVE


def _times(ours: MetricResult, other: MetricResult) -> str:
    value = ratio(ours, other)
    return "–" if value is None else f"{value:.3f}×"


def _standing(report: BuildReport, ours: MetricResult) -> str:
    return WORDS[verdict_vs_parent(report, ours) or "not distinguishable"]


def _evidence(ours: MetricResult, paired: Interval | None) -> str:
    """What the verdict rests on; minus signs are typographic."""
    if ours.n < ENOUGH_ITEMS:
        return f" (n={ours.n})"
    if paired is None:
        return " (unpaired intervals)"
    span = f"{paired.low:.3f} to {paired.high:.3f}".replace("-", "−")
    return f" (paired 95 % interval of the difference {span})"
