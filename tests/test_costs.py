"""Prices of an hour are read from an amount and a currency."""

from __future__ import annotations

import pytest

from minigpt.costs import Price, parse_price
from minigpt.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "amount", "currency"), [("2.50 EUR", 2.5, "EUR"), ("3USD", 3.0, "USD"), (" 0.1 € ", 0.1, "€")]
)
def test_an_amount_and_a_currency_are_a_price(text: str, amount: float, currency: str) -> None:
    assert parse_price(text) == Price(amount=amount, currency=currency)


@pytest.mark.parametrize("text", ["", "EUR", "2.50", "-1 EUR", "2,50 EUR", "nan EUR", "2 EUR an hour"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"2\.50 EUR"):
        parse_price(text)
