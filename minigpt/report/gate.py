"""Gates for scripts and CI: a gate fails if its expression is true."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from minigpt.errors import ConfigError, GateFailed
from minigpt.metrics import QUESTION_METRICS
from minigpt.report.compare import comparable
from minigpt.report.figures import METRICS, final_stage, metric_of, same_vocabulary
from minigpt.results import BuildReport, MetricResult

EXAMPLE = '"bits_per_byte>1.02x" or "accuracy_norm@glossary<0.4"'
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
ALIASES = {"bpb": "bits_per_byte", "acc": "accuracy", "acc_norm": "accuracy_norm"}
_GRAMMAR = re.compile(
    r"\s*(?P<metric>[a-z_]+)\s*(?:@\s*(?P<task>[^<>=]+?))?\s*(?P<op>>=|<=|>|<)\s*"
    r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<relative>[x×])?\s*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A parsed `METRIC[@TASK] OP NUMBER[x]`; `relative` means that NUMBER multiplies the value of a reference."""

    metric: str
    task: str | None
    op: str
    number: float
    relative: bool


def parse_gate(expression: str) -> Gate:
    """Parse the expression of a gate.

    Raises:
        ConfigError: The expression does not follow the grammar or names no metric of a report.
    """
    match = _GRAMMAR.fullmatch(expression)
    if not match:
        raise ConfigError(f"Cannot read the gate {expression!r}. Write METRIC[@TASK] OP NUMBER[x], e.g. {EXAMPLE}.")
    metric = ALIASES.get(match["metric"], match["metric"])
    if metric not in METRICS:
        raise ConfigError(
            f"The gate {expression!r} names no metric of a report ({', '.join(METRICS)}). Write e.g. {EXAMPLE}."
        )
    return Gate(
        metric=metric,
        task=match["task"],
        op=match["op"],
        number=float(match["number"]),
        relative=match["relative"] is not None,
    )


def check_gate(expression: str, reports: Sequence[tuple[str, BuildReport]]) -> tuple[str, ...]:
    """Fail if the expression is true of any model.

    A plain number is absolute and applies to every model. With `x` it multiplies the first model's value and applies
    to the other models; with a single report it multiplies the value of the parent. Without `@TASK` the gate looks at
    the model's own domain: the text of its own sources or, for accuracies, each of its question sets. `@other` is short
    for `<domain>/other`, `@glossary` for `<domain>/glossary`.

    Args:
        expression: The condition that must not be true, e.g. `bits_per_byte>1.02x`.
        reports: Names and reports as given to :func:`minigpt.report.compare.compare`.

    Returns:
        One sentence with figures for each check; all of them passed.

    Raises:
        GateFailed: The expression is true somewhere; the message has the figures.
        ConfigError: The expression cannot be read, or cannot be decided because a metric was not measured or two
            numbers do not measure the same thing. An undecided gate never passes.
    """
    gate = parse_gate(expression)
    checks = list(_checks(gate, expression, reports))
    if not checks:
        raise ConfigError(f"The gate {expression!r} has nothing to check. Give at least one report.")
    failed = [sentence for is_true, sentence in checks if is_true]
    if failed:
        raise GateFailed(f"Gate {expression!r} failed: {'; '.join(failed)}.")
    return tuple(sentence for _, sentence in checks)


def _checks(gate: Gate, expression: str, reports: Sequence[tuple[str, BuildReport]]) -> Iterator[tuple[bool, str]]:
    """Yield, for each result that the gate checks, whether the expression is true, and a sentence with the figures."""
    judged = reports[1:] if gate.relative and len(reports) > 1 else reports
    for name, report in judged:
        for result in _results(gate, expression, name, report):
            limit, origin = _limit(gate, expression, name, report, result, reports)
            is_true = OPERATORS[gate.op](result.value, limit)
            sentence = f"{name}: {gate.metric} of {result.task} is {result.value:.4f}, limit {limit:.4f}{origin}"
            yield is_true, sentence


def _results(gate: Gate, expression: str, name: str, report: BuildReport) -> list[MetricResult]:
    """Select the final-stage results that the gate checks."""
    measured = [result for result in final_stage(report).metrics if result.metric == gate.metric]
    if gate.task is None:
        selected = [result for result in measured if is_main(report, result)]
    else:
        names = {gate.task, f"{report.domain}/{gate.task}"}
        selected = [result for result in measured if result.task in names]
    if not selected:
        tasks = ", ".join(sorted(result.task for result in measured)) or "nothing"
        raise ConfigError(
            f"The gate {expression!r} cannot be decided: {name} has no {gate.metric} of {gate.task or report.domain}; "
            f"it was measured on {tasks}."
        )
    return selected


def is_main(report: BuildReport, result: MetricResult) -> bool:
    """Check whether a gate without a task looks at a result: the domain's own text, or one of its question sets."""
    own_questions = result.task.startswith(f"{report.domain}/") and result.metric in QUESTION_METRICS
    return result.task == report.domain or own_questions


def _limit(
    gate: Gate,
    expression: str,
    name: str,
    report: BuildReport,
    result: MetricResult,
    reports: Sequence[tuple[str, BuildReport]],
) -> tuple[float, str]:
    """Compute the number to compare `result` with, and say in words where it comes from."""
    if not gate.relative:
        return gate.number, ""
    first_name, first = reports[0]
    if len(reports) == 1:
        parent = report.stage("parent")
        reference = metric_of(parent, result.task, result.metric) if parent is not final_stage(report) else None
        changed = gate.metric == "token_perplexity" and not same_vocabulary(report)
        obstacle, origin = ("not comparable (other tokenizer)" if changed else None), "its parent"
    else:
        reference = _reference(gate, first, result)
        obstacle, origin = comparable(report, first, result, reference) if reference else None, first_name
    if reference is None:
        obstacle = f"{origin} has no {gate.metric} of {result.task}"
    if reference is None or obstacle:
        raise ConfigError(
            f"The gate {expression!r} cannot be decided for {name} against {origin}: {obstacle}. "
            "Use an absolute number, or a task that both measured."
        )
    return gate.number * reference.value, f" ({gate.number:g} × {reference.value:.4f} of {origin})"


def _reference(gate: Gate, first: BuildReport, result: MetricResult) -> MetricResult | None:
    """Find the first model's result on the same task, else on its own text, so that the refusal can name both."""
    final = final_stage(first)
    return metric_of(final, result.task, gate.metric) or metric_of(final, first.domain, gate.metric)
