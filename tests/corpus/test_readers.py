"""Readers of the packaged corpora, on small files of the same form; the real packages in the slow tests."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from minigpt.corpus.prose import clean, passages, words_of
from minigpt.corpus.questions import leaks
from minigpt.corpus.sources import fetch_data, read_source, reader
from minigpt.domain.config import load_domain
from minigpt.errors import CorpusError

FILLER = "It is found by looking at the patient with care and patience. " * 8


def obo(path: Path) -> Path:
    terms = ["format-version: 1.2\n", "id: HP:1\nname: All\n"]
    names = ["Cyst", "Ulcer", "Fistula", "Abscess", "Polyp", "Nodule"]
    for number, name in enumerate(names, start=2):
        terms.append(
            f"id: HP:{number}\nname: {name}\n"
            f'def: "Finding number {number} (PMID:12), \\"so called\\". {FILLER}" [a:1]\n'
            f'comment: See https://example.org/x for {number}.\nsynonym: "{name} of skin" EXACT []\nis_a: HP:1 ! All\n'
            "is_a: HP:2 ! Cyst\n"
        )
    terms.append('id: HP:99\nname: Gone\ndef: "Obsolete thing." []\nis_a: HP:1\nis_obsolete: true\n')
    path.write_text("\n[Term]\n".join(terms) + "\n[Typedef]\nid: x\n", encoding="utf-8")
    return path


def test_clean_leaves_running_text() -> None:
    assert (
        clean("See [the guide](https://a.b/c(d)) and `code` <b>now</b>  \n here") == "See the guide and code now here."
    )
    assert clean("Lysis (PMID:123) of cells [HPO:abc].") == "Lysis of cells."
    assert clean("Read it at https://example.org/a. Then rest.") == "Read it at. Then rest."


def test_passages_stay_under_the_limit_and_keep_every_word() -> None:
    paragraphs = ["word " * 700, "Short one. Another.", "x" * 50, "y. " * 400]
    texts = list(passages(paragraphs, limit=500))
    assert max(map(len, texts)) <= 550
    assert " ".join(texts).split() == " ".join(paragraphs).split()


def test_identifiers_become_words() -> None:
    assert words_of("DayCountFraction") == "Day Count Fraction"
    assert words_of("statement_descriptor") == "statement descriptor"
    assert words_of("ISDAAgreement") == "ISDA Agreement"


def test_hpo_tells_each_living_term_once_without_marks(tmp_path: Path) -> None:
    path = obo(tmp_path / "hp.obo")
    documents = list(reader("hpo").documents(path))
    text = "\n".join(item.text for item in documents)
    assert text.count("Ulcer: Finding number 3") == 1
    assert '"so called"' in text and "Also called Ulcer of skin." in text
    for mark in ("PMID", "https", "Gone", "HP:"):
        assert mark not in text
    questions = reader("hpo").questions(path, seed=0)
    assert {item.source for item in questions} <= {item.source for item in documents}
    with pytest.raises(CorpusError, match="no ontology terms"):
        (tmp_path / "empty.obo").write_text("x", encoding="utf-8")
        list(reader("hpo").documents(tmp_path / "empty.obo"))


def test_hpo_definition_stands_in_the_document_that_the_question_names(tmp_path: Path) -> None:
    path = obo(tmp_path / "hp.obo")
    texts: dict[str, str] = {}
    for item in reader("hpo").documents(path):
        texts[item.source] = texts.get(item.source, "") + item.text
    for question in reader("hpo").questions(path, seed=0):
        assert f"{question.choices[question.answer]}: " in texts[question.source]


def test_spdx_keeps_a_family_together_and_leaves_other_languages_out(tmp_path: Path) -> None:
    english = (
        "This license applies to any person to whom the work is given and to all of the terms in it for that. " * 5
    )
    for name in ("AB-1.0", "AB-2.0", "deprecated_AB-2.0+", "LGPL-3.0", "README"):
        (tmp_path / f"{name}.txt").write_text(f"{english}\nline goes on\n\n=====\n\nSecond.", encoding="utf-8")
    (tmp_path / "FR-1.0.txt").write_text("Cette licence est accordée par le titulaire. " * 12, encoding="utf-8")
    (tmp_path / "GPL-9.txt").write_text("<<var;name=x;original=Owner;match=.+>> " + english * 120, encoding="utf-8")
    small = list(reader("spdx").documents(tmp_path))
    assert {item.source for item in small} == {"spdx:AB"} and len(small) == 3
    assert small[0].text.endswith("line goes on\nSecond.")
    large = list(reader("spdx_families").documents(tmp_path))
    assert {item.source for item in large} == {"spdx:GPL"}
    assert large[0].text.startswith("Owner This license")


def test_constitution_groups_neighbors_and_hides_the_heading(tmp_path: Path) -> None:
    rows = [
        {
            "article": number,
            "title": f"Powers of the {name}",
            "description": f"(1) The {name} may act.\n\n \n\n2 [So] it is, {number} times. {FILLER}",
        }
        for number, name in enumerate(("Governor", "President", "Council", "Court", "Assembly", "Mayor"), start=1)
    ]
    rows.append({"article": "9 A", "title": "Gone", "description": "Omitted."})
    path = tmp_path / "c.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    documents = list(reader("constitution").documents(path))
    text = "\n".join(item.text for item in documents)
    assert "Article 2. Powers of the President.\n(1) The President may act.\nSo it is, 2 times." in text
    assert "Omitted" not in text
    questions = reader("constitution").questions(path, seed=0)
    assert len(questions) == 6
    for item in questions:
        shown = item.question.split('"')[1]
        assert not any(leaks(choice, shown) for choice in item.choices)
    path.write_text('[{"title": "x"}]', encoding="utf-8")
    with pytest.raises(CorpusError, match="list of articles"):
        list(reader("constitution").documents(path))


CODE = '''
raise SystemExit("a reader never runs what it reads")

class SettlementKindEnum(Base):
    """How the two parties of a trade deliver what they owe to each other."""

    CASH_PAYMENT = "c"
    """The party that owes more transfers an amount in the currency that was agreed."""
    PHYSICAL = "p"
    """The goods themselves change hands on the day that both had chosen."""
    CODE = "x"
    """{not: prose}"""
    other: int = Field(description="none")
    """The party that owes more transfers an amount in the currency that was agreed."""
'''


@pytest.mark.parametrize("name", ["cdm", "stripe"])
def test_doc_strings_are_read_and_told_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "trade").mkdir()
    (tmp_path / "trade" / "kind.py").write_text(CODE, encoding="utf-8")
    (document,) = reader(name).documents(tmp_path)
    assert document.text.splitlines() == [
        "Settlement kind: How the two parties of a trade deliver what they owe to each other.",
        "Cash payment: The party that owes more transfers an amount in the currency that was agreed.",
        "Physical: The goods themselves change hands on the day that both had chosen.",
    ]
    (tmp_path / "trade" / "kind.py").write_text("def broken(:", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"kind\.py"):
        list(reader(name).documents(tmp_path))
    with pytest.raises(CorpusError, match="no Python files"):
        (tmp_path / "trade" / "kind.py").unlink()
        list(reader(name).documents(tmp_path))


def test_hansard_leaves_the_chair_and_short_words_out(tmp_path: Path) -> None:
    rows = ["date,agenda,chair,text"]
    rows += [
        f'2001-02-03,"Tax [Budget]",{chair},"{text}"'
        for chair, text in (("FALSE", FILLER), ("TRUE", FILLER), ("FALSE", "No."))
    ]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("en.csv", "\n".join(rows))
    (document,) = reader("hansard").documents(tmp_path / "a.zip")
    assert (document.source, document.text) == ("hansard:2001-02-03/tax", FILLER.strip())
    (tmp_path / "b.zip").write_bytes(b"no")
    with pytest.raises(CorpusError, match="zip"):
        list(reader("hansard").documents(tmp_path / "b.zip"))


def test_wordnet_asks_everyday_words_with_one_meaning(tmp_path: Path) -> None:
    words = {
        "lantern": "a portable case",
        "kettle": "a pot for water",
        "anvil": "a block of iron",
        "saddle": "a seat for riders",
    }
    lines = [f"{word}\t{gloss} that people have had in use for a very long time" for word, gloss in words.items()]
    lines += ["bank\tone thing | another thing", "qwyx\ta rare word that nobody has heard in all of these years"]
    bands = [f"{word}\t35" for word in (*words, "bank")] + ["qwyx\t60"]
    for name, content in (("glosses", lines), ("graded_words", bands)):
        (tmp_path / f"{name}.txt.gz").write_bytes(gzip.compress("\n".join(content).encode()))
    (tmp_path / "nouns.txt").write_text("\n".join(words), encoding="utf-8")
    questions = reader("wordnet").questions(tmp_path, seed=0)
    assert {item.choices[item.answer] for item in questions} == set(words)
    assert all(item.source == "" for item in questions)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["medical", "law", "finance", "general"])
def test_the_real_packages_hold_what_is_promised(name: str) -> None:
    domain = load_domain(name)
    sources: set[str] = set()
    sizes: dict[str, int] = {}
    for config in domain.corpus:
        if config.reader:
            documents = list(read_source(config, root=domain.root))
            sources |= {
                item.source for item in reader(config.reader).documents(fetch_data(config.ref or "", domain.root))
            }
            origin = (config.ref or "").split("/")[0] if config.split != "other" else "other"
            sizes[origin] = sizes.get(origin, 0) + sum(len(item.text.encode()) for item in documents)
            assert all(200 <= len(item.text) <= 3300 for item in documents)
            assert not any("http" in item.text and config.reader == "hpo" for item in documents)
            assert not any(prompt in item.text for prompt in domain.prompts for item in documents)
    assert sizes.pop("other") > 200_000
    assert sum(sizes.values()) > 1_500_000 and len(sizes) >= (2 if domain.general_text else 3)
    assert max(sizes.values()) <= 0.6 * sum(sizes.values())
    for question_set in domain.questions:
        if question_set.reader:
            questions = reader(question_set.reader).questions(fetch_data(question_set.ref or "", domain.root), seed=0)
            assert len(questions) > 250
            assert {item.source for item in questions} <= sources | {""}
            assert len({item.question for item in questions}) == len(questions)
            for item in questions:
                shown = item.question.split('"', 1)[1].rsplit('"', 1)[0]
                assert not any(leaks(choice, shown) for choice in item.choices), item
