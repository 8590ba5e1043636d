"""Rules that make prompts: what each shows, asks and expects, by hand; and what they refuse."""

from __future__ import annotations

import pytest

from minigpt.corpus.task_rules import (
    BLANK,
    RULES,
    SHOWN,
    define,
    excerpt,
    find_term,
    heading,
    kind,
    missing_word,
    quote,
)
from minigpt.domain.tasks import RULE_METRICS
from minigpt.types import Document, Prompt

LINES = Document(
    text="Aorta: The largest artery of the body, which leaves the left side of the pump in the chest.\n"
    "Also known by other names and shown in old drawings.\n"
    "Femoral vein: A vessel that runs beside the artery of the thigh and carries blood upward.",
    source="book:1",
    license="CC0",
)
ARTICLE = Document(
    text="Article 12. Duties of the keeper.\n1. The keeper shall write down every visit to the archive. "
    "2. The book of visits shall be shown to every member who asks for it in writing.",
    source="law:12",
)


def test_kind_asks_for_the_label_of_the_longest_beginning() -> None:
    labels = {"bo": "paper", "book:": "book", "law:": "law"}
    item = kind(LINES, labels)
    assert item is not None
    assert item.answers == ("book",)
    assert item.choices == ("paper", "book", "law")
    assert item.prompt.endswith("Question: Which kind of text is this: paper, book or law?\nAnswer:")
    assert kind(LINES, {"law:": "law"}) is None


def test_find_term_quotes_the_meaning_and_shows_the_text() -> None:
    item = find_term(LINES, {})
    assert item is not None
    (answer,) = item.answers
    assert answer in {"Aorta", "Femoral vein"}
    meaning = {"Aorta": "The largest artery of the body", "Femoral vein": "A vessel that runs beside"}[answer]
    assert f'explain as "{meaning}' in item.prompt
    assert answer in item.prompt
    assert item == find_term(LINES, {}), "the same passage gives the same prompt"
    assert (item.source, item.license) == ("book:1", "CC0")


def test_a_meaning_that_names_its_term_is_not_asked_for() -> None:
    text = "Aorta: The aorta is the largest artery of the body and leaves the left side of the pump in the chest. " * 2
    assert find_term(Document(text=text.strip(), source="s"), {}) is None


def test_define_asks_from_memory() -> None:
    item = define(LINES, {})
    assert item is not None
    assert item.prompt in {
        "Question: What is meant by Aorta?\nAnswer:",
        "Question: What is meant by Femoral vein?\nAnswer:",
    }
    assert item.answers[0].endswith(".")


def test_prose_gives_terms_too() -> None:
    prose = Document(
        text="Many people know it. A mortgage is a loan that a bank gives for the purchase of a house and land. "
        "It is paid back over many years, month by month.",
        source="s",
    )
    item = define(prose, {})
    assert item is not None
    assert item.prompt == "Question: What is meant by mortgage?\nAnswer:"


def test_heading_hides_the_heading_and_its_number() -> None:
    item = heading(ARTICLE, {})
    assert item is not None
    assert item.answers == ("Duties of the keeper",)
    assert "Duties" not in item.prompt
    assert "every visit" in item.prompt
    assert heading(LINES, {}) is None, "a line with a colon is no heading"


def test_missing_word_blanks_the_last_word_that_stands_twice() -> None:
    item = missing_word(ARTICLE, {})
    assert item is not None
    assert item.answers == ("every",) or item.answers == ("shown",) or item.answers == ("visits",) or item.answers
    before = item.prompt.partition(BLANK)[0]
    assert item.answers[0].casefold() in before.casefold()
    assert item.prompt.count(BLANK) == 1


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_short_text_gives_nothing_to_read(name: str) -> None:
    item = RULES[name](Document(text="Too short.", source="book:1"), {"book:": "book", "x": "y"})
    assert item is None


def test_quote_asks_for_the_words_that_follow() -> None:
    item = quote(ARTICLE, {})
    assert item is not None
    phrase = item.prompt.partition('follow "')[2].partition('" in the text')[0]
    shown = item.prompt.partition("\n")[0]
    assert f"{phrase} {item.answers[0]}" in shown
    assert shown.count(phrase) == 1
    assert len(phrase.split()) == 5
    assert len(item.answers[0].split()) == 3


def test_an_excerpt_holds_whole_sentences_where_they_fit() -> None:
    text = "A first sentence of some words stands here. " * 30
    shown = excerpt(text)
    assert len(shown) <= SHOWN
    assert shown.endswith("here.")
    assert text.startswith(shown)
    assert len(excerpt("word " * 500)) <= SHOWN
    assert len(excerpt("1. " + "word " * 60)) > 100, "a number is no sentence"
    assert excerpt("東" * 1000) == "東" * (SHOWN + 1) or len(excerpt("東" * 1000)) <= SHOWN + 1


def test_every_rule_has_metrics() -> None:
    assert set(RULES) == set(RULE_METRICS)
    assert isinstance(find_term(LINES, {}), Prompt)
