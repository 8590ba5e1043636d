"""Readers of the packaged texts of each field, on small files of the same form. `test_readers` has the older ones."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from minigpt.corpus.questions import leaks
from minigpt.corpus.sources import reader
from minigpt.errors import CorpusError
from minigpt.types import Document

FILLER = "It is found by looking at the patient with care and patience. " * 8


def read(name: str, path: Path) -> list[Document]:
    return list(reader(name).documents(path))


def text_of(documents: list[Document]) -> str:
    return "\n".join(item.text for item in documents)


def write_diseases(path: Path) -> Path:
    records = []
    organs = ["Liver", "Kidney", "Spleen", "Bladder", "Larynx", "Thymus"]
    for organ in organs:
        description = f"A rare finding of number {organ[:2]}, seen in {organ[::-1]} &amp; elsewhere. {FILLER}"
        records.append((f"{organ} wasting", description))
    records += [("Aortic tear 2", f"Second form. {FILLER}"), ("Aortic tear 1", f"First form. {FILLER}"), ("Empty", "")]
    rows = "".join(
        f'<record model="gnuhealth.protein.disease" id="{number}"><field name="disease_name">{name}</field>'
        f'<field name="keywords">Wasting,Other</field><field name="description">{text}</field></record>'
        for number, (name, text) in enumerate(records)
    )
    gene = '<record model="gnuhealth.gene"><field name="disease_name">No</field><field name="description">No</field>'
    path.write_text(f"<tryton><data>{rows}{gene}</record></data></tryton>", encoding="utf-8")
    return path


def test_diseases_of_one_name_share_a_document(tmp_path: Path) -> None:
    path = write_diseases(tmp_path / "d.xml")
    documents = read("uniprot", path)
    assert "Aortic tear 1: First form." in text_of(documents) and "& elsewhere" in text_of(documents)
    (both,) = [item for item in documents if "First form" in item.text]
    assert "Second form" in both.text and both.source == "uniprot:aortic tear"
    assert "Empty" not in text_of(documents) and "No:" not in text_of(documents)
    path.write_text("<broken", encoding="utf-8")
    with pytest.raises(CorpusError, match="XML"):
        read("uniprot", path)
    path.write_text("<tryton></tryton>", encoding="utf-8")
    with pytest.raises(CorpusError, match="no records"):
        read("uniprot", path)


def test_disease_questions_name_their_document_and_hide_the_answer(tmp_path: Path) -> None:
    path = write_diseases(tmp_path / "d.xml")
    texts: dict[str, str] = {}
    for item in read("uniprot", path):
        texts[item.source] = texts.get(item.source, "") + item.text
    questions = reader("uniprot").questions(path, seed=0)
    assert len(questions) == 6
    for question in questions:
        assert f"{question.choices[question.answer]}: " in texts[question.source]
        assert not any(leaks(choice, question.question.split('"')[1]) for choice in question.choices)


def write_ontology(path: Path, terms: dict[str, dict[str, object]]) -> Path:
    path.write_bytes(gzip.compress(json.dumps(terms).encode()))
    return path


def test_ontology_leaves_out_withdrawn_terms_other_species_and_made_definitions(tmp_path: Path) -> None:
    long = "characterized by a slow loss of strength that begins in the legs and later reaches both of the arms."
    terms: dict[str, dict[str, object]] = {
        "A:1": {"label": "slow palsy", "description": f"A disease [PMID:1] {long}", "deprecated": False},
        "A:2": {"label": "obsolete palsy", "description": f"Another disease {long}"},
        "A:3": {"label": "old palsy", "description": f"An old disease {long}", "deprecated": True},
        "A:4": {"label": "fin palsy", "description": f"A disease of zebrafish {long}"},
        "A:5": {"label": "gene palsy", "description": f"Any palsy in which the cause of the disease is X {long}"},
        "A:6": {"label": "short palsy", "description": "A palsy."},
        "A:7": {"label": "bare palsy"},
        "A:8": {"label": "twin palsy", "description": f"A disease {long}"},
    }
    path = write_ontology(tmp_path / "MONDO-ontology-v1.json.gz", terms)
    (document,) = read("cellxgene", path)
    assert document.text == f"Slow palsy: A disease {long}"
    assert document.source == "mondo:slow palsy"
    path.write_bytes(b"no gzip")
    with pytest.raises(CorpusError, match="gzipped ontology"):
        read("cellxgene", path)
    with pytest.raises(CorpusError, match="label and description"):
        read("cellxgene", write_ontology(path, {"A:1": {"name": "x"}}))


def test_of_one_sentence_pattern_only_some_definitions_are_kept(tmp_path: Path) -> None:
    terms = {
        f"A:{number}": {
            "label": f"disease {chr(97 + number % 26)}{chr(97 + number // 26)}",
            "description": f"A rare disease of the hand seen in village {chr(97 + number % 26) * 9} "
            f"{chr(97 + number // 26) * 9} where it was described by the doctor who lived there for many years.",
        }
        for number in range(90)
    }
    text = text_of(read("cellxgene", write_ontology(tmp_path / "MONDO-x.json.gz", terms)))
    assert text.count("A rare disease of the hand") == 40


def test_guideline_is_one_document_of_running_text(tmp_path: Path) -> None:
    folder = tmp_path / "fever_2020"
    folder.mkdir()
    (folder / "a.md").write_text(
        "# Fever\n\n## First steps\n\nGive **fluids** to every patient. (Class I, Level B)\n\nWatch for:\n\n"
        "- stiff neck\n- a rash that does not fade\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        f"```\ncode\n```\n\n{FILLER}\n\n"
        "> **OpenMedicine Calculator:** `calculate_fever`\n",
        encoding="utf-8",
    )
    (document,) = read("guidelines", tmp_path)
    lines = document.text.splitlines()
    assert lines[0] == "First steps: Give fluids to every patient."
    assert lines[1] == "Watch for: stiff neck. a rash that does not fade."
    assert lines[2].startswith("It is found") and len(lines) == 3
    assert document.source == "guidelines:fever_2020"
    (folder / "a.md").unlink()
    with pytest.raises(CorpusError, match="no guidelines"):
        read("guidelines", tmp_path)


def write_acts(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table regulations (celex text, short_name text)")
        database.execute("create table articles (celex text, article_number int, article_id text, content text)")
        for number, act in enumerate(("gdpr", "dora")):
            database.execute("insert into regulations values (?, ?)", (f"c{number}", act))
            body = (
                f"Right to know 1. The bank of {act} shall tell , in writing: (a) why. {FILLER}2. It shall tell when."
            )
            rows = [(f"c{number}", 2, "art_2", body), (f"c{number}", 1, "art_1", "Short.")]
            database.executemany("insert into articles values (?, ?, ?, ?)", rows)
        database.commit()
    return path


@pytest.mark.parametrize(("name", "act"), [("eulaw", "gdpr"), ("eufinance", "dora")])
def test_acts_of_the_union_go_to_the_domain_that_they_are_about(tmp_path: Path, name: str, act: str) -> None:
    (document,) = read(name, write_acts(tmp_path / "r.db"))
    assert document.source == f"eu:{act}/art_2"
    assert document.text.splitlines()[0] == "Right to know."
    assert document.text.splitlines()[1].startswith(f"1. The bank of {act} shall tell, in writing: (a) why.")
    assert document.text.splitlines()[-1] == "2. It shall tell when."
    (tmp_path / "no.db").write_bytes(b"x" * 200)
    with pytest.raises(CorpusError, match="database of regulations"):
        read(name, tmp_path / "no.db")


def test_agreements_are_commercial_and_the_last_version_counts(tmp_path: Path) -> None:
    body = "This agreement applies to any person to whom the software is given and to all of the terms in it. " * 40
    texts = {
        "shop-tos-2019-01-02": ("Commercial", "", f"Old. {body}"),
        "shop-tos-2020-01-02": ("Proprietary Free", "LicenseRef-scancode-shop", f"New. {body}"),
        "gpl-9": ("Copyleft", "GPL-9", body),
        "sun-9": ("Proprietary Free", "SISSL", body),
        "notice": ("Commercial", "", "All rights reserved."),
    }
    for name, (category, key, text) in texts.items():
        front = f"---\nkey: {name}\ncategory: {category}\nspdx_license_key: {key}\n---\n"
        (tmp_path / f"{name}.LICENSE").write_text(front + text, encoding="utf-8")
    documents = read("agreements", tmp_path)
    assert {item.source for item in documents} == {"agreements:shop-tos"}
    assert documents[0].text.startswith("New. This agreement")
    for file in tmp_path.glob("shop*"):
        file.unlink()
    with pytest.raises(CorpusError, match="no commercial agreements"):
        read("agreements", tmp_path)


def test_addresses_are_modern_and_free_of_stage_directions(tmp_path: Path) -> None:
    old, new = tmp_path / "1850-Old-1.txt", tmp_path / "2000-New-1.txt"
    old.write_text(FILLER, encoding="utf-8")
    with pytest.raises(CorpusError, match="no addresses"):
        read("sotu", tmp_path)
    paragraph = f"We will build roads. [Applause] {FILLER}".strip()
    new.write_text(f"Mr. Speaker:\n\n{paragraph}\n\nSCHOOLS\n\n" + f"{paragraph}\n\n" * 200, encoding="utf-8")
    documents = read("sotu", tmp_path)
    text = text_of(documents)
    assert {item.source for item in documents} == {"sotu:2000-New-1"}
    assert text.startswith("We will build roads. It is found") and "SCHOOLS" not in text and "Speaker" not in text
    assert 35_000 < len(text) <= 41_000


def test_factbook_keeps_the_prose_of_a_country(tmp_path: Path) -> None:
    country = {
        "Introduction": {"Background": {"text": f"<p>The land was settled early. {FILLER}</p><br>flooding; drought"}},
        "Geography": {"Location": {"text": f"Northern place. {FILLER}"}},
        "People and Society": {"Demographic profile": {"text": "one; two; three; " * 30}},
    }
    (tmp_path / "europe").mkdir()
    file = tmp_path / "europe" / "xx.json"
    file.write_text(json.dumps(country), encoding="utf-8")
    (document,) = read("factbook", tmp_path)
    assert document.source == "factbook:europe/xx"
    assert document.text == f"The land was settled early. {FILLER}".strip()
    file.write_text("[1]", encoding="utf-8")
    with pytest.raises(CorpusError, match="sections of a country"):
        read("factbook", tmp_path)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(CorpusError, match="JSON"):
        read("factbook", tmp_path)
    file.unlink()
    with pytest.raises(CorpusError, match="no countries"):
        read("factbook", tmp_path)


def test_explanations_speak_of_finance_and_not_of_code(tmp_path: Path) -> None:
    (tmp_path / "ratios").mkdir()
    doc = (
        "Calculate the current ratio, a liquidity ratio that tells whether a company can pay what it owes within a "
        "year.\n\n    Returns a data frame with one column for each of the companies that were given to it before.\n\n"
        "    A low ratio warns lenders, who may then ask for security before they lend more money. "
        "Set growth=True to see changes.\n\n    Args:\n        x: A current thing that nobody wants to read about "
        "in a text on finance.\n"
    )
    more = "The yield is what a buyer earns who holds the bond until its last day and is paid all that was promised. "
    code = f'raise SystemExit\n\ndef get_ratio(x):\n    """\n    {doc}    """\n\ndef again(x):\n    """{more * 3}"""\n'
    (tmp_path / "ratios" / "a.py").write_text(code, encoding="utf-8")
    (tmp_path / "ratios" / "b.py").write_text(code, encoding="utf-8")
    (document,) = read("financetoolkit", tmp_path)
    assert document.source == "financetoolkit:a/get_ratio"
    assert document.text.splitlines() == [
        "The current ratio is a liquidity ratio that tells whether a company can pay what it owes within a year.",
        "A low ratio warns lenders, who may then ask for security before they lend more money.",
        (more * 3).strip(),
    ]
    (tmp_path / "ratios" / "a.py").write_text("def broken(:", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.py"):
        read("financetoolkit", tmp_path)
    with pytest.raises(CorpusError, match="no Python files"):
        read("financetoolkit", tmp_path / "ratios")


CARDS = '''
class CardDispute(BaseModel):
    """If unauthorized activity occurs on a card, you can create a Card Dispute and the money will be returned.

    Contact support@example.com to learn about the API.
    """

    reason: str
    """Why the bank of the merchant refuses to give the money back to the cardholder who asked for it.

    - `late` - The claim came late and this line is a value of the list, not a definition of the thing.
    """

    id: str
    """The identifier of the Card Dispute, a string of letters that never changes once it has been issued."""

    fee: int
    """Fee in cents."""
'''


def test_banking_definitions_leave_out_how_records_are_sent(tmp_path: Path) -> None:
    (tmp_path / "card.py").write_text(CARDS, encoding="utf-8")
    (document,) = read("increase", tmp_path)
    assert document.text.splitlines() == [
        "Card dispute: If unauthorized activity occurs on a card, you can create a Card Dispute and the money will be "
        "returned.",
        "Reason: Why the bank of the merchant refuses to give the money back to the cardholder who asked for it.",
    ]


def test_first_documents_of_a_reader_are_a_mixed_sample() -> None:
    order = reader("_order")
    names = [f"doc:{number:03}" for number in range(100)]
    mixed = [name for name, _ in order.mixed((name, None) for name in names)]
    assert sorted(mixed) == names and mixed != names
    assert mixed == [name for name, _ in order.mixed((name, None) for name in reversed(names))]
    assert 20 < sum(int(name[4:]) < 50 for name in mixed[:50]) < 40
