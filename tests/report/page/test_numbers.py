"""Every number that a page shows stands in report.json, or follows from numbers there by one ratio or difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from itertools import combinations, permutations
from typing import Any

import pytest

from minigpt.costs import Cost, Price, StepCost
from minigpt.exchanges import Exchange, TaskExchanges
from minigpt.files import to_plain
from minigpt.report.page import render_page
from minigpt.report.text import count, duration, number, percent, size
from minigpt.results import BuildReport, Interval, MetricResult
from tests.report.page.test_page import parse
from tests.support.reports import make_report, with_metrics

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Numbers of the page's own sentences: bounds, shares of intervals, the smallest n, an example of a price.
OF_THE_PAGE = {"95", "5", "20", "8", "2", "30", "2.50", "1.00", "1.05", "1.20", "1.000", "1", "1.2"}
FORMATS: tuple[Callable[[float], str], ...] = (
    number,
    lambda value: count(round(value)),
    lambda value: size(round(value)),
    duration,
    percent,
    lambda value: f"{value:.3f}",
    lambda value: f"{value:.2f}",
    lambda value: f"{value:.1f}",
    lambda value: f"{value:.0f}",
    lambda value: f"{value:g}",
    lambda value: f"{value:,.0f}",
)


def leaves(value: Any) -> Iterator[Any]:
    """All texts and numbers of a JSON value, names included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    elif value is not None:
        yield value


def derived(report: BuildReport) -> Iterator[float]:
    """Numbers that follow from those of a report: ratios and differences to a control, shares, sums, money, energy."""
    pairs = permutations([result for stage in report.stages for result in stage.metrics], 2)
    for ours, other in ((a, b) for a, b in pairs if (a.task, a.metric) == (b.task, b.metric)):
        yield from of_pair(ours, other)
    parent = report.stages[0].parameters
    yield from (stage.parameters / parent for stage in report.stages)
    removed = sum(report.removed_parameters.values())
    yield from (value / whole for value in report.removed_parameters.values() for whole in (parent, removed))
    for many in range(2, len(report.removed_parameters) + 1):
        for some in combinations(report.removed_parameters.values(), many):
            yield from (sum(some), sum(some) / parent)
    if (cost := report.cost) is not None:
        yield from (cost.seconds, *(step.seconds / cost.seconds for step in cost.steps))
        joules = [sum(step.joules.values()) for step in cost.steps] + [*cost.joules.values(), sum(cost.joules.values())]
        yield from (value / unit for value in joules for unit in (3600, 3.6e6))
        if cost.price is not None:
            yield cost.price.amount * cost.seconds / 3600


def of_pair(ours: MetricResult, other: MetricResult) -> Iterator[float]:
    """The ratio and the difference of two results, and the ends of the ratio's interval."""
    yield from (ours.value / other.value, ours.value - other.value)
    for paired in (ours.paired_difference_vs_parent, ours.paired_difference_vs_tuned):
        if paired is not None:
            yield from (paired.low, paired.high, 1 + paired.low / other.value, 1 + paired.high / other.value)


def known(report: BuildReport) -> set[str]:
    """All numbers that a page may show for a report, as it may write them."""
    values = [leaf for leaf in leaves(to_plain(report)) if not isinstance(leaf, bool)]
    texts = [leaf for leaf in values if isinstance(leaf, str)]
    numbers = [float(leaf) for leaf in values if isinstance(leaf, (int, float))] + list(derived(report))
    texts += [form(sign * value) for value in numbers for sign in (1, -1) for form in FORMATS]
    texts += [str(layer) for layer in range(report.shape_before.layers)]
    return {one for text in texts for one in NUMBER.findall(text)} | OF_THE_PAGE


def shown(html: str) -> set[str]:
    """All numbers in the text of a page; its style and the places of its drawings are none."""
    text = re.sub(r"<style>.*?</style>", " ", html, flags=re.DOTALL)
    return set(NUMBER.findall(unescape(re.sub(r"<[^>]*>", " ", text))))


def full_report() -> BuildReport:
    """A report with cost and answers."""
    steps = (
        StepCost(name="corpus", seconds=41.3, joules={"processor": 5170.0, "gpu": 9000.0}),
        StepCost(name="measured_parent_tuned", seconds=63.9, joules={"processor": 7130.0, "gpu": 22000.0}),
        StepCost(name="healed", seconds=4000.7, joules={"processor": 431_000.0, "gpu": 3_800_000.0}),
    )
    exchange = Exchange(prompt="Dose of 17 mg?", right="17 mg", won=True, answers={"parent": "3", "healed": "17 mg"})
    answers = TaskExchanges(
        task="medical/dose", rule="exact match", both=61, won=19, lost=7, neither=13, shown=(exchange,)
    )
    report = make_report()
    tuned = {(result.task, result.metric): result.value for result in report.stages[1].metrics}
    healed = tuple(
        replace(result, paired_difference_vs_tuned=Interval(value=shift, low=shift - 0.0123, high=shift + 0.0117))
        for result in report.stages[-1].metrics
        for shift in (result.value - tuned[result.task, result.metric],)
    )
    return replace(
        with_metrics(report, healed=healed),
        cost=Cost(steps=steps, price=Price(amount=2.75, currency="EUR")),
        exchanges=(answers,),
    )


@pytest.mark.parametrize("report", [make_report(), make_report(tuned=False), full_report()])
def test_every_number_of_the_page_is_one_of_the_report(report: BuildReport) -> None:
    numbers = shown(render_page(report))
    assert len(numbers) > 60
    assert numbers - known(report) == set()


def test_a_number_from_elsewhere_is_noticed() -> None:
    report = full_report()
    html = render_page(report).replace("</main>", "<p>It is 0.4711 better.</p></main>")
    assert shown(html) - known(report) == {"0.4711"}


def test_cost_is_shown_by_step_with_energy_and_money() -> None:
    text = re.sub(r"\s+", " ", parse(render_page(full_report())).text)
    assert "measuring: tuned parent1 min 04 s1.6 %8.1 Wh" in text.replace(" 1 min", "1 min")
    assert "processors 123.1 Wh, GPU 1.06 kWh" in text
    assert f"{2.75 * 4105.9 / 3600:.2f} EUR, at 2.75 EUR an hour (the price given to minigpt build)" in text


def test_nothing_is_invented_where_nothing_is_known() -> None:
    text = parse(render_page(make_report())).text
    assert "not measured, because no counter could be read" in text and "no price was stated" in text
    priced = parse(render_page(make_report(), price=Price(amount=3.0, currency="USD"))).text
    assert f"{3 * 1105.2 / 3600:.2f} USD, at 3 USD an hour (the price given to minigpt open)" in priced


def test_energy_counts_only_what_every_step_could_read() -> None:
    steps = (StepCost(name="a", seconds=1, joules={"processor": 2.0, "gpu": 3.0}), StepCost(name="b", seconds=1))
    assert Cost(steps=steps).joules == {}
    steps = (steps[0], StepCost(name="b", seconds=1, joules={"gpu": 4.0}))
    assert Cost(steps=steps).joules == {"gpu": 7.0}
