"""Readers of single kinds, on cases that a folder of ordinary files does not have."""

from __future__ import annotations

import gzip
import io
import json
import struct
from email.message import EmailMessage
from pathlib import Path
from random import Random
from typing import Any

import pytest

from minigpt.corpus.ownfiles import own_texts
from minigpt.documents import archives, base, book, delimited, jsons, mail, packages, pdf, plain, scan, sheets
from minigpt.documents.base import Skipped, Source, Unread
from minigpt.documents.columns import text_column
from minigpt.documents.convert import convert
from minigpt.documents.delimited import delimiter_of
from minigpt.documents.encodings import decode
from minigpt.documents.kinds import KINDS, kind_of
from minigpt.documents.tables import named_rows
from minigpt.errors import CorpusError
from minigpt.lazy import resolve
from tests.support import mixed


def source(content: bytes, file: str = "file") -> Source:
    return Source(file=file, size=len(content), opener=lambda: io.BytesIO(content))


def test_every_row_of_the_table_names_a_function() -> None:
    assert all(callable(resolve(kind.read)) for kind in KINDS)
    suffixes = [suffix for kind in KINDS for suffix in kind.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert kind_of("A/B.JSONL.GZ") is kind_of("x.jsonl") and kind_of("notes") is None and kind_of("x.gz") is None


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        ("Ärztin für Füße", "utf-8", "utf-8"),
        ("Ärztin für Füße", "utf-8-sig", "utf-8"),
        ("Ärztin für Füße", "utf-16", "utf-16"),
        ("Ärztin für Füße", "utf-16-be", "utf-16-be"),
        ("Ärztin für Füße", "utf-32", "utf-32"),
        ("“Curly” quotes – and €5 for the café", "cp1252", "cp1252"),
        ("plain", "ascii", "utf-8"),
    ],
)
def test_text_comes_back_from_its_encoding(text: str, encoding: str, name: str) -> None:
    assert decode(text.encode(encoding)) == (text, name)


def test_a_named_encoding_is_tried_and_a_wrong_one_does_no_harm() -> None:
    russian = "Привет, мир. " * 20
    assert decode(russian.encode("koi8-r"), "koi8-r") == (russian, "koi8-r")
    assert decode("café".encode(), "koi8-r") == ("café", "utf-8")
    assert decode("café au lait".encode("cp1252"), "no-such-name")[0] == "café au lait"
    with pytest.raises(Unread, match="binary"):
        decode(bytes(range(256)))


def test_headers_footers_and_page_numbers_leave_a_pdf_and_broken_lines_are_joined() -> None:
    symptoms = ("pain in the chest", "a dry cough and fever", "sudden loss of sight")
    pages = [
        [
            "Clinic North",
            f"The patient came with {own} after long exer-",
            "cise, and it",
            "went away.",
            f"Page {n} of 3",
        ]
        for n, own in enumerate(symptoms)
    ]
    pages = [[*page[:-1], f"End of {own}.", page[-1]] for page, own in zip(pages, symptoms, strict=True)]
    text = next(iter(pdf.read(source(mixed.pdf(pages)))))["text"]
    assert text.split("\n") == [
        line
        for own in symptoms
        for line in (f"The patient came with {own} after long exercise, and it went away.", f"End of {own}.")
    ]


def test_two_pages_keep_their_edges_because_nothing_is_known_to_repeat() -> None:
    assert pdf.without_edges([["Title", "a"], ["Title", "b"]]) == [["Title", "a"], ["Title", "b"]]


def test_packages_that_unpack_to_too_much_or_have_a_password_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(mixed.zipped({"a": b"x" * 100}))
    monkeypatch.setattr(packages, "MAX_UNPACKED", 399)
    with pytest.raises(Unread, match="unpacks to more"):
        packages.package(source(bytes(content)))
    monkeypatch.setattr(packages, "MAX_UNPACKED", 1 << 30)
    place = content.index(b"PK\x01\x02") + 8
    content[place : place + 2] = struct.pack("<H", 1)
    with pytest.raises(Unread, match="password-protected"):
        packages.package(source(bytes(content)))
    assert list(archives.read_zip(source(bytes(content), "a.zip"))) == [
        Skipped(file="a.zip/a", reason="password-protected")
    ]


def test_a_zip_archive_of_an_unknown_version_is_not_called_damaged() -> None:
    content = bytearray(mixed.zipped({"a": b"x"}))
    content[content.index(b"PK\x01\x02") + 6] = 255  # version that is needed to extract
    with pytest.raises(Unread, match="newer version"):
        list(archives.read_zip(source(bytes(content), "a.zip")))
    with pytest.raises(Unread, match="not a whole zip archive"):
        list(archives.read_zip(source(b"PK nothing", "a.zip")))


def test_archives_are_bounded_in_members_in_size_and_in_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = mixed.zipped({"a.txt": b"Words."})
    for _ in range(scan.DEEPEST):
        inner = mixed.zipped({"a.zip": inner})
    (tmp_path / "a.zip").write_bytes(inner)
    assert [item.reason for item in scan.entries(scan.listed(tmp_path)) if isinstance(item, Skipped)] == [
        "an archive inside 3 others"
    ]
    monkeypatch.setattr(archives, "MAX_UNPACKED", 99)
    monkeypatch.setattr(archives, "MAX_FILE", 9)
    for read, packed in ((archives.read_zip, mixed.zipped), (archives.read_tar, lambda m: mixed.tarred(m, {}))):
        with pytest.raises(Unread, match="when unpacked"):
            list(read(source(packed({"a": b"x" * 60, "b": b"x" * 60}))))
        assert [item.reason[:15] for item in read(source(packed({"a": b"x" * 60})))] == ["larger than the"]


def test_a_compressed_table_that_unpacks_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsons, "MAX_UNPACKED", 1000)
    packed = gzip.compress(b'{"text": "x"}\n' * 100)
    with pytest.raises(Unread, match="larger"):
        list(next(jsons.read_lines(source(packed))).rows)


def test_what_was_read_before_the_damage_is_kept_and_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    packed = gzip.compress(b"".join(json.dumps({"text": mixed.prose(n)}).encode() + b"\n" for n in range(3000)))
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    reading = convert(tmp_path / "in", tmp_path / "out")
    lines = (tmp_path / "out" / "texts.jsonl").read_text().splitlines()
    assert 0 < len(lines) == reading.documents < 3000
    assert reading.skipped == (
        Skipped(file="a.jsonl.gz", reason=f"after {len(lines):,} rows: damaged: it cannot be unpacked to its end"),
    )


def test_other_columns_are_kept_only_if_wanted(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    text = "Several different words stand in this note."
    (tmp_path / "in" / "sub" / "a.csv").write_text(f"name,site,note\nJo Doe,north,{text}\nAl,south,\n")
    reading = convert(tmp_path / "in", tmp_path / "out", keep=("site",))
    rows = [json.loads(line) for line in (tmp_path / "out" / "sub" / "texts.jsonl").read_text().splitlines()]
    assert rows == [{"text": text, "source": "sub/a.csv, row 1", "file": "sub/a.csv", "site": "north"}]
    assert reading.files[0].notes == ("rows left out, because 'note' holds no text: 1",)


def test_the_column_of_text_is_the_named_one_then_text_then_running_text() -> None:
    long = "Many different words make this a sentence of some length, longer than the other one."
    short = "A few words only, yet a sentence."
    rows: list[dict[str, Any]] = [{"id": "a1", "summary": long, "note": short, "deep": {"x": "no"}}]
    assert text_column(rows) == "note"  # a usual name goes before length
    assert text_column([{"id": "a1", "answer": long, "question": short}]) == "answer"
    assert text_column([{"text": "Hi", "note": long}]) == "text"
    assert text_column(rows, "deep.x") == "deep.x"
    with pytest.raises(Unread, match=r"no column 'y'; there is id, summary, note, deep.x"):
        text_column(rows, "y")
    with pytest.raises(Unread, match=r"no column of running text \(columns: a\); name one with --text-column"):
        text_column([{"a": "yes"}])
    with pytest.raises(Unread, match="no rows"):
        text_column([])
    chat: list[dict[str, Any]] = [{"messages": [{"role": "user", "content": long}]}]
    with pytest.raises(Unread, match=r"no field with text, .* in messages; write the text into a field 'text'"):
        text_column(chat)
    with pytest.raises(Unread, match="no text in column 'messages'"):
        text_column(chat, "messages")


def test_a_first_row_of_data_is_no_header() -> None:
    assert list(named_rows([["1", "First sentence."], ["2", "Second."]], source(b""))) == [
        {"column 1": "1", "column 2": "First sentence."},
        {"column 1": "2", "column 2": "Second."},
    ]
    assert list(named_rows([["id", "note"], ["2", "Second."], ["", ""]], source(b""))) == [
        {"id": "2", "note": "Second."}
    ]
    assert list(named_rows([], source(b""))) == []


def test_delimiters_are_found_although_sentences_have_commas() -> None:
    assert delimiter_of('id;note\n1;"One, two, three"\n2;Four, five\n') == ";"
    assert delimiter_of("id|note\n1|One\n2|Two\n") == "|"
    assert delimiter_of("id,note\n1,One\n") == ","
    assert delimiter_of("note\nOne\n") == ","


def test_sheets_without_rows_are_no_tables_and_columns_may_differ() -> None:
    content = mixed.xlsx({"Empty": [], "A": [[None, None], ["id", "note"], [1, "One."]]})
    tables = {table.name: list(table.rows) for table in sheets.read(source(content))}
    assert tables == {"Empty": [], "A": [{"id": 1, "note": "One."}]}


def test_mails_that_are_encrypted_or_none_are_refused_and_html_mails_are_read() -> None:
    with pytest.raises(Unread, match="password-protected"):
        list(mail.read(source(b"Content-Type: multipart/encrypted; boundary=x\n\n--x--\n")))
    with pytest.raises(Unread, match="not a mail"):
        list(mail.read(source(b"\n\n")))
    page = b"Subject: Hi\nContent-Type: text/html\n\n<html><body><p>The own words.</p></body></html>"
    assert list(mail.read(source(page))) == [{"text": "Hi\nThe own words.", "date": ""}]


def test_locked_and_broken_books_are_refused_and_xml_bombs_do_not_explode() -> None:
    with pytest.raises(Unread, match="digital rights"):
        list(book.read(source(mixed.zipped({"META-INF/rights.xml": b"x"}))))
    with pytest.raises(Unread, match="chapters"):
        list(book.read(source(mixed.zipped({"mimetype": b"x"}))))
    bomb = b'<!DOCTYPE a [<!ENTITY x "boom">]><a>&x;</a>'
    assert "boom" not in (book.parsed(bomb).text or "")


def test_a_line_that_names_the_delimiter_and_wide_lines_are_understood() -> None:
    rows = list(next(delimited.read(source(b"sep=;\r\nid;note\r\n1;One, two\r\n", "a.csv"))).rows)
    assert rows == [{"id": "1", "note": "One, two"}]
    wide = source('{"text": "é"}\n{"text": "Ċ"}\n'.encode("utf-16"))
    assert list(next(jsons.read_lines(wide)).rows) == [{"text": "é"}, {"text": "Ċ"}]


def test_no_damage_of_any_kind_stops_the_reading_of_a_folder(tmp_path: Path) -> None:
    folder = mixed.mixed_folder(tmp_path / "in")
    draw = Random(0)
    for path in sorted(folder.rglob("*")):
        content = bytearray(path.read_bytes()) if path.is_file() else bytearray()
        for copy in range(2 if content else 0):
            spoilt = content[: draw.randrange(1, len(content) + 1)] if copy else content[:]
            for _ in range(8):
                spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
            suffixes = "".join(path.suffixes) or ".txt"
            path.with_name(f"spoilt{copy}-{path.name.partition('.')[0]}{suffixes}").write_bytes(spoilt)
    reading = convert(folder, tmp_path / "out")
    every = {item.relative_to(folder).as_posix() for item in folder.rglob("*") if item.is_file()}
    said = {item.file.partition(", sheet")[0] for item in (*reading.files, *reading.skipped)}
    assert {file for file in every if not any(name == file or name.startswith(f"{file}/") for name in said)} == set()


def test_files_larger_than_are_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_FILE", 9)
    with pytest.raises(Unread, match="larger than"):
        list(plain.read(source(b"x" * 10)))


def test_broken_links_and_locked_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text("x")
    assert list(scan.entries(scan.listed(tmp_path))) == [
        Skipped(file=".git/", reason=scan.HIDDEN),
        Skipped(file="gone.txt", reason="a broken link"),
    ]


def test_links_to_folders_are_listed_and_do_not_make_a_folder_empty(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("Words.")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ward").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    assert list(scan.listed(tmp_path / "in")) == [
        Skipped(file="round/", reason=scan.LINKED),
        Skipped(file="ward/", reason=scan.LINKED),
    ]
    with pytest.raises(CorpusError, match=r"holds no text that can be read .*a link to a folder"):
        own_texts(tmp_path / "in", tmp_path / "a.yaml")
    (tmp_path / "in" / "b.txt").write_text("Own words.")
    texts = own_texts(tmp_path / "in", tmp_path / "a.yaml")
    assert texts.converted is None and [item.file for item in texts.reading.skipped] == ["round/", "ward/"]
    assert (texts.reading.tally.listed, texts.reading.tally.read, texts.reading.tally.left_out) == (3, 1, 2)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert [item.file for item in scan.listed(tmp_path / "link")] == ["a.txt"]  # the folder itself may be a link


def attached(content: bytes) -> list[str]:
    """Paths of a mail and of what is inside it, with the reason where it is left out."""
    entries = scan.opened(source(content, "m.eml"), depth=0)
    return [f"{item.file}: {item.reason}" if isinstance(item, Skipped) else item[0].file for item in entries]


def test_attachments_of_a_mail_at_the_top_stay_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.eml").write_bytes(mixed.eml("One", "Text.", attached={"n.txt": b"More."}))
    reading = convert(tmp_path / "in", tmp_path / "out")
    assert [item.file for item in reading.files] == ["a.eml", "a.eml/n.txt"] and not reading.skipped
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["texts.jsonl"]


def test_attachments_with_equal_or_without_names_are_told_apart() -> None:
    mail_ = EmailMessage()
    mail_["Subject"] = "Files"
    mail_.set_content("Text.")
    for number in range(2):
        mail_.add_attachment(b"Text %d." % number, maintype="text", subtype="plain", filename="a.txt")
    mail_.add_attachment(b"more", maintype="text", subtype="plain")
    mail_.add_attachment(b"", maintype="application", subtype="octet-stream", filename="none.bin")
    assert attached(mail_.as_bytes()) == [
        "m.eml",
        "m.eml/a.txt",
        "m.eml/2-a.txt",
        "m.eml/attachment.txt",
        "m.eml/none.bin: empty",
    ]


def test_mails_in_mails_end_somewhere() -> None:
    content = mixed.eml("0", "Innermost.")
    for number in range(1, 6):
        content = mixed.eml(str(number), "Outer.", forwarded=content)
    assert attached(content)[-1].endswith("attachment.eml: attached inside 3 others")
    for damaged in (b"\n\n", b"Content-Type: multipart/encrypted; boundary=x\n\n--x--\n"):
        assert attached(damaged) == ["m.eml"]
