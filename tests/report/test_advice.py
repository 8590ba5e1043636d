"""Tests of the advice on several models."""

from __future__ import annotations

from dataclasses import replace

from minigpt.report.advice import advise
from minigpt.results import BuildReport
from tests.support.reports import make_report, metric, with_metrics


def report_of(own: float, *, weights: int = 100, documents: str = "a", domain: str = "medical") -> BuildReport:
    """A report whose specialist needs `own` bits per byte where the parent needs 1.0, and good figures elsewhere."""
    texts = {domain: own, f"{domain}/other": own, "general/other": 1.1}
    parent = tuple(metric(task, "bits_per_byte", 1.0) for task in texts)
    healed = tuple(
        metric(task, "bits_per_byte", value, paired=(value - 1, value - 1.01, value - 0.99))
        for task, value in texts.items()
    )
    report = with_metrics(make_report(domain), parent=parent, healed=healed)
    stages = tuple(replace(one, bytes=weights) if one.stage == "healed" else one for one in report.stages)
    return replace(report, stages=stages, fingerprints=dict.fromkeys(texts, documents))


def test_the_smallest_model_that_passes_and_the_best_on_each_text_are_named() -> None:
    reports = [("large", report_of(0.90, weights=300)), ("small", report_of(0.95)), ("bad", report_of(1.2, weights=1))]
    smallest, own, other, general = advise(reports)
    assert (smallest.model, own.model, other.model) == ("small", "large", "large")
    assert general.model is not None
    assert own.reason == "0.900 bits per byte, 0.900 times the parent's."


def test_a_model_within_the_interval_of_the_best_is_named() -> None:
    own = advise([("a", report_of(0.900)), ("b", report_of(0.905))])[1]
    assert own.model == "a" and "b (0.905) lies within its interval" in own.reason


def test_no_model_is_advised_where_none_passes() -> None:
    smallest = advise([("bad", report_of(1.2))])[0]
    assert smallest.model is None and smallest.reason == "No model passes all gates."
    assert advise([("bad", report_of(1.2))], ["bits_per_byte>1.5x"])[0].model == "bad"


def test_models_measured_on_other_text_are_not_compared() -> None:
    own = advise([("a", report_of(0.9)), ("b", report_of(0.8, documents="b"))])[1]
    assert own.model is None and "other held-out data" in own.reason


def test_each_domain_has_its_own_advice() -> None:
    advice = advise([("m", report_of(0.9)), ("l", report_of(0.9, domain="law"))])
    assert [one.constraint.partition(":")[0] for one in advice] == ["medical"] * 4 + ["law"] * 4
