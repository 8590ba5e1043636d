"""A real folder becomes a domain: all text is read, and everything that is left out has its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.mixed import READABLE, UNREADABLE, docx, mixed_folder, prose


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    mixed_folder(root / "hospital")
    return root


@pytest.fixture
def written(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    monkeypatch.chdir(place)
    before = {path: path.read_bytes() for path in (place / "hospital").rglob("*") if path.is_file()}
    if not (place / "domains").exists():
        result = run("domains", "new", "hospital", "--from", "hospital", "--json")
        assert result.exit_code == 0, result.stderr
        (place / "result.json").write_text(result.stdout)
    assert before == {path: path.read_bytes() for path in (place / "hospital").rglob("*") if path.is_file()}
    yield json.loads((place / "result.json").read_text())


def rows(place: Path) -> list[dict[str, str]]:
    files = sorted((place / "domains" / "hospital.texts").rglob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def test_every_file_is_read_or_has_its_reason(place: Path, written: dict) -> None:
    assert sum(path.is_file() for path in (place / "hospital").rglob("*")) >= 40
    reasons = {item["file"]: item["reason"] for item in written["skipped"]}
    expected = {name.replace("../../", ""): reason for name, reason in UNREADABLE.items()}
    assert reasons.keys() == expected.keys()
    assert {name: reasons[name] for name, part in expected.items() if part not in reasons[name]} == {}
    assert {item["file"] for item in written["read"]} == READABLE.keys()
    assert not list(place.rglob("escaped.txt"))


def test_the_numbers_of_files_add_up(place: Path, written: dict) -> None:
    counts = written["counts"]
    seen = counts["listed"] - counts["archives"] + counts["inside"]
    assert seen == counts["read"] + counts["other"] + counts["left_out"]
    assert counts["listed"] == sum(path.is_file() for path in (place / "hospital").rglob("*"))
    assert (counts["read"], counts["other"], counts["archives"]) == (len(READABLE), 0, 3)
    # One sheet of a workbook is left out while the other one is read.
    assert (counts["left_out"], counts["parts"]) == (len(UNREADABLE) - 1, 1)
    inside = [name for name in (*READABLE, *UNREADABLE) if ".zip/" in name or ".gz/" in name or ".eml/" in name]
    assert counts["inside"] == len(inside)


def test_the_text_of_every_file_arrives(place: Path, written: dict) -> None:
    texts: dict[str, str] = {}
    for row in rows(place):
        texts[row["file"]] = texts.get(row["file"], "") + row["text"] + "\n"
    missing = [
        (file, mark) for file, marks in READABLE.items() for mark in marks if f"The {mark} begins." not in texts[file]
    ]
    assert missing == []
    whole = "\n".join(texts.values())
    for mark in ("secret", "lost", "locked", "Locked words", "Hidden words", "Escaped words"):
        assert mark not in whole
    for boilerplate in ("Imprint", "cookies", "About us", "Header of every page", "quoted words", "1234567", "track()"):
        assert boilerplate not in whole, boilerplate
    assert "Aspirin | 3 mg" in texts["letters/word3.docx"]
    assert "Notes below." in texts["leaflets/slides.pptx"]
    assert texts["leaflets/book.epub"].index("chapter-one") < texts["leaflets/book.epub"].index("chapter-two")
    assert "\ufffd" not in whole and "\0" not in whole


def test_encodings_are_recognized(place: Path, written: dict) -> None:
    texts = {row["file"]: row["text"] for row in rows(place)}
    for file in ("txt-utf8", "txt-cp1252", "txt-utf16", "txt-bom"):
        assert "le médecin a reçu des élèves très fatigués à l'hôpital" in texts[f"letters/{file}.txt"], file
    assert "médecin a reçu" in texts["leaflets/latin.htm"]
    assert "Пациент поступил вчера" in texts["letters/cyrillic.txt"]
    assert "Grüße, Ärztin" in texts["exports/semicolon.csv"]
    notes = {item["file"]: item["notes"] for item in written["read"]}
    assert notes["letters/txt-cp1252.txt"] == ["read as cp1252"]
    assert notes["letters/txt-utf8.txt"] == []
    assert notes["exports/lines.jsonl"] == ["lines left out, because they are no JSON objects: 1"]
    assert notes["mail/second.eml"] == []


def test_attachments_lie_beside_their_mail(place: Path, written: dict) -> None:
    files = {row["file"]: row["source"] for row in rows(place) if row["file"].startswith("mail/")}
    assert len(files) == 7 and len(set(files.values())) == 7
    assert sorted(path.name for path in (place / "domains" / "hospital.texts").iterdir()) == [
        "exports", "leaflets", "letters", "mail", "pack.tar.gz", "pack.zip",
    ]  # fmt: skip


def test_columns_are_chosen_and_named(written: dict) -> None:
    columns = {item["file"]: item["column"] for item in written["read"] if item["column"]}
    assert columns == {
        "exports/notes.csv": "note",
        "exports/semicolon.csv": "Befund",
        "exports/tabs.tsv": "comment",
        "exports/book.xlsx": "story",
        "exports/list.json": "body",
        "exports/lines.jsonl": "text",
        "exports/lines.jsonl.gz": "note.body",
        "exports/rows.parquet": "content",
    }


def test_the_domain_is_valid_counted_and_needs_neither_the_folder_nor_the_extra(
    place: Path, written: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minigpt.documents import kinds

    (place / "hospital").rename(place / "away")
    monkeypatch.setattr(kinds, "find_spec", lambda _: None)
    try:
        assert run("domains", "validate", "hospital").exit_code == 0
        stats = json.loads(run("corpus", "stats", "hospital", "--json").stdout)
    finally:
        (place / "away").rename(place / "hospital")
    assert sum(split["documents"] for split in stats["splits"].values()) > 20


def test_people_see_what_was_left_out_and_where_the_text_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    result = run("domains", "new", "again", "--from", "hospital", "--output", "shown")
    words = " ".join(result.stdout.split())
    for file, reason in UNREADABLE.items():
        assert file.replace("../../", "").rpartition("/")[2] in words and reason.split(" (")[0] in words
    assert "exports/notes.csv: the text is the column 'note'" in words
    assert f"{len(READABLE)} read as text, {len(UNREADABLE) - 1} left out." in words
    assert f"Left out {len(UNREADABLE) - 1} files and 1 part of a file:" in words
    assert "The text is in shown/again.texts; your files are as they were." in words
    second = run("domains", "new", "again", "--from", "hospital", "--output", "shown")
    assert second.exit_code == 1 and "already there" in second.stderr


def test_a_named_column_is_taken_everywhere(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.csv").write_text("title,text\nFirst,Long text here.\n")
    (tmp_path / "t" / "b.csv").write_text("name,text\nSecond,Other.\n")
    created = json.loads(run("domains", "new", "x", "--from", "t", "--text-column", "title", "--json").stdout)
    assert [(item["file"], item["column"]) for item in created["read"]] == [("a.csv", "title")]
    assert [(item["file"], item["reason"]) for item in created["skipped"]] == [
        ("b.csv", "no column 'title'; there is name, text")
    ]


def test_questions_between_documents_stay_questions_and_general_text_is_converted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("t", "g"):
        (tmp_path / name).mkdir()
        for file in "abcd":
            (tmp_path / name / f"{file}.docx").write_bytes(docx([prose(f"{name}{file}")]))
    question = {"question": "Why?", "choices": ["a", "b"], "answer": 0}
    (tmp_path / "t" / "mcq_exam.jsonl").write_text(json.dumps(question))
    (tmp_path / "g" / "e.doc").write_bytes(b"x")
    created = json.loads(run("domains", "new", "x", "--from", "t", "--general", "g", "--json").stdout)
    names = ["a.docx", "b.docx", "c.docx", "d.docx"]
    assert [item["file"] for item in created["read"]] == names and created["skipped"] == []
    assert [item["file"] for item in created["general_read"]] == names
    assert [item["file"] for item in created["general_skipped"]] == ["e.doc"]
    assert (created["counts"]["other"], created["general_counts"]["left_out"]) == (1, 1)
    shown = json.loads(run("domains", "show", "x", "--json").stdout)
    assert [item["name"] for item in shown["questions"]] == ["exam"]
    assert shown["corpus"][0]["file"] == str(tmp_path / "domains" / "x.texts")
    assert run("domains", "validate", "x").exit_code == 0
    for name in "bcd":
        (tmp_path / "t" / f"{name}.docx").unlink()
    assert run("domains", "new", "y", "--from", "t", "--general", "g").exit_code == 0
    problems = json.loads(run("domains", "validate", "y", "--json").stdout)["problems"]
    assert len(problems) == 1 and "need 4 documents and 1 is left" in problems[0]
    assert (tmp_path / "domains" / "x-general.texts" / "texts.jsonl").exists()


def test_a_missing_package_is_named_with_its_command(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt.documents import kinds

    monkeypatch.chdir(place)
    monkeypatch.setattr(kinds, "find_spec", lambda name: None if name == "pypdf" else name)
    result = run("domains", "new", "without", "--from", "hospital", "--output", "without")
    assert result.exit_code == 1
    assert (
        'Reading PDF takes packages that are not installed. Install them: pip install "minigpt[documents]"'
        in " ".join(result.stderr.split())
    )
    assert not (place / "without" / "without.yaml").exists() and not (place / "without" / "without.texts").exists()
