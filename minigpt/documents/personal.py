"""Personal data in text: how often each kind occurs, and in how many documents. The data themselves are not kept.

The counts are a warning, not a proof: names without a title and addresses of streets have no form that a pattern could
know, and a number of the right form may be something else. Numbers with check digits count only if these are right, so
that tables of figures are not taken for accounts: ISO 13616 (IBAN, remainder of 97), ISO/IEC 7812-1 annex B (cards,
Luhn), and the NHS data dictionary (NHS number, remainder of 11).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Occurrences of one kind of personal data.

    Attributes:
        places: Number of occurrences.
        documents: Number of texts that have at least one.
    """

    places: int
    documents: int


def digits(text: str) -> str:
    """Return the digits of a text."""
    return re.sub(r"\D", "", text)


_DATE = re.compile(r"(?:\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./-]\d{1,2}[./-]\d{1,2})(?: \d{1,2})?")
_NATIONAL = re.compile(r"\(?0\d{1,5}[) /.-]{1,3}\d[\d -]{4,14}|0[1-9]\d{8,11}")
_AMERICAN = re.compile(r"(?:1[ .-])?\(?[2-9]\d{2}\)?[ .-]{1,2}\d{3}[ .-]\d{4}")


def is_phone(text: str) -> bool:
    """Return True for a phone number as it is written: international (ITU-T E.164), national or American; no date."""
    written, number = text if ")" in text else text.lstrip("("), digits(text)
    if _DATE.fullmatch(written):
        return False
    if written.startswith("+"):
        return 8 <= len(number) <= 15 and not written.startswith("+0")
    return bool(_AMERICAN.fullmatch(written) or (len(number) <= 15 and _NATIONAL.fullmatch(written)))


def is_nhs(text: str) -> bool:
    """Return True if the check digit of an NHS number holds (remainder of 11)."""
    number = digits(text)
    weighted = sum(int(digit) * (10 - place) for place, digit in enumerate(number[:9]))
    return (11 - weighted % 11) % 11 == int(number[9])


def is_iban(text: str) -> bool:
    """Return True if the check digits of an IBAN hold (ISO 13616: the rearranged number is 1 modulo 97)."""
    code = text.replace(" ", "").upper()
    return 15 <= len(code) <= 34 and int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Return True if the check digit of a card's number holds (ISO/IEC 7812-1, Luhn's formula)."""
    number = digits(text)
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(number))]
    return 13 <= len(number) <= 19 and sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


# A card's number as it is printed (ISO/IEC 7812-1, and the groups of the issuers): unbroken, in fours, or in 4, 6 and 4
# or 5 digits, with the first digits of banks and merchants. Rows of figures in a table pass Luhn's check now and then.
CARD = re.compile(
    r"(?<![\d.])(?:[3-6]\d|2[2-7])\d\d(?:\d{9,15}|(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?P=gap)\d{4}(?:(?P=gap)\d{3})?"
    r"|[ -]\d{6}[ -]\d{4,5})(?![\d.]\d)(?! \d)"
)


def always(_text: str) -> bool:
    """Return True: the pattern alone decides."""
    return True


# A kind of personal data, the pattern that it has, and the test that its matches must pass. A match is counted for the
# first kind that takes it, so that a card's number is no phone number.
KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("e-mail addresses", re.compile(r"[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b"), always),
    ("bank accounts (IBAN)", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), is_iban),
    ("payment cards", CARD, is_card),
    ("social security numbers", re.compile(r"\b(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b"), always),
    (
        "dates of birth",
        re.compile(
            r"\b(?:born|date of birth|birth ?date|D\.?O\.?B\.?|geb(?:oren)?\.?(?: am)?"
            r"|Geb(?:urts(?:datum|tag)|\.?-?(?:datum|dat\.?|tag))|née? le|date de naissance|nacid[oa] el"
            r"|fecha de nacimiento|nat[oa] il|data di nascita)"
            r"\s{0,3}(?:on|:)?\s{0,3}"
            r"(?:\d{1,4}[./ -]\d{1,2}[./ -]\d{1,4}|\d{1,2}\.? [A-Za-zäéû]{3,10} \d{4}|[A-Z][a-z]{2,9} \d{1,2}, \d{4})",
            re.IGNORECASE,
        ),
        always,
    ),
    (
        "identifiers",
        re.compile(
            r"\b(?:MRN|patient|case|record|insurance|policy|customer|account|member|passport|licen[cs]e|NHS|"
            r"Patienten-?|Fall-?|Versicherten-?|Kunden-?)\s?(?:ID|no\.?|number|nummer|nr\.?)?\s?[:#]?\s?"
            r"(?=[A-Z]{0,3}[-/ ]?\d)[A-Z]{0,3}[-/ ]?\d[\d/-]{3,17}\d\b",
            re.IGNORECASE,
        ),
        always,
    ),
    ("identifiers", re.compile(r"(?<![\w.,/-])\d{3} \d{3} \d{4}(?![\w/-]|[.,]\d)"), is_nhs),
    (
        "IP addresses",
        re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]\d)"),
        always,
    ),
    (
        "phone numbers",
        re.compile(r"(?<![\w.,/-])\+?\(?\d(?:[ ()/.-]{0,3}\d){5,22}(?![\w/-]|[.,]\d)"),
        is_phone,
    ),
    (
        "names after a title",
        re.compile(
            r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Herrn?|Frau|Mme|Sra?|Sig)\.? (?:(?:Dr|Prof|med)\.? )*[A-ZÀ-Þ][\w'’-]+"
        ),
        always,
    ),
)


def personal_data(texts: Iterable[str]) -> dict[str, Count]:
    """Count personal data by kind; kinds that do not occur are left out.

    The patterns find what has a typical form. Names without a title, addresses and rare forms are not found.

    Args:
        texts: The documents, or passages of them.
    """
    places = dict.fromkeys((name for name, _, _ in KINDS), 0)
    documents = dict(places)
    for text in texts:
        for name, count in counts_in(text).items():
            places[name] += count
            documents[name] += 1
    return {name: Count(places=count, documents=documents[name]) for name, count in places.items() if count}


def counts_in(text: str) -> dict[str, int]:
    """Count the personal data of one text by kind."""
    counts: dict[str, int] = {}
    for name, pattern, test in KINDS:
        text, number = _blanked(text, pattern, test)
        if number:
            counts[name] = counts.get(name, 0) + number
    return counts


def _blanked(text: str, pattern: re.Pattern[str], test: Callable[[str], bool]) -> tuple[str, int]:
    """Put spaces in the places of the matches that pass the test, and count them."""
    number = 0

    def blank(match: re.Match[str]) -> str:
        nonlocal number
        right = test(match[0])
        number += right
        return " " * len(match[0]) if right else match[0]

    return pattern.sub(blank, text), number
