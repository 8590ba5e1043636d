"""Advice on several models: the one to take for each constraint, where their reports can say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        texts = ((domain, "its own sources"), (f"{domain}/{OTHER}", "other sources"), (f"{GENERAL}/{OTHER}", "general"))
        advice += [_lowest(domain, same, task, place) for task, place in texts]
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


def _lowest(domain: str, reports: Sequence[Named], task: str, place: str) -> Advice:
    """Take the model with the lowest bits per byte on one text."""
    constraint = f"{domain}: the best on {place}" if place != GENERAL else f"{domain}: the least loss on general text"
    measured = [(name, report, metric_of(final_stage(report), task, HEADLINE)) for name, report in reports]
    known = [(name, report, result) for name, report, result in measured if result is not None]
    if len(known) < len(reports):
        return Advice(constraint=constraint, model=None, reason=f"Not all models were measured on {task}.")
    first = known[0]
    if reasons := [reason for one in known[1:] if (reason := comparable(one[1], first[1], one[2], first[2]))]:
        return Advice(constraint=constraint, model=None, reason=f"The models cannot be compared: {reasons[0]}.")
    lowest = _by_value(known)[0]
    return Advice(constraint=constraint, model=lowest[0], reason=_reason(known, lowest))


def _by_value(known: Sequence[Measured]) -> list[Measured]:
    """Order models by their bits per byte, the lowest first."""
    return sorted(known, key=lambda one: one[2].value)


def _reason(known: Sequence[Measured], lowest: Measured) -> str:
    """Write the figures of the best model, and warn where the next one is within its interval."""
    name, report, result = lowest
    to_parent = ratio(result, metric_of(report.stage("parent"), result.task, HEADLINE))
    text = f"{number(result.value)} bits per byte"
    text += f", {to_parent:.3f} times the parent's" if to_parent is not None else ""
    rest = [one for one in _by_value(known) if one[0] != name]
    if rest and rest[0][2].value <= result.high:
        text += f"; {rest[0][0]} ({number(rest[0][2].value)}) lies within its interval"
    return f"{text}."
