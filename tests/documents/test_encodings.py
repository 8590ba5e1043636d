"""Text in the code pages of many languages comes back, short and long."""

from __future__ import annotations

import io
import json
from itertools import combinations
from random import Random

import pytest

from minigpt.documents import encodings, jsons, plain
from minigpt.documents.base import Source
from minigpt.documents.encodings import decode
from tests.support.languages import TEXTS

WESTERN = [name for name, (pages, _) in TEXTS.items() if pages == ("cp1252",)]


def source(content: bytes, file: str = "file") -> Source:
    return Source(file=file, size=len(content), opener=lambda: io.BytesIO(content))


def drawn(sentences: tuple[str, ...], number: int) -> str:
    """Text of so many sentences."""
    return " ".join(Random(number).choices(sentences, k=number))


@pytest.mark.parametrize("language", TEXTS)
def test_every_language_comes_back_short_and_long(language: str) -> None:
    pages, sentences = TEXTS[language]
    samples = [sentences[0], " ".join(sentences[1:3]), " ".join(sentences), drawn(sentences, 20), drawn(sentences, 400)]
    # A sentence that is repeated says no more than once.
    samples += [f"{sentences[0]} " * 5, f"{sentences[0]}\n" * 50]
    wrong = [(page, text[:40]) for page in pages for text in samples if decode(text.encode(page))[0] != text]
    assert wrong == []


def test_western_languages_may_be_mixed() -> None:
    for languages in (*combinations(WESTERN, 2), *combinations(WESTERN[:6], 3), tuple(WESTERN)):
        sentences = tuple(sentence for name in languages for sentence in TEXTS[name][1])
        for number in (6, 60):
            text = drawn(sentences, number)
            assert decode(text.encode("cp1252")) == (text, "cp1252"), languages


@pytest.mark.parametrize("language", [name for name in TEXTS if name not in WESTERN])
def test_a_third_of_a_text_tells_the_language(language: str) -> None:
    pages, sentences = TEXTS[language]
    plain_english = ("The doctor asked when it began.", "It was 37.5 that day.", "She went home to see her mother.")
    text = drawn((*sentences, *plain_english * 4), 40)
    assert {decode(text.encode(page))[0] for page in pages} == {text}


@pytest.mark.parametrize(
    "text",
    [
        "naïve",
        "The price was £45 for 5 cm³ and 3 m² at 37°C ± 2.",
        "Volumes of 5 cm³, 7 mm³, 3 dm³ and 12 m³ were measured; 5 µg in 20 µl cost €3.",
        "Muñoz, Müller, Sørensen, Ångström, Gödel and Pólya met at a façade.",
        "Krüger & Söhne® of Malmö, Zürich, Genève, São Paulo, Århus and Tromsø™ © 2020",
        "¹ First note. ² Second note. ³ Third note. Words¹ with² notes³",
        "GRÖSSE, ÄRZTE, ÜBER, ÖFEN",
        "ÉTAT DE SANTÉ : GÉNÉRAL, À L’HÔPITAL, «\xa0ÇA VA\xa0», 5\xa0€, cœur",
        "1ª vez, 2º año, ¿qué?, ¡no!, § 5 – 2½ hours, ¾ of it… “so”",
    ],
)
def test_names_units_and_signs_stay_western(text: str) -> None:
    assert decode(text.encode("cp1252")) == (text, "cp1252")
    assert decode((text + " And so on, in plain words.\n").encode("cp1252") * 500)[1] == "cp1252"


def test_words_in_capitals_and_single_words_are_read() -> None:
    for text, page in (
        ("„Zażółć gęślą jaźń”", "cp1250"),
        ("WARSZAWA, ŁÓDŹ, GDAŃSK, ŻÓŁW", "cp1250"),
        ("БОЛЬНОЙ ПОСТУПИЛ В ОТДЕЛЕНИЕ", "cp1251"),
        ("БОЛЬНОЙ ПОСТУПИЛ В ОТДЕЛЕНИЕ", "koi8-r"),
        ("A report with one word: Привет.", "cp1251"),
        ("ΑΘΗΝΑ ΚΑΙ ΠΕΙΡΑΙΑΣ", "cp1253"),
    ):
        assert decode(text.encode(page)) == (text, page)


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("病人因胸痛于星期一住院。医生问什么时候开始，持续了多久。" * 3, "gb18030"),
        ("患者は月曜日に胸の痛みを訴えて入院した。医師はいつ始まったのかを尋ねた。", "cp932"),
        ("환자는 월요일에 가슴 통증으로 입원했다. 의사는 언제 시작되었는지 물었다.", "cp949"),
        ("ผู้ป่วยเข้ารับการรักษาในโรงพยาบาลเมื่อวันจันทร์ด้วยอาการเจ็บหน้าอก", "cp874"),
    ],
)
def test_asian_text_is_left_to_the_library(text: str, page: str) -> None:
    assert decode(text.encode(page))[0] == text


def test_letters_that_come_late_in_a_long_file_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "SAMPLE", 1000)
    text = "Plain words. " * 500 + drawn(TEXTS["polish"][1], 20)
    notes = source(text.encode("cp1250"))
    assert next(iter(plain.read(notes)))["text"] == text
    assert notes.notes == ["read as cp1250"]


def test_the_lines_of_a_file_are_read_in_one_encoding() -> None:
    rows = [{"text": word} for sentence in TEXTS["czech"][1] for word in sentence.split()]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("cp1250")
    file = source(content + '{"text": "žena"}\n'.encode())
    assert list(next(jsons.read_lines(file)).rows) == [*rows, {"text": "žena"}]
    assert file.notes == ["lines that are not UTF-8 are read as cp1250"]


def test_a_few_wrong_bytes_do_not_spoil_a_file() -> None:
    for language in ("german", "polish", "russian"):
        text = drawn(TEXTS[language][1], 60)
        file = source(text.encode() + "ż".encode()[:1])  # cut inside a character
        assert next(iter(plain.read(file)))["text"] == f"{text}\ufffd"
        assert file.notes == ["read as utf-8 with damaged characters"]


def test_a_few_letters_are_enough_for_damaged_utf_8() -> None:
    text = "He didn’t know, “so” he said: " + "plain words. " * 30
    assert decode(text.encode() + "’".encode()[:1]) == (f"{text}\ufffd", encodings.DAMAGED)
    assert decode(text.encode() + b"\xff", "iso-8859-1") == (f"{text}\ufffd", encodings.DAMAGED)
    assert decode("Müller".encode("latin-1"), "iso-8859-1") == ("Müller", "iso-8859-1")


def test_a_damaged_line_does_not_name_an_encoding() -> None:
    line = json.dumps({"text": "Größe der Müller in Köln"}, ensure_ascii=False).encode()
    file = source(line.replace(b"in", b"in \xff") + b"\n" + line + b"\n")
    assert [row["text"] for row in next(jsons.read_lines(file)).rows] == [
        "Größe der Müller in \ufffd Köln",
        "Größe der Müller in Köln",
    ]
    assert file.notes == []
