"""Verdict on question sets: a set is judged where the parent knows something, and a fall to guessing is a loss."""

from __future__ import annotations

from minigpt.metrics import QUESTION_METRICS
from minigpt.report.figures import ENOUGH_ITEMS, at_chance, final_stage, metric_of, verdict_vs_parent
from minigpt.report.tasks import GENERAL, is_seen, is_text
from minigpt.report.text import number
from minigpt.report.wording import WORDS, standing
from minigpt.results import BuildReport, MetricResult

# Share of the parent's accuracy above guessing below which a loss stands in the first sentence of a report.
MOST_LOST = 0.5
UNINFORMATIVE = "uninformative (the parent itself is at chance)"


def question_sentence(report: BuildReport) -> str | None:
    """Count the verdicts on the domain's question sets; sets about text that was trained on stand only in the table."""
    tasks = _question_sets(report, report.domain)
    verdicts = [words for words in (_judged(report, task) for task in tasks) if words]
    if not verdicts:
        return None
    if len(verdicts) == 1:
        return f"On the {report.domain} questions: {verdicts[0]}."
    kinds = [words for words in dict.fromkeys((*WORDS.values(), *verdicts)) if words in verdicts]
    parts = [f"{verdicts.count(words)} {words}" for words in kinds]
    return f"Of {len(verdicts)} {report.domain} question sets: {', '.join(parts)}."


def fallen_sets(report: BuildReport) -> tuple[str, ...]:
    """Describe the question sets that the parent answers and the specialist guesses, or lost most of.

    Most is lost where the specialist is clearly worse and has less than half of what the parent has above guessing.
    """
    tasks = (*_question_sets(report, report.domain), *_question_sets(report, GENERAL))
    pairs = ((task, _informative(report, task)) for task in tasks)
    falls = (_fall(report, task, *pair) for task, pair in pairs if pair is not None and not _too_few(pair))
    return tuple(fall for fall in falls if fall)


def _fall(report: BuildReport, task: str, ours: MetricResult, parent: MetricResult) -> str:
    """Describe how a question set fell; empty where it did not."""
    if at_chance(ours):
        return f"{task} fell to guessing"
    if ours.chance is None or verdict_vs_parent(report, ours) != "worse":
        return ""
    if ours.value - ours.chance >= MOST_LOST * (parent.value - ours.chance):
        return ""
    return (
        f"{task} fell from {number(parent.value)} to {number(ours.value)}, where guessing gives {number(ours.chance)}"
    )


def _question_sets(report: BuildReport, owner: str) -> list[str]:
    """List the question sets of a domain that no training text answers."""
    tasks = {result.task for result in final_stage(report).metrics if result.metric in QUESTION_METRICS}
    return sorted(task for task in tasks if task.startswith(f"{owner}/") and not is_seen(task) and not is_text(task))


def _judged(report: BuildReport, task: str) -> str | None:
    """Judge one question set by the first accuracy on which the parent is clearly above chance.

    Where the parent guesses, nothing can be lost. Where it does not, a specialist that guesses is reported as a loss.
    """
    pairs = _pairs(report, task)
    if not pairs:
        return None
    if any(_too_few(pair) for pair in pairs):
        return WORDS["too few to tell"]
    if (pair := _informative(report, task)) is None:
        return UNINFORMATIVE
    guessing = " and no longer distinguishable from guessing" if at_chance(pair[0]) else ""
    return standing(report, pair[0]) + guessing


def _informative(report: BuildReport, task: str) -> tuple[MetricResult, MetricResult] | None:
    """Find the first accuracy of specialist and parent on which the parent is clearly above chance."""
    pairs = _pairs(report, task)
    return next((pair for pair in pairs if pair[1].chance is None or pair[1].low > pair[1].chance), None)


def _pairs(report: BuildReport, task: str) -> list[tuple[MetricResult, MetricResult]]:
    """List the accuracies of specialist and parent on one set."""
    final, parent = final_stage(report), report.stage("parent")
    results = ((metric_of(final, task, name), metric_of(parent, task, name)) for name in QUESTION_METRICS)
    return [(ours, baseline) for ours, baseline in results if ours and baseline]


def _too_few(pair: tuple[MetricResult, MetricResult]) -> bool:
    """Check whether a set has too few questions for a verdict."""
    return min(result.n for result in pair) < ENOUGH_ITEMS
