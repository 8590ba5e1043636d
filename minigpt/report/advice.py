"""Advice on several models: the one to take for each constraint, where their reports can say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.report.answers import main_results
from minigpt.report.compare import comparable
from minigpt.report.decision import Decision, decide
from minigpt.report.figures import HEADLINE, final_stage, metric_of, ratio
from minigpt.report.tasks import GENERAL, OTHER
from minigpt.report.text import number, size
from minigpt.results import BuildReport, MetricResult

Named = tuple[str, BuildReport]
Measured = tuple[str, BuildReport, MetricResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The model to take under one constraint.

    Attributes:
        constraint: What a user wants most.
        model: Name of the model; None where no report answers.
        reason: One sentence with the figures.
    """

    constraint: str
    model: str | None
    reason: str


def advise(reports: Sequence[Named], gates: Sequence[str] = ()) -> tuple[Advice, ...]:
    """Name the model to take for each constraint, one domain after the other.

    Models are compared with each other only on text that all of them were measured on, word for word.

    Args:
        reports: A name to show and a report for each model.
        gates: What a model must hold, see :func:`minigpt.report.decision.decide`.
    """
    advice: list[Advice] = []
    for domain in dict.fromkeys(report.domain for _, report in reports):
        same = [(name, report) for name, report in reports if report.domain == domain]
        decisions = {name: decide(report, gates) for name, report in same}
        advice.append(_smallest(domain, same, decisions))
        places = {
            domain: "the best on its own sources",
            f"{domain}/{OTHER}": "the best on other sources",
            f"{GENERAL}/{OTHER}": "the least loss on general text",
        }
        advice += [_best(f"{domain}: {place}", same, task, HEADLINE) for task, place in places.items()]
        answers = {(one.task, one.metric) for _, report in same for one in main_results(report)}
        for task, metric in sorted(key for key in answers if key[0].startswith(f"{domain}/")):
            constraint = f"{domain}: the best answers of {task.partition('/')[2]}"
            advice.append(_best(constraint, same, task, metric))
    return tuple(advice)


def _smallest(domain: str, reports: Sequence[Named], decisions: dict[str, Decision]) -> Advice:
    """Take the smallest model whose gates hold."""
    fit = [(name, report) for name, report in reports if decisions[name].answer == "ship"]
    constraint = f"{domain}: the smallest file that may ship"
    if not fit:
        return Advice(constraint=constraint, model=None, reason="No model passes all gates.")
    name, report = min(fit, key=lambda one: final_stage(one[1]).bytes)
    weights = final_stage(report).bytes
    return Advice(constraint=constraint, model=name, reason=f"{size(weights)} of weights, and every gate holds.")


def _best(constraint: str, reports: Sequence[Named], task: str, metric: str) -> Advice:
    """Take the model with the best value on one task."""
    measured = [(name, report, metric_of(final_stage(report), task, metric)) for name, report in reports]
    known = [(name, report, result) for name, report, result in measured if result is not None]
    if len(known) < len(reports):
        return Advice(constraint=constraint, model=None, reason=f"Not all models were measured on {task}.")
    first = known[0]
    if reasons := [reason for one in known[1:] if (reason := comparable(one[1], first[1], one[2], first[2]))]:
        return Advice(constraint=constraint, model=None, reason=f"The models cannot be compared: {reasons[0]}.")
    ordered = _by_value(known)
    return Advice(constraint=constraint, model=ordered[0][0], reason=_reason(ordered))


def _by_value(known: Sequence[Measured]) -> list[Measured]:
    """Order models by their values, the best first."""
    return sorted(known, key=lambda one: one[2].value, reverse=known[0][2].higher_is_better)


def _reason(ordered: Sequence[Measured]) -> str:
    """Write the figures of the best model, and warn where the next one is within its interval."""
    _, report, result = ordered[0]
    parent = metric_of(report.stage("parent"), result.task, result.metric)
    text = f"{number(result.value)} {'' if result.metric == HEADLINE else 'of '}{result.metric.replace('_', ' ')}"
    if result.metric != HEADLINE:
        text += f", the parent {number(parent.value)}" if parent else ""
    elif (to_parent := ratio(result, parent)) is not None:
        text += f", {to_parent:.3f} times the parent's"
    if len(ordered) > 1 and result.low <= ordered[1][2].value <= result.high:
        text += f"; {ordered[1][0]} ({number(ordered[1][2].value)}) lies within its interval"
    return f"{text}."
