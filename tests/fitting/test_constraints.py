"""Constraints as users write them."""

from __future__ import annotations

import pytest

from minigpt.errors import ConfigError
from minigpt.fitting.constraints import parse_constraint, parse_constraints


@pytest.mark.parametrize(
    ("text", "kind", "amount", "relative"),
    [
        ("50MB", "file", 50e6, False),
        ("50 mb", "file", 50e6, False),
        ("48MiB disk", "file", 48 * 2**20, False),
        ("1.5GB", "file", 1.5e9, False),
        ("300MB ram", "ram", 300e6, False),
        ("0.3 GB memory", "ram", 0.3e9, False),
        ("60 tokens/s", "speed", 60.0, False),
        ("7.5 tok/s", "speed", 7.5, False),
        ("60 tokens / s", "speed", 60.0, False),
        ("2x parent tokens/s", "speed", 2.0, True),
        ("1.5 x parent tok/s", "speed", 1.5, True),
    ],
)
def test_reads(text: str, kind: str, amount: float, relative: bool):
    constraint = parse_constraint(text)
    assert (constraint.kind, constraint.amount, constraint.relative) == (kind, amount, relative)
    assert constraint.text == text


@pytest.mark.parametrize(
    "text",
    ["", "50", "MB", "0MB", "-5MB", "fast", "60 tokens", "50MB/s", "2x tokens/s", "0x parent tokens/s", "0 tokens/s",
     "300 ram", "50k tokens/s", "nan tokens/s", "50MB 60 tokens/s", "1e9 tokens/s", "2x parent", "2x parent ram"],
)  # fmt: skip
def test_refuses_in_one_sentence_with_an_example(text: str):
    with pytest.raises(ConfigError) as caught:
        parse_constraint(text)
    assert repr(text) in str(caught.value) and "MB" in str(caught.value) and "\n" not in str(caught.value)


def test_limits_relative_to_the_parent():
    assert parse_constraint("2x parent tokens/s").limit(30.0) == 60.0
    assert parse_constraint("60 tokens/s").limit(30.0) == 60.0


def test_combines_one_of_each_kind():
    assert [item.kind for item in parse_constraints(("50MB", "60 tokens/s", "300MB ram"))] == ["file", "speed", "ram"]
    with pytest.raises(ConfigError, match="'50MB' and '60MB file' limit the same thing"):
        parse_constraints(("50MB", "60MB file"))
    with pytest.raises(ConfigError, match="at least one"):
        parse_constraints(())
