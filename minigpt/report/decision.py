"""Decision on a build: gates judged by intervals, so that a result that may fall on either side decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from minigpt.report.figures import ENOUGH_ITEMS, TOO_REPEATED, coverage_of, final_stage, metric_of, same_vocabulary
from minigpt.report.gate import OPERATORS, Gate, is_main, parse_gate
from minigpt.results import BuildReport, MetricResult

State = Literal["holds", "fails", "open"]
Answer = Literal["ship", "do not ship", "not enough evidence"]

# Gates where the user names none: no worse than the parent on the own sources, at most 5 % worse on other sources of
# the field, and no collapse on general text that nothing was trained on.
DEFAULT_GATES = (
    "bits_per_byte>1.00x",
    "bits_per_byte@other>1.05x",
    "bits_per_byte@general/other>1.20x",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A gate, applied to one result of the final model.

    Attributes:
        gate: Expression of the gate, which fails where it is true.
        task: Task that was judged; the gate's own where nothing was measured.
        state: "holds" or "fails" where the whole interval says so, "open" otherwise.
        reason: One sentence with the figures.
    """

    gate: str
    task: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Answer to the question whether a model may be used, with the checks that it rests on.

    Attributes:
        answer: "do not ship" if a check fails, "not enough evidence" if one is open, else "ship".
        checks: All checks.
        is_default: True if the gates are the default ones.
    """

    answer: Answer
    checks: tuple[Check, ...]
    is_default: bool


def decide(report: BuildReport, gates: Sequence[str] = ()) -> Decision:
    """Judge a build by gates.

    Args:
        report: Report of the build.
        gates: Expressions as `minigpt compare --fail-if` takes them; `x` multiplies the parent's value. Without any,
            :data:`DEFAULT_GATES` count.

    Raises:
        ConfigError: A gate cannot be read.
    """
    checks = tuple(check for gate in gates or DEFAULT_GATES for check in _checks(report, gate))
    states = {check.state for check in checks}
    answer: Answer = "do not ship" if "fails" in states else "not enough evidence" if "open" in states else "ship"
    return Decision(answer=answer, checks=checks, is_default=not gates)


def _checks(report: BuildReport, expression: str) -> list[Check]:
    """Apply a gate to every result that it names."""
    gate = parse_gate(expression)
    results = [result for result in final_stage(report).metrics if _is_meant(report, gate, result)]
    if not results:
        task = gate.task or report.domain
        name = f"{report.domain}/{task}" if task == "other" else task
        return [Check(gate=expression, task=name, state="open", reason=f"{_name(gate)} of {name} was not measured.")]
    return [_check(report, gate, expression, result) for result in results]


def _is_meant(report: BuildReport, gate: Gate, result: MetricResult) -> bool:
    """Return whether a gate looks at a result."""
    if result.metric != gate.metric:
        return False
    return is_main(report, result) if gate.task is None else result.task in {gate.task, f"{report.domain}/{gate.task}"}


def _check(report: BuildReport, gate: Gate, expression: str, result: MetricResult) -> Check:
    """Judge one result by its interval."""
    bounds, obstacle = _bounds(report, gate, result)
    unit = " of the parent's" if gate.relative else ""
    if bounds is None:
        state: State = "open"
        reason = f"{_name(gate)} of {result.task} cannot be judged: {obstacle}."
    else:
        value, low, high = bounds
        judged = {OPERATORS[gate.op](number, gate.number) for number in (low, high)}
        state = "open" if len(judged) > 1 or obstacle else "fails" if judged == {True} else "holds"
        reason = (
            f"{_name(gate)} of {result.task}: {value:.3f}{unit} (95 % {low:.3f} to {high:.3f}), "
            f"limit {gate.number:g}{'; ' + obstacle if obstacle else ''}."
        )
    return Check(gate=expression, task=result.task, state=state, reason=reason)


def _bounds(report: BuildReport, gate: Gate, result: MetricResult) -> tuple[tuple[float, float, float] | None, str]:
    """Compute value, low and high end in the gate's unit, and name what keeps them from deciding."""
    obstacle = "" if result.n >= ENOUGH_ITEMS else f"only {result.n} documents or questions"
    coverage = coverage_of(report, result.task)
    if coverage is not None and coverage.share > TOO_REPEATED:
        obstacle = "the wording was trained on"
    if not gate.relative:
        return (result.value, result.low, result.high), obstacle
    parent = metric_of(report.stage("parent"), result.task, result.metric)
    if parent is None or parent.value <= 0:
        return None, "the parent was not measured"
    if result.metric == "token_perplexity" and not same_vocabulary(report):
        return None, "the tokens are not the parent's"
    if (ratio := result.paired_ratio_vs_parent) is not None:
        return (ratio.value, ratio.low, ratio.high), obstacle
    if (paired := result.paired_difference_vs_parent) is None:
        return None, "there is no paired difference to the parent"
    # Reports of older versions have no ratio. Its ends then take the parent's value as known, which is right near 1.
    ends = (result.value, parent.value + paired.low, parent.value + paired.high)
    value, low, high = (end / parent.value for end in ends)
    return (value, low, high), obstacle


def _name(gate: Gate) -> str:
    """Write the metric of a gate at the beginning of a sentence."""
    return gate.metric.replace("_", " ").capitalize()
