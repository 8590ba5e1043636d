"""Tests of the page of a catalog: every model stands there, compared with those on the same text, and nothing runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from minigpt.errors import ConfigError
from minigpt.report.figures import final_stage, headline
from minigpt.report.page.catalog import PICTURED, Finished, groups, render_catalog_page, write_catalog_page
from minigpt.report.page.rows import ratio_rows
from minigpt.results import BuildReport, CatalogEntry
from tests.report.page.test_page import HOSTILE, hostile_report, parse
from tests.report.test_advice import report_of
from tests.support.reports import make_report, metric, with_metrics


def finished(name: str, report: BuildReport | None, problem: str = "") -> Finished:
    """A model of a catalog."""
    known = report or make_report()
    final = final_stage(known)
    entry = CatalogEntry(
        id=name,
        domain=known.domain,
        base_model=known.base_model,
        path=f"runs/{name}",
        created="2026-11-27T10:00:00+00:00",
        parameters=final.parameters,
        bytes=final.bytes,
        headline=headline(known),
        hashes={},
    )
    return Finished(entry=entry, report=report, problem=problem)


def test_the_page_is_whole_loads_nothing_and_escapes() -> None:
    models = [finished("a", make_report()), finished(HOSTILE, hostile_report()), finished("x", None, HOSTILE)]
    html = render_catalog_page(models)
    page = parse(html)
    assert not {"script", "iframe", "link", "img", "object"} & set(page.tags)
    assert not any(name in {"src", "href"} or name.startswith("on") for name, _ in page.attributes)
    assert "<script" not in html and "\x1b" not in html and "url(" not in html


def test_every_model_has_its_size_ratios_answers_and_licenses() -> None:
    answers = (replace(metric("medical/kind", "exact_match", 0.81, n=140), higher_is_better=True),)
    report = report_of(0.9)
    healed = report.stage("healed")
    assert healed is not None
    report = with_metrics(report, healed=(*healed.metrics, *answers))
    text = parse(render_catalog_page([finished("one", report), finished("gone", None, "It was moved.")])).text
    for row in ratio_rows(report):
        assert f"{row.ratio.value:.3f}×" in text and f"{row.ratio.low:.3f} to {row.ratio.high:.3f}" in text
    assert "kind, exact match: 0.810 (0.790–0.830, n 140)" in text
    assert "parent apache-2.0; texts HPO license" in text
    assert "runs/one" in text and "gone: It was moved." in text
    assert "medical: the best answers of kind" in text


def test_models_on_other_text_stand_in_groups_of_their_own_and_the_smallest_first() -> None:
    models = [
        finished("large", report_of(0.90, weights=300)),
        finished("small", report_of(0.95, weights=200)),
        finished("elsewhere", report_of(0.5, documents="b")),
        finished("law", report_of(0.9, domain="law")),
    ]
    law, first, second = groups(models, ())
    assert (law.domain, law.text) == ("law", "")
    assert (first.text, [row.entry.id for row in first.rows]) == ("a", ["small", "large"])
    assert (second.text, [row.entry.id for row in second.rows]) == ("b", ["elsewhere"])
    assert [one.model for one in first.advice[:2]] == ["small", "large"]


def test_the_gates_decide_and_a_wrong_one_is_refused() -> None:
    models = [finished("one", report_of(0.9))]
    assert next(groups(models, ())).rows[0].decision.answer == "ship"
    assert next(groups(models, ["bits_per_byte>0.5x"])).rows[0].decision.answer == "do not ship"
    assert "bits_per_byte&gt;0.5x" in render_catalog_page(models, ["bits_per_byte>0.5x"])
    with pytest.raises(ConfigError):
        render_catalog_page(models, ["nonsense"])


def test_many_models_fit_into_a_megabyte(tmp_path: Path) -> None:
    one = finished("one", report_of(0.9))
    many = [replace(one, entry=replace(one.entry, id=f"model-{number}")) for number in range(PICTURED + 50)]
    write_catalog_page(many, tmp_path / "page.html")
    written = (tmp_path / "page.html").read_text("utf-8")
    assert len(written.encode()) < 1_000_000
    assert f"model-{PICTURED + 49}" in written and "<svg" not in written
    assert "<svg" in render_catalog_page(many[:PICTURED])


def test_an_empty_catalog_says_how_to_begin() -> None:
    assert "The catalog is empty" in parse(render_catalog_page([])).text
