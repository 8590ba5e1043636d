"""Text that looks like personal data is counted and never shown; all other text is left alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from minigpt.corpus.newdomain import new_domain
from minigpt.corpus.personal import SINGLE, personal_counts, personal_in, personal_sentence
from minigpt.corpus.survey import survey
from minigpt.documents.personal import KINDS
from minigpt.domain.config import load_domain
from minigpt.types import Document
from tests.support.commands import run

EMAIL, PHONE = "e-mail addresses", "phone numbers"


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
        ("Mobil 01712345678", PHONE),
        ("1-800-QUIT NOW (1-800-784-8669). Avoid", PHONE),
        ("Tel. 030 / 901820 in Berlin", PHONE),
        ("SSN 219-09-9999 was given", "social security numbers"),
        ("Card 4111 1111 1111 1111 expired", "payment cards"),
        ("IBAN GB82 WEST 1234 5698 7654 32 please", "bank accounts (IBAN)"),
        ("Konto DE89370400440532013000.", "bank accounts (IBAN)"),
        ("NHS number 943 476 5919", "identifiers"),
        ("MRN: 00482913 admitted", "identifiers"),
        ("Patient ID: A-771234 seen", "identifiers"),
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
    assert total == {EMAIL: 2, PHONE: 2, "social security numbers": 2}
    sentence = personal_sentence(total)
    assert "2 e-mail addresses, 2 social security numbers and 2 phone numbers" in sentence
    assert not any(part in sentence for part in ("jane", "202", "219"))
    assert personal_sentence({}) == ""
    assert "looks like 1 e-mail address, 1 social security number and 1 phone number;" in personal_sentence(
        dict.fromkeys(total, 1)
    )
    assert {name for name, _, _ in KINDS} == set(SINGLE)


@pytest.mark.usefixtures("home")
def test_init_and_corpus_stats_count_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds that only one of two detectors knew, and a passage that cleaning drops as a repetition."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters").mkdir()
    for number in range(40):
        words = " ".join(f"finding{number}n{place}" for place in range(40))
        text = f"Mrs. Miller, born on 3 May 1961, NHS number 943 476 5919, call 202-555-0143. {words}"
        (tmp_path / "letters" / f"{number}.txt").write_text(text)
        (tmp_path / "letters" / f"copy{number}.txt").write_text(text)
    surveyed = json.loads(run("init", "letters", "--name", "letters-of-mine", "--yes", "--json").stdout)["survey"]
    stated = json.loads(run("corpus", "stats", "letters-of-mine", "--json").stdout)["personal"]
    assert stated == surveyed["personal"]
    assert {kind: count["places"] for kind, count in stated.items()} == dict.fromkeys(
        ("dates of birth", "identifiers", "phone numbers", "names after a title"), 80
    )
    assert "80 phone numbers" in " ".join(run("corpus", "stats", "letters-of-mine").stdout.split())


def test_prompts_of_task_files_are_counted_as_in_the_survey(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("Some text of jo@example.org.")
    rows = [json.dumps({"prompt": f"Who is {number}?", "answer": f"p{number}@example.org"}) for number in range(3)]
    (tmp_path / "in" / "ask.jsonl").write_text("\n".join(rows))
    domain = load_domain(str(new_domain("mine", tmp_path / "in", output=tmp_path).path))
    assert personal_in(domain) == survey(domain).personal
    assert personal_in(domain)[EMAIL].places == 4


@pytest.mark.parametrize("piece", ["@", "a@", "1 ", "1-", "A1 ", "GB82 ", "patient ", "(0", "a.", "+1"])
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    started = time.perf_counter()
    counts(piece * 100_000)
    assert time.perf_counter() - started < 10
