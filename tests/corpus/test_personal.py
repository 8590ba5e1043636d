"""Text that looks like personal data is counted and never shown; all other text is left alone."""

from __future__ import annotations

import time

import pytest

from minigpt.corpus.personal import EMAIL, IDENTIFIER, PHONE, personal_counts, personal_sentence
from minigpt.types import Document


def counts(text: str) -> dict[str, int]:
    """The counts of one text."""
    return personal_counts([Document(text=text, source="one")])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to jane.doe+lab@mail.example.org.", EMAIL),
        ("Kontakt: müller@beispiel.de", EMAIL),
        ("Call +44 20 7946 0958 today", PHONE),
        ("Call (555) 010-1234", PHONE),
        ("Phone 202-555-0143.", PHONE),
        ("1-800-QUIT NOW (1-800-784-8669). Avoid", PHONE),
        ("Tel. 030 / 901820 in Berlin", PHONE),
        ("SSN 219-09-9999 was given", IDENTIFIER),
        ("Card 4111 1111 1111 1111 expired", IDENTIFIER),
        ("IBAN GB82 WEST 1234 5698 7654 32 please", IDENTIFIER),
        ("Konto DE89370400440532013000.", IDENTIFIER),
        ("NHS number 943 476 5919", IDENTIFIER),
        ("MRN: 00482913 admitted", IDENTIFIER),
        ("Patient ID: A-771234 seen", IDENTIFIER),
    ],
)
def test_each_form_counts_once(text: str, kind: str) -> None:
    assert counts(text) == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "On 12.03.2024 and 2024-03-12 14 people met.",
        "Revenue was 1,234,567,890 in 2021 and 1.234.567 before.",
        "The p-value was 0.000012345 with n = 1234567.",
        "Card 4111 1111 1111 1112 fails the check of Luhn.",
        "GB82 WEST 1234 5698 7654 33 fails the remainder.",
        "Section 10.2.3.4.5.6 of 29 CFR 1910.1200(a)(1).",
        "version 2.13.0, pages 1234-1240, ISBN 978-3-16-148410-0",
        "an @ alone, a@b, @handle, and 50 @ 3.20 each",
        "41 11 11 11 11 11 11 11",
        "1990 1991 1992 1993 1994 1995",
        "patient care and the account of the case number of trials",
    ],
)
def test_dates_amounts_and_broken_checks_do_not_count(text: str) -> None:
    assert counts(text) == {}


def test_passages_add_up_and_the_sentence_names_no_finding() -> None:
    text = "jane@example.org, 202-555-0143 and 219-09-9999"
    total = personal_counts([Document(text=text, source=name) for name in "ab"])
    assert total == {EMAIL: 2, PHONE: 2, IDENTIFIER: 2}
    sentence = personal_sentence(total)
    assert "2 e-mail addresses, 2 phone numbers and 2 identifiers" in sentence
    assert not any(part in sentence for part in ("jane", "202", "219"))
    assert personal_sentence({}) == ""
    assert "looks like 1 e-mail address, 1 phone number and 1 identifier;" in personal_sentence(dict.fromkeys(total, 1))


@pytest.mark.parametrize("piece", ["@", "a@", "1 ", "1-", "A1 ", "GB82 ", "patient ", "(0", "a.", "+1"])
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    started = time.perf_counter()
    counts(piece * 100_000)
    assert time.perf_counter() - started < 10
