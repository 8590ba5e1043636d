"""Tests of the decision on a build: gates are judged by whole intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minigpt.errors import ConfigError
from minigpt.report.decision import DEFAULT_GATES, decide
from minigpt.report.figures import final_stage
from minigpt.results import BuildReport, Coverage, Interval
from tests.support.reports import make_report, metric, with_metrics


def measured(own: tuple[float, float, float], other: tuple[float, float, float] | None, n: int = 60) -> BuildReport:
    """A report in which the parent has 1.0 everywhere, and the differences of the specialist are given."""
    texts = {"medical": own, "medical/other": other, "general/other": (0.1, 0.08, 0.12)}
    parent = [metric(task, "bits_per_byte", 1.0, n=n) for task, paired in texts.items() if paired]
    ours = [
        metric(task, "bits_per_byte", 1 + paired[0], n=n, paired=paired) for task, paired in texts.items() if paired
    ]
    return with_metrics(make_report(), parent=tuple(parent), healed=tuple(ours))


@pytest.mark.parametrize(
    ("own", "other", "answer"),
    [
        ((-0.10, -0.12, -0.08), (0.01, -0.01, 0.03), "ship"),
        ((-0.10, -0.12, -0.08), (0.20, 0.18, 0.22), "do not ship"),
        ((-0.01, -0.03, 0.01), (0.01, -0.01, 0.03), "not enough evidence"),
        ((-0.10, -0.12, -0.08), (0.05, 0.02, 0.08), "not enough evidence"),
        ((-0.10, -0.12, -0.08), None, "not enough evidence"),
        ((0.10, 0.08, 0.12), (0.05, 0.02, 0.08), "do not ship"),
    ],
)
def test_the_whole_interval_decides(
    own: tuple[float, float, float], other: tuple[float, float, float] | None, answer: str
) -> None:
    assert decide(measured(own, other)).answer == answer


def test_a_factor_is_judged_by_the_paired_ratio() -> None:
    """The difference may lie wholly beyond the limit where the ratio does not: the parent's value is not known."""
    report = measured((-0.10, -0.12, -0.08), (0.01, -0.01, 0.03))
    [general] = [result for result in final_stage(report).metrics if result.task == "general/other"]
    wide = replace(general, value=1.239, paired_ratio_vs_parent=Interval(value=1.239, low=1.197, high=1.283))
    by_difference = replace(wide, paired_difference_vs_parent=Interval(value=0.239, low=0.201, high=0.278))
    others = tuple(result for result in final_stage(report).metrics if result.task != "general/other")
    check = decide(with_metrics(report, healed=(*others, by_difference)), ["bits_per_byte@general/other>1.20x"]).checks[
        0
    ]
    assert check.state == "open" and "1.239 of the parent's (95 % 1.197 to 1.283)" in check.reason
    older = replace(by_difference, paired_ratio_vs_parent=None)
    assert decide(with_metrics(report, healed=(*others, older)), ["bits_per_byte@general/other>1.20x"]).checks[
        0
    ].state == ("fails")


def test_a_few_documents_decide_nothing() -> None:
    decision = decide(measured((-0.10, -0.12, -0.08), (0.01, -0.01, 0.03), n=9))
    assert {check.state for check in decision.checks} == {"open"}
    assert "only 9 documents" in decision.checks[0].reason


def test_repeated_wording_decides_nothing() -> None:
    report = measured((-0.10, -0.12, -0.08), (0.01, -0.01, 0.03))
    covered = replace(report, coverage=(Coverage(task="medical", share=0.6, documents=60, unseen=0),))
    assert decide(covered).checks[0].state == "open"
    assert decide(covered).answer == "not enough evidence"


def test_gates_of_the_user_replace_the_default_ones() -> None:
    report = measured((-0.10, -0.12, -0.08), (0.20, 0.18, 0.22))
    strict = decide(report, ["bits_per_byte>0.85x"])
    assert (strict.answer, strict.is_default, len(strict.checks)) == ("do not ship", False, 1)
    assert decide(report, ["bits_per_byte>0.95x"]).answer == "ship"
    assert decide(report, ["bits_per_byte>0.93"]).answer == "ship"  # 0.90, absolute interval 0.88 to 0.92
    assert decide(report, ["bits_per_byte>0.91"]).answer == "not enough evidence"
    assert [check.gate for check in decide(report).checks] == list(DEFAULT_GATES)


def test_what_was_not_measured_is_open_and_named() -> None:
    check = decide(measured((-0.1, -0.12, -0.08), None)).checks[1]
    assert (check.state, check.task) == ("open", "medical/other")
    assert check.reason == "Bits per byte of medical/other was not measured."


def test_a_gate_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="Cannot read the gate"):
        decide(make_report(), ["better please"])
