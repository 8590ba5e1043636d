"""Verdict of a report in plain sentences, computed only from its intervals."""

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
from minigpt.results import BuildReport, Interval, MetricResult

WORDS = {
    "better": "better than the parent",
    "worse": "worse than the parent",
    "not distinguishable": "not distinguishable from the parent",
    "too few to tell": "too few to tell",
}
UNINFORMATIVE = "uninformative (the parent itself is at chance)"


def sentences(report: BuildReport) -> tuple[str, ...]:
    """Write the verdict of a build: on its own domain, against the tuned parent, on questions, on general text."""
    candidates = (_domain(report), _tuned(report), _questions(report), _general(report))
    return tuple(sentence for sentence in candidates if sentence)


def _domain(report: BuildReport) -> str | None:
    """Compare the specialist with the parent on the domain's text."""
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
    """Compare the specialist with the tuned parent on the domain's text, or say that there is none."""
    tuned = metric_of(report.stage("parent_tuned"), report.domain, HEADLINE)
    final = final_stage(report)
    ours = metric_of(final, report.domain, HEADLINE)
    if tuned is None:
        if report.stage("parent") is None or final.stage == "parent":
            return None
        return (
            f"The tuned parent (the unpruned parent trained on the same text) was skipped by the {report.preset} "
            "preset. Without it, this report cannot say how much the text gained and how much the pruning cost."
        )
    if ours is None:
        return None
    words = verdict_vs_tuned(report, ours) or _unpaired(ours, tuned)
    words += _evidence(ours, ours.paired_difference_vs_tuned) if ours.paired_difference_vs_tuned else ""
    return (
        f"Against the tuned parent, trained on the same text ({number(tuned.value)}): {_times(ours, tuned)}, {words}. "
        "This ratio is the price of pruning with this recipe."
    )


def _unpaired(ours: MetricResult, tuned: MetricResult) -> str:
    """Compare with the tuned parent without pairs, which is more cautious, where a report has no paired difference."""
    relation = verdict(ours, tuned)
    return {
        "not distinguishable": "the unpaired intervals overlap",
        "too few to tell": f"{relation} (n={ours.n})",
    }.get(relation, f"{relation}, the unpaired intervals do not overlap")


def _general(report: BuildReport) -> str | None:
    """Compare the specialist with the parent on general text."""
    final = final_stage(report)
    ours = metric_of(final, "general", HEADLINE)
    parent = metric_of(report.stage("parent"), "general", HEADLINE)
    if ours is None or parent is None or final.stage == "parent":
        return None
    advice = ". Outside its domain, use the parent." if verdict_vs_parent(report, ours) == "worse" else "."
    return f"On general text: {_times(ours, parent)} the parent's bits per byte, {_standing(report, ours)}{advice}"


def _questions(report: BuildReport) -> str | None:
    """Count the verdicts on the domain's question sets; sets about text that was trained on stand only in the table."""
    final = final_stage(report)
    if final.stage == "parent":
        return None
    tasks = sorted({result.task for result in final.metrics if result.task.startswith(f"{report.domain}/")})
    candidates = [_question_set(report, task) for task in tasks if not is_seen(task)]
    verdicts = [words for words in candidates if words]
    if not verdicts:
        return None
    if len(verdicts) == 1:
        return f"On the {report.domain} questions: {verdicts[0]}."
    kinds = [words for words in dict.fromkeys((*WORDS.values(), *verdicts)) if words in verdicts]
    parts = [f"{verdicts.count(words)} {words}" for words in kinds]
    return f"Of {len(verdicts)} {report.domain} question sets: {', '.join(parts)}."


def _question_set(report: BuildReport, task: str) -> str | None:
    """Judge one question set by the first accuracy on which the parent is clearly above chance.

    Where the parent guesses, nothing can be lost. Where it does not, a specialist that guesses is reported as a loss.
    """
    pairs = []
    for name in ("accuracy", "accuracy_norm"):
        ours, baseline = metric_of(final_stage(report), task, name), metric_of(report.stage("parent"), task, name)
        if ours and baseline:
            pairs.append((ours, baseline))
    if not pairs:
        return None
    if min(result.n for pair in pairs for result in pair) < ENOUGH_ITEMS:
        return WORDS["too few to tell"]
    for ours, baseline in pairs:
        if baseline.chance is None or baseline.low > baseline.chance:
            guessing = " and no longer distinguishable from guessing" if at_chance(ours) else ""
            return _standing(report, ours) + guessing
    return UNINFORMATIVE


def _times(ours: MetricResult, other: MetricResult) -> str:
    """Write the ratio of two results."""
    value = ratio(ours, other)
    return "–" if value is None else f"{value:.3f}×"


def _standing(report: BuildReport, ours: MetricResult) -> str:
    """Write the verdict against the parent in words."""
    return WORDS[verdict_vs_parent(report, ours) or "not distinguishable"]


def _evidence(ours: MetricResult, paired: Interval | None) -> str:
    """Write the interval on which a verdict rests, with typographic minus signs."""
    if ours.n < ENOUGH_ITEMS:
        return f" (n={ours.n})"
    if paired is None:
        return " (unpaired intervals)"
    span = f"{paired.low:.3f} to {paired.high:.3f}".replace("-", "−")
    return f" (paired 95 % interval of the difference {span})"
