"""Personal data are counted by kind, and languages are told apart."""

from __future__ import annotations

import time

import pytest

from minigpt.documents import languages as module
from minigpt.documents.languages import languages, spread
from minigpt.documents.personal import Count, counts_in, personal_data


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to jo.doe+x@mail.example.org today.", "e-mail addresses"),
        ("Call +49 30 1234567 now.", "phone numbers"),
        ("Call (030) 123 4567 now.", "phone numbers"),
        ("Tel. 0171/2345678.", "phone numbers"),
        ("Pay to DE89 3704 0044 0532 0130 00 soon.", "bank accounts (IBAN)"),
        ("Card 4111 1111 1111 1111, please.", "payment cards"),
        ("Card 4111111111111111.", "payment cards"),
        ("Card 5555-5555-5555-4444", "payment cards"),
        ("Card 3782 822463 10005", "payment cards"),
        ("SSN 123-45-6789.", "social security numbers"),
        ("Born on 3 May 1961 in Ulm.", "dates of birth"),
        ("geb. 03.05.1961", "dates of birth"),
        ("Geburtsdatum: 12.03.1956", "dates of birth"),
        ("Geb.-Datum 12.03.1956", "dates of birth"),
        ("date de naissance : 12/03/1956", "dates of birth"),
        ("MRN: 00482913 was seen.", "identifiers"),
        ("Patient no. A-12345", "identifiers"),
        ("From 192.168.10.1.", "IP addresses"),
        ("We saw Mrs. Miller.", "names after a title"),
        ("Wir sahen Herrn Dr. Müller.", "names after a title"),
    ],
)
def test_one_of_a_kind_is_counted_once_and_as_nothing_else(text: str, kind: str) -> None:
    assert counts_in(text) == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "On 2024-03-05 and 05.03.2024 the dose was 0.25 mg, then 1,000,000 units.",
        "Version 1.2.3, table 12.34.56, pages 100-120, in 1999 to 2004.",
        "DE89 3704 1044 1532 1130 01 and 4111 1111 1111 1112 have wrong check digits.",
        "The patient 65 years old, case 3 of 12, was born in spring.",
        "A loss of 0.915 (0.615), 0.762 (0.733-0.786) and 0.1 1.0302; released (2026-11-23).",
        "12 200 10 14 225 11 16 250 13 18 275 14 19 300 15 21 325 16 23 350 18 25",
        "4111 1111 1111 1111 1111 1111 of a table, and 41 11 11 11 11 11 11 11",
        "ISBN and @handle and a@b, 256.300.1.2.",
    ],
)
def test_dates_doses_and_wrong_check_digits_are_no_personal_data(text: str) -> None:
    assert counts_in(text) == {}


@pytest.mark.parametrize("part", ["0", "0 ", "+1 - ", "a@b.", "DE89 AAAA ", "Dr. ", "case ", "1-", "born ", "  ", "1."])
def test_text_that_repeats_one_thing_is_searched_in_linear_time(part: str) -> None:
    started = time.perf_counter()
    for text in (part * 10_000, f"born {part * 10_000}", f"patient ID {part * 10_000}"):
        counts_in(text)
    assert time.perf_counter() - started < 10  # a pattern that tries every division of a run takes minutes


def test_counts_are_of_places_and_of_documents() -> None:
    counts = personal_data(["a@b.org and c@d.org", "nothing", "e@f.org"])
    assert counts == {"e-mail addresses": Count(places=3, documents=2)}


def test_languages_have_shares_by_length() -> None:
    english = "The patient was admitted yesterday with pain in the chest. "
    german = "Der Patient wurde gestern mit Schmerzen in der Brust aufgenommen. "
    shares = languages([english * 3, german, "12 34", ""])
    assert shares is not None and list(shares) == ["en", "de"]
    assert shares["en"] == pytest.approx(3 * len(english) / (3 * len(english) + len(german)))
    assert languages([]) == {}


def test_without_the_library_languages_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert languages(["x"]) is None


def test_a_spread_has_at_most_so_many() -> None:
    assert list(spread(list("abcdefg"), 3)) == ["a", "d", "g"]
    assert list(spread(list("ab"), 3)) == ["a", "b"]
