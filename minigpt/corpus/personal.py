"""Personal data in text: counts of e-mail addresses, phone numbers and identifiers, never the findings themselves.

The counts are a warning, not a proof: names and addresses of streets have no form that a pattern could know, and a
number of the right form may be something else. Numbers with check digits count only if these are right, so that tables
of figures are not taken for accounts: ISO 13616 (IBAN, remainder of 97), ISO/IEC 7812-1 annex B (cards, Luhn), and the
NHS data dictionary (NHS number, remainder of 11).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from minigpt.documents.personal import CARD, is_card
from minigpt.types import Document

EMAIL = "e-mail addresses"
PHONE = "phone numbers"
IDENTIFIER = "identifiers"
KINDS = (EMAIL, PHONE, IDENTIFIER)
# Names of a single finding.
SINGLE = {EMAIL: "e-mail address", PHONE: "phone number", IDENTIFIER: "identifier"}

# Every repetition has a bound, so that no text takes more than linear time.
_LOCAL = re.compile(r"[\w.%+-]{1,64}\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_RECORD = re.compile(
    r"\b(?:MRN|SSN|NHS|patient|passport|policy|account|case|Patienten?|Versicherten)"
    r"[ -]?(?:no|nr|id|number|nummer)?\.?[ :#]{1,3}(?=[A-Z0-9-]{0,12}\d)[A-Z0-9][A-Z0-9-]{5,19}\b",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"(?<![\w.,/-])\+?\(?\d(?:[ ()/.-]{0,3}\d){5,22}(?![\w/-]|[.,]\d)")
_SSN = re.compile(r"(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}")
_DATE = re.compile(r"(?:\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./-]\d{1,2}[./-]\d{1,2})(?: \d{1,2})?")
_NATIONAL = re.compile(r"\(?0\d{1,5}[) /.-]{1,3}\d[\d -]{4,14}")
_AMERICAN = re.compile(r"(?:1[ .-])?\(?[2-9]\d{2}\)?[ .-]{1,2}\d{3}[ .-]\d{4}")


def personal_counts(documents: Iterable[Document]) -> dict[str, int]:
    """Count what looks like personal data in passages, by kind; a kind that does not occur has no entry.

    Args:
        documents: the passages. The same address in two passages counts twice.
    """
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(_kinds_in(document.text))
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def personal_sentence(counts: Mapping[str, int]) -> str:
    """Write the counts as a warning; empty if there is nothing to warn of.

    Args:
        counts: numbers by kind, as :func:`personal_counts` gives them.
    """
    parts = [f"{count:,} {SINGLE.get(kind, kind) if count == 1 else kind}" for kind, count in counts.items() if count]
    if not parts:
        return ""
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return (
        f"The training text holds what looks like {listed}; a model can recite such text. Names are not counted. "
        "docs/guide/privacy.md says what to do."
    )


def _kinds_in(text: str) -> Iterator[str]:
    """Yield the kind of each finding in a text."""
    yield from (EMAIL for _ in _emails(text))
    rest = text
    for pattern, is_right in ((_IBAN, _is_iban), (_RECORD, bool)):
        matches = [match for match in pattern.finditer(rest) if is_right(match[0])]
        yield from (IDENTIFIER for _ in matches)
        for match in reversed(matches):  # a number is counted once
            rest = f"{rest[: match.start()]};{rest[match.end() :]}"
    for match in _DIGITS.finditer(rest):
        if kind := _kind_of_number(match[0]):
            yield kind


def _emails(text: str) -> Iterator[int]:
    """Yield the place of the `@` of each e-mail address."""
    place = text.find("@")
    while place >= 0:
        if _LOCAL.search(text, max(0, place - 64), place) and _HOST.match(text, place + 1):
            yield place
        place = text.find("@", place + 1)


def _kind_of_number(written: str) -> str | None:
    """Return the kind of a number as it is written; None for dates, amounts and other numbers."""
    if ")" not in written:
        written = written.lstrip("(")
    digits = re.sub(r"\D", "", written)
    if _SSN.fullmatch(written) or (CARD.fullmatch(written) and is_card(written)) or _is_nhs(written, digits):
        return IDENTIFIER
    if _DATE.fullmatch(written):
        return None
    if written.startswith("+"):
        return PHONE if 8 <= len(digits) <= 15 and not written.startswith("+0") else None
    return PHONE if _AMERICAN.fullmatch(written) or (len(digits) <= 15 and _NATIONAL.fullmatch(written)) else None


def _is_iban(written: str) -> bool:
    """Return whether letters and digits are an IBAN: 15 to 34 of them whose remainder of 97 is 1."""
    plain = written.replace(" ", "")
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1


def _is_nhs(written: str, digits: str) -> bool:
    """Return whether a number is written as an NHS number (3, 3 and 4 digits) and has its check digit."""
    if not re.fullmatch(r"\d{3} \d{3} \d{4}", written):
        return False
    weighted = sum(int(digit) * (10 - place) for place, digit in enumerate(digits[:9]))
    return (11 - weighted % 11) % 11 == int(digits[9])
