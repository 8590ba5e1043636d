"""Bounded YAML and JSON: one kind of error, no bombs, and dates stay text."""

from __future__ import annotations

import time

import pytest

from minigpt.parsing import Repeated, Unreadable, load_json, load_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

# Every mapping merges the one before it nine times; the reader writes merges out as it goes.
MERGES = "a: &a {p: 1, q: 2, r: 3}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000 + "]" * 5000,
        "a: 9" + "9" * 5000,
        BOMB,
        MERGES,
        "a: !!python/object/apply:os.system [x]",
        "a: [",
        "\x00",
    ],
)
def test_yaml_that_cannot_be_used_ends_in_one_error_and_soon(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(Unreadable) as caught:
        load_yaml(text)
    assert "\n" not in str(caught.value) and time.perf_counter() - start < 20


def test_a_loop_of_references_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"nested too deeply|more than"):
        load_yaml("a: &a [*a]")


def test_dates_stay_text_and_all_else_is_as_in_yaml() -> None:
    assert load_yaml("{a: 2024-13-45, b: 2024-01-02, c: 1, d: 0.5, e: true, f: null}") == {
        "a": "2024-13-45",
        "b": "2024-01-02",
        "c": 1,
        "d": 0.5,
        "e": True,
        "f": None,
    }


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{", b"\xff", ""])
def test_json_that_cannot_be_used_ends_in_one_error(text: str | bytes) -> None:
    with pytest.raises(Unreadable):
        load_json(text)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x: [{a: 1, 'a': 2}]", "{1: a, 1: b}"])
def test_a_key_that_is_there_twice_is_refused(text: str) -> None:
    with pytest.raises(Repeated, match=r"the key .* is there twice") as caught:
        load_yaml(text)
    assert caught.value.line == text.count("\n") + 1


def test_keys_of_other_mappings_and_of_merged_ones_may_repeat() -> None:
    text = "a: &a {p: 1, q: 2}\nb: &b {<<: *a, p: 3}\nc: {<<: *b, q: 4}\nd: [*a, *a]\ne: {1: x, '1': y}"
    value = load_yaml(text)
    assert (value["b"], value["c"]) == ({"p": 3, "q": 2}, {"p": 3, "q": 4})
    assert value["e"] == {1: "x", "1": "y"} and load_yaml("") is None
