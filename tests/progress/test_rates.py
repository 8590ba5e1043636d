"""Arithmetic of the time left: speeds that were measured, and speeds that stand for others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from minigpt.progress.rates import Rates, Work, roughly, tokens_in


@dataclass
class Row:
    """Something with tokens."""

    tokens: object


def test_a_speed_is_all_work_by_all_time() -> None:
    rates = Rates()
    rates.measure("read", 100.0, 1.0)
    rates.measure("read", 500.0, 2.0)
    assert rates.of("read") == pytest.approx(200.0)
    assert rates.seconds(Work(kind="read", operations=1000.0)) == pytest.approx(5.0)


def test_another_kind_stands_in_until_the_kind_itself_was_measured() -> None:
    rates, work = Rates(), Work(kind="train", operations=1200.0)
    assert rates.seconds(work) is None
    rates.measure("read", 200.0, 1.0)
    assert rates.seconds(work) == pytest.approx(6.0)
    rates.measure("train", 300.0, 1.0)
    assert rates.seconds(work) == pytest.approx(4.0)


def test_nothing_stands_for_sampling_and_without_it_there_is_no_total() -> None:
    rates = Rates()
    rates.measure("read", 200.0, 1.0)
    reading, sampling = Work(kind="read", operations=100.0), Work(kind="sample", operations=1.0)
    assert rates.total([reading, reading]) == pytest.approx(1.0)
    assert rates.total([reading, sampling]) is None
    assert rates.total([]) == 0.0


@pytest.mark.parametrize(
    ("item", "tokens"), [(Row(7), 7), ([Row([1, 2, 3]), Row([4])], 4), ([1, 2], 0), (3, 0), (Row(None), 0), ("ab", 0)]
)
def test_tokens_are_counted_where_an_item_has_some(item: object, tokens: int) -> None:
    assert tokens_in(item) == tokens


def test_an_item_of_a_loop_is_a_step_or_a_batch() -> None:
    work = Work(kind="train", operations=100.0, loop="Healing", per_item=10.0, per_token=2.0)
    assert work.of_item(0, "Healing at 0.001") == ("train", 10.0)
    assert work.of_item(Row(5), "Reading") == ("read", 10.0)


def test_an_hour_is_rounded_to_ten_minutes() -> None:
    assert roughly(4700.0) == "1 h 20 min"
