"""Text of others, shown: no control sequence reaches a terminal, no markup a card."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import markdown as library
import pytest

from minigpt.escaping import json_printable, markdown, markdown_cell, markdown_sentence, one_line, printable, valid

ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "[c](javascript:alert(3))",
    "![x](http://example.org/pixel.png)",
    "a\n\n# HEADING",
    "w**bold** and __bold__ and *it* and _it_",
    "<!-- hidden --> `code` ~~gone~~",
    "<http://example.org>",
    "- a list",
    "1. a list",
    "&lt;script&gt;",
)


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", ATTACKS)
def test_markdown_shows_every_character_and_means_nothing(text: str) -> None:
    page = Tags()
    page.feed(library.markdown(markdown(text)))
    assert page.tags == {"p"}
    assert page.text == one_line(text)


@pytest.mark.parametrize("text", ATTACKS)
def test_a_sentence_holds_no_html_and_no_link(text: str) -> None:
    page = Tags()
    page.feed(library.markdown("It says: " + markdown_sentence(text)))
    assert not page.tags & {"script", "img", "a", "h1"}


def test_words_that_look_like_nothing_stay_as_they_are() -> None:
    assert markdown("bits_per_byte of medical/quiz_seen, <|im_start|> (95 %)") == (
        "bits_per_byte of medical/quiz_seen, <|im_start|> (95 %)"
    )
    assert markdown_cell("a | b") == "a \\| b"


def test_control_characters_do_not_pass() -> None:
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066, 0xD800):
        shown = printable(f"a{chr(code)}b")
        assert shown == ("a�b" if chr(code) not in "\t\n" else f"a{chr(code)}b")


def test_json_means_the_same_without_them() -> None:
    value = {"a\x9b": ["\x1b[31m", "\u202e", "ü"]}
    text = json_printable(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value and printable(text) == text


def test_lone_surrogates_become_a_mark_and_pairs_stay() -> None:
    assert valid("a\ud800b") == "a�b"
    assert valid("😀") == "😀"
