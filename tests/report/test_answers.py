"""The sentence about free answers: the fairest control, the paired interval, the form."""

from __future__ import annotations

from minigpt.report import render
from minigpt.report.answers import answer_sentence, main_results
from minigpt.report.compare import compare
from minigpt.report.gate import check_gate
from minigpt.report.page.rows import value_rows
from minigpt.report.verdicts import sentences
from minigpt.results import BuildReport
from tests.support.fields import with_task
from tests.support.reports import make_report, shown


def answered(**changes: bool) -> BuildReport:
    """A report with one own task, its form and the instructions of the general text."""
    report = make_report(**changes)
    tuned = 0.7 if changes.get("tuned", True) else None
    for task, name, parent, ours in (
        ("medical/kind", "exact_match", 0.3, 0.6),
        ("medical/kind", "format_compliance", 0.5, 0.9),
        ("general/instructions", "instructions_followed", 0.4, 0.2),
    ):
        report = with_task(report, task, parent, ours, tuned=tuned, name=name, higher_is_better=True)
    return report


def test_the_tuned_parent_is_the_control_where_there_is_one() -> None:
    text = answer_sentence(answered())
    assert text is not None
    assert text.startswith(
        "Free answers, specialist against tuned parent: medical/kind exact match 0.600 against 0.700"
    )
    assert "−0.100, 95 % −0.110 to −0.090, n 60, worse" in text
    assert "54 of 60 answers have the form that was asked for, of the parent's 30." in text
    assert text in sentences(answered())


def test_the_parent_is_the_control_otherwise() -> None:
    text = answer_sentence(answered(tuned=False))
    assert text is not None
    assert text.startswith(
        "Free answers, specialist against parent: medical/kind exact match 0.600 against 0.300 (+0.300"
    )
    assert "general/instructions instructions followed 0.200 against 0.400" in text


def test_a_report_without_tasks_says_nothing() -> None:
    assert answer_sentence(make_report()) is None
    assert list(main_results(make_report())) == []


def test_terminal_page_comparison_and_gates_know_the_metrics() -> None:
    report = answered()
    assert "exact match" in shown(report, 100)
    assert "format compliance" in shown(report, 100)
    assert render(report) is not None
    rows = {(row.task, row.metric) for row in value_rows(report, report.stages)}
    assert {("medical/kind", "exact match"), ("general/instructions", "instructions followed")} <= rows
    keys = {(row.task, row.metric) for row in compare([("a", report), ("b", report)]).rows}
    assert ("medical/kind", "exact_match") in keys
    assert check_gate("exact_match@kind<0.5", [("a", report)])
    assert check_gate("format_compliance@kind<0.95x", [("a", report)])
