"""Tests of the page of a build: it stands alone, shows the figures of the report, and runs nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from minigpt.fits import Fit, Outcome
from minigpt.report.page import render_comparison_page, render_page, write_comparison_page, write_page
from minigpt.report.page.build import prose
from minigpt.report.page.charts import Ratio, curve, kept_columns, scale_of, span
from minigpt.report.page.rows import ratio_rows
from minigpt.report.text import change
from minigpt.results import BuildReport, Interval
from tests.support.reports import make_report, metric, with_metrics

HOSTILE = '<script>alert("x")</script>\x1b[31m & more'
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    assert page.open == []
    return page


def hostile_report() -> BuildReport:
    """A report whose every foreign text tries to leave its place."""
    report = make_report()
    stages = tuple(
        replace(stage, sample=HOSTILE, training=stage.training and replace(stage.training, recipe=HOSTILE))
        for stage in report.stages
    )
    sources = tuple(replace(source, name=HOSTILE, license=HOSTILE, citation=HOSTILE) for source in report.attributions)
    return replace(
        report,
        stages=stages,
        attributions=sources,
        description=HOSTILE,
        notes=(HOSTILE,),
        sample_prompt=HOSTILE,
        device=HOSTILE,
        method=HOSTILE,
        overrides={"heal.steps": HOSTILE},
    )


@pytest.mark.parametrize("report", [make_report(), make_report(tuned=False), hostile_report()])
def test_the_page_is_whole_and_loads_nothing(report: BuildReport) -> None:
    page = parse(render_page(report))
    assert not {"script", "iframe", "link", "img", "object"} & set(page.tags)
    assert not any(name in {"src", "href"} or name.startswith("on") for name, _ in page.attributes)
    assert "url(" not in render_page(report) and "@import" not in render_page(report)


def test_foreign_text_stays_text() -> None:
    html = render_page(hostile_report())
    assert "<script" not in html and "\x1b" not in html
    assert html.count("&lt;script&gt;") >= 9


def test_the_figures_are_those_of_the_report() -> None:
    report = make_report()
    text = re.sub(r"\s+", " ", parse(render_page(report)).text)
    healed = report.stage("healed")
    assert healed is not None
    for result in healed.metrics:
        if result.metric == "bits_per_byte":
            assert f"{result.value:.3f}" in text
    for row in ratio_rows(report):
        assert f"{row.ratio.value:.3f}×" in text and f"{row.ratio.low:.3f} to {row.ratio.high:.3f}" in text
    assert f"{report.shape_after.vocab_size:,}" in text


def test_a_ratio_has_the_interval_of_its_paired_difference() -> None:
    parent = (metric("medical", "bits_per_byte", 0.8),)
    healed = (metric("medical", "bits_per_byte", 0.76, paired=(-0.04, -0.06, -0.02)),)
    (row,) = ratio_rows(with_metrics(make_report(tuned=False), parent=parent, healed=healed))
    ends = (row.ratio.value, row.ratio.low, row.ratio.high)
    assert ends == pytest.approx((0.95, 0.925, 0.975))
    assert (row.against, row.verdict) == ("parent", "better")


def test_pictures_of_ratios_share_a_scale_that_holds_them_all() -> None:
    ratios = [Ratio(value=0.9, low=0.85, high=0.95), Ratio(value=1.4, low=1.3, high=1.5)]
    low, high = scale_of(ratios)
    assert low < 0.85 and high > 1.5
    assert 'class="good"' in span(ratios[0], (low, high), "t") and 'class="bad"' in span(ratios[1], (low, high), "t")
    assert 'class="even"' in span(Ratio(value=1.0, low=0.9, high=1.1), (low, high), "t")


def test_a_column_is_as_high_as_what_was_kept() -> None:
    picture = kept_columns([4, 2, 0], 4, "units")
    heights = re.findall(r'class="kept"[^>]*height="([0-9.]+)"', picture)
    assert [float(height) for height in heights] == [54, 27, 0]
    assert picture.count("<line") == 1  # the removed layer


@pytest.mark.parametrize(("layers", "widest"), [(3, 56), (30, 560), (90, 560)])
def test_columns_of_few_layers_do_not_fill_the_page(layers: int, widest: int) -> None:
    assert f'style="max-width:{widest}px"' in kept_columns([4] * layers, 4, "units")


def test_commands_in_sentences_are_shown_as_code() -> None:
    assert prose("Run `minigpt open <x>` & see.") == "Run <code>minigpt open &lt;x&gt;</code> &amp; see."
    html = render_page(replace(make_report(), notes=("A source with `split: other` is such text.",)))
    assert "<code>split: other</code>" in html


def test_a_curve_needs_two_points() -> None:
    assert curve([], "t") == curve([(0, 1.0)], "t") == ""
    assert curve([(0, 1.0), (10, 0.5)], 'a "t"').count("<circle") == 1
    assert 'a "t"' not in curve([(0, 1.0), (10, 0.5)], 'a "t"')


def test_it_is_written_beside_the_report_and_is_small(tmp_path: Path) -> None:
    write_page(make_report(), tmp_path)
    html = (tmp_path / "report.html").read_bytes()
    assert html.startswith(b"<!doctype html>") and len(html) < 1_000_000


def test_the_decision_follows_the_gates() -> None:
    assert "Do not ship" in render_page(make_report(), ["bits_per_byte>0.1x"])
    assert ">Ship<" in render_page(make_report(), ["bits_per_byte>9x"]).replace("</b>", "<")


def test_the_page_of_several_models_is_whole_and_names_them_all(tmp_path: Path) -> None:
    reports = [("first", make_report()), (HOSTILE, hostile_report())]
    page = parse(render_comparison_page(reports))
    assert not {"script", "iframe", "link", "img", "object"} & set(page.tags)
    assert "first: " in page.text and 'alert("x")' in page.text
    write_comparison_page(reports, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")


def test_a_fit_is_shown_with_limits_figures_intervals_and_whether_ten_percent_are_met() -> None:
    fit = Fit(
        runtime="llama.cpp",
        precision="int4",
        export="medical-gguf-int4",
        machine=HOSTILE,
        outcomes=(
            Outcome(constraint="50MB", kind="file", limit=5e7, expected=4.9e7, measured=4.89e7),
            Outcome(constraint="60 tokens/s", kind="speed", limit=60.0, expected=70.0, measured=51.0, low=50, high=52),
        ),
        remarks=("60 tokens/s is missed by 15.0%.",),
    )
    html = render_page(make_report(fit=fit))
    text = re.sub(r"\s+", " ", parse(html).text)
    assert "medical-gguf-int4" in text and "<script" not in html
    for cell in ("50.0 MB", "49.0 MB", "48.9 MB", "-2.2 %", "51.0 tokens/s", "50.0 – 52.0", "-15.0 %", "not kept"):
        assert cell in text, cell
    assert ">yes<" in html and ">no<" in html and "missed by 15.0%" in text
    assert "<h2>Fit</h2>" not in render_page(make_report())


def test_the_distilled_twin_stands_beside_the_other_controls() -> None:
    report = make_report()
    healed = next(stage for stage in report.stages if stage.stage == "healed")
    text = next(item for item in healed.metrics if (item.task, item.metric) == ("medical", "bits_per_byte"))
    against = Interval(value=0.03, low=0.02, high=0.04)
    twin = replace(healed, stage="parent_distilled", metrics=(replace(text, value=text.value - 0.03),))
    ours = replace(healed, metrics=(replace(text, paired_difference_vs_distilled=against),))
    stages = (*(stage for stage in report.stages if stage is not healed), twin, ours)
    shown = replace(report, stages=stages)
    row = next(row for row in ratio_rows(shown) if row.against == "distilled twin")
    assert row.ratio.value == pytest.approx(text.value / (text.value - 0.03))
    assert row.verdict == "worse"
    page = re.sub(r"\s+", " ", parse(render_page(shown)).text)
    assert f"{row.ratio.value:.3f}× distilled twin: worse" in page
    assert "distilled twin" not in parse(render_page(report)).text


def test_numbers_stay_with_their_percent_sign_and_zero_has_no_minus() -> None:
    page = render_page(make_report())
    assert "95\u00a0% interval" in page
    assert not re.search(r"\d %", page)
    ours, other = metric("d/t", "accuracy", 0.30001), metric("d/t", "accuracy", 0.30002)
    assert change(ours, other) == "+0.000"
    assert change(ours, replace(other, value=0.312)) == "−0.012"
