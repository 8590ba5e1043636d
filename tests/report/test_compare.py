"""Comparison: every number stands, but only like is divided by like."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from minigpt.errors import ConfigError
from minigpt.files import dumps
from minigpt.report import compare, render_comparison
from minigpt.report.compare_table import conclusions
from tests.support.reports import make_report


def row(comparison, task, metric):
    return next(row for row in comparison.rows if (row.task, row.metric) == (task, metric))


def shown(comparison, width=100):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(render_comparison(comparison))
    return stream.getvalue()


def test_builds_of_one_domain_get_ratios_to_the_first():
    comparison = compare([("big", make_report()), ("small", make_report(healed=0.7823))])
    first, second = row(comparison, "medical", "bits_per_byte").cells
    assert first.ratio == 1.0
    assert second.ratio == pytest.approx(0.7823 / 0.7014)
    assert second.difference == pytest.approx(0.0809)
    assert (first.verdict, second.verdict) == ("better", "worse")
    assert second.vs_parent == pytest.approx(0.7823 / 0.7618)
    assert comparison.models[0].kept == pytest.approx(0.759, abs=1e-3)


def test_other_domains_share_a_row_but_no_ratio():
    comparison = compare([("m", make_report()), ("l", make_report("law"))])
    own_row = row(comparison, "own domain", "bits_per_byte")
    assert own_row.cells[1].task == "law"
    assert own_row.cells[1].ratio is None
    assert own_row.cells[1].difference is None
    assert own_row.cells[1].why_not == "measured on law, not medical"
    assert own_row.cells[1].vs_parent is not None
    assert row(comparison, "own domain/glossary", "accuracy_norm").cells[1].why_not
    assert row(comparison, "general", "bits_per_byte").cells[1].ratio == 1.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"medical": "zzzz"}, "other held-out data"), ({}, None)],
)
def test_held_out_fingerprints_decide(change, reason):
    report = make_report()
    other = replace(report, fingerprints={**report.fingerprints, **change})
    cell = row(compare([("a", report), ("b", other)]), "medical", "bits_per_byte").cells[1]
    assert cell.why_not == reason
    assert (cell.ratio is None) == bool(reason)


def test_without_fingerprints_the_number_of_items_must_agree():
    report = make_report(fingerprints={})
    healed = report.stages[-1]
    fewer = tuple(replace(result, n=result.n - 1) for result in healed.metrics)
    other = replace(report, stages=(*report.stages[:-1], replace(healed, metrics=fewer)))
    cell = row(compare([("a", report), ("b", other)]), "medical", "bits_per_byte").cells[1]
    assert cell.why_not == "59 items, not 60"


def test_token_perplexity_needs_the_same_tokenizer():
    report = make_report()

    def reason(first, other):
        return row(compare([("a", first), ("b", other)]), "medical", "token_perplexity").cells[1].why_not

    assert reason(report, report) is None
    assert reason(report, replace(report, fingerprints={**report.fingerprints, "vocabulary": "w"})) == "other tokenizer"
    unknown = replace(report, fingerprints={})
    assert reason(unknown, unknown) == "other tokenizer"
    untouched = replace(unknown, shape_after=replace(report.shape_after, vocab_size=49152))
    assert reason(untouched, untouched) is None


def test_what_one_model_did_not_measure_stays_empty():
    report = make_report()
    healed = report.stages[-1]
    short = replace(report, stages=(*report.stages[:-1], replace(healed, metrics=healed.metrics[1:2])))
    comparison = compare([("a", short), ("b", report)])
    cells = row(comparison, "general", "bits_per_byte").cells
    assert cells[0] is None
    assert cells[1].ratio is None
    assert "not measured" in cells[1].why_not
    assert "–" in shown(comparison)


def test_nothing_to_compare_is_said():
    with pytest.raises(ConfigError, match="Nothing to compare"):
        compare([])


def test_comparison_is_json():
    data = json.loads(dumps(compare([("a", make_report()), ("b", make_report("law"))])))
    assert [model["name"] for model in data["models"]] == ["a", "b"]
    assert data["rows"][0]["cells"][1]["ratio"] is None


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_and_explains_its_marks(width):
    text = shown(compare([("m", make_report()), ("s", make_report(healed=0.7823)), ("l", make_report("law"))]), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for part in (
        "75.9 %",
        "1.115×",
        "0.921× better",
        "1.027× worse",
        "† not comparable with the first model: measured on law",
    ):
        assert part in text, part
    assert "not comparable" not in shown(compare([("m", make_report()), ("s", make_report())]), width)


@pytest.mark.parametrize(("width", "count"), [(80, 4), (50, 2)])
def test_a_line_that_is_broken_stays_beside_its_label(width, count):
    reports = [(name, make_report()) for name in ("first", "a-long-name", "third", "fourth")[:count]]
    lines = shown(compare(reports), width).splitlines()
    values = {"0.921×": "own parent", "1.062×": "own tuned", "0.681–0.721": "95 % interval", "21.4": "word perplexity"}
    for value, label in values.items():
        assert [line for line in lines if value in line and line.startswith(f"  {label} ")], label
        assert not [line for line in lines if value in line and not line.startswith(f"  {label} ")], label


def test_too_few_documents_are_said_beside_the_value():
    report = make_report()
    stages = tuple(
        replace(stage, metrics=tuple(replace(result, n=3) for result in stage.metrics)) for stage in report.stages
    )
    text = shown(compare([("few", replace(report, stages=stages))]))
    assert "0.921× too few" in text
    assert "better" not in text
    assert "the true uncertainty may be larger than the interval shown" in text
    assert "the true uncertainty may be larger than the interval shown" not in shown(compare([("many", report)]))


def test_two_builds_of_one_domain_are_summed_up_in_a_sentence():
    (sentence,) = conclusions(compare([("a", make_report()), ("b", make_report(healed=0.7823))]))
    assert sentence.startswith("b needs these bits per byte of a's: 1.115× on medical, ")
    assert "1.000× on general" in sentence and "weights are 1.000×" in sentence and "no interval" in sentence
    assert conclusions(compare([("a", make_report())])) == []
    other_field = conclusions(compare([("m", make_report()), ("l", make_report("law"))]))
    assert "own domain" not in other_field[0]
