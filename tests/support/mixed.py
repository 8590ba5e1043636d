"""A folder of documents as an organization has them: many kinds and encodings, some damaged, empty or locked."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from random import Random

import pyarrow
from docx import Document
from openpyxl import Workbook
from pptx import Presentation
from pyarrow import parquet
from pypdf import PdfReader, PdfWriter

PASSWORD = "password-protected"


def prose(seed: object, length: int = 60) -> str:
    """Sentences of made-up words with a mark that no other file has."""
    draw = Random(str(seed))
    words = [f"{draw.choice('bdfklmnprst')}{draw.choice('aeiou')}{draw.choice('lmnrst')}" for _ in range(length)]
    return f"The {seed} begins. " + " ".join(words).capitalize() + "."


def pdf(lines_of_pages: Sequence[Sequence[str]]) -> bytes:
    """A PDF with the lines of each page in Helvetica, written by hand."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(lines_of_pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(lines_of_pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    for number, page in enumerate(lines_of_pages):
        escaped = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in page]
        shown = "\n".join(f"({line}) Tj 0 -14 Td" for line in escaped)
        stream = f"BT /F1 10 Tf 50 780 Td\n{shown}\nET".encode("cp1252")
        box = "/MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Contents {5 + 2 * number} 0 R >>".encode())
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream))
    result, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(result))
        result += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(result)}\n%%EOF\n"
    return result + end.encode() + trailer.encode()


def locked_pdf(content: bytes, *, password: str) -> bytes:
    """The same PDF that opens only with a password; with an empty one it opens for everybody."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(content)))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


def docx(paragraphs: Sequence[str], rows: Sequence[Sequence[str]] = ()) -> bytes:
    """A Word document with paragraphs, a table, and a header that is no text of its own."""
    document = Document()
    document.sections[0].header.paragraphs[0].text = "Header of every page"
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if rows:
        table = document.add_table(rows=len(rows), cols=len(rows[0]))
        for row, cells in zip(table.rows, rows, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def pptx(title: str, text: str, notes: str) -> bytes:
    """A presentation of one slide with notes."""
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = title
    slide.placeholders[1].text = text
    slide.notes_slide.notes_text_frame.text = notes
    stream = io.BytesIO()
    presentation.save(stream)
    return stream.getvalue()


def xlsx(sheets: dict[str, Sequence[Sequence[object]]]) -> bytes:
    """A workbook."""
    workbook = Workbook()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    stream = io.BytesIO()
    workbook.save(stream)
    return stream.getvalue()


def html(text: str, *, charset: str = "utf-8") -> bytes:
    """A page with a menu, a banner and a footer around its text."""
    page = (
        f'<html><head><meta charset="{charset}"><title>Page</title><script>track()</script></head><body>'
        '<nav><a href="/">Home</a> <a href="/a">About us</a></nav><div class="cookie-banner">We use cookies.</div>'
        f"<main><h1>Leaflet</h1><p>{text}</p></main><footer>Imprint | Terms of use</footer></body></html>"
    )
    return page.encode(charset)


def eml(subject: str, text: str, *, attached: Mapping[str, bytes] | None = None, forwarded: bytes = b"") -> bytes:
    """A mail with a quoted one and a signature, perhaps with attachments."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "jo@example.org", "al@example.org", subject
    mail["Date"] = "Mon, 03 Mar 2025 10:00:00 +0000"
    mail.set_content(f"{text}\n\nOn Sunday Al wrote:\n> The quoted words.\n\n-- \nJo, +49 30 1234567\n")
    for name, content in (attached or {}).items():
        mail.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    if forwarded:
        mail.add_attachment(message_from_bytes(forwarded, policy=policy.default))
    return mail.as_bytes()


def epub(chapters: Sequence[str]) -> bytes:
    """A book; its files lie in another order than the chapters are read in."""
    stream = io.BytesIO()
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    items = "".join(f'<item id="c{n}" href="c%20{n}.xhtml"/>' for n in reversed(range(len(chapters))))
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    book = f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{spine}</spine></package>'
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/book.opf", book)
        for number, chapter in reversed(list(enumerate(chapters))):
            page = f'<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{chapter}</p></body></html>'
            archive.writestr(f"OEBPS/c {number}.xhtml", page)
    return stream.getvalue()


def table(rows: Sequence[Sequence[str]], *, delimiter: str = ",") -> str:
    """A CSV file."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def locked_zip(members: dict[str, bytes]) -> bytes:
    """A zip archive whose members are marked as encrypted."""
    content = bytearray(zipped(members))
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + flags] |= 1
            place = content.find(mark, place + 4)
    return bytes(content)


def tarred(members: dict[str, bytes], links: dict[str, str]) -> bytes:
    """A compressed tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, goal in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, goal
            archive.addfile(info)
    return stream.getvalue()


def parquet_bytes(rows: list[dict[str, object]]) -> bytes:
    """A Parquet file."""
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


# Files that hold text, with the marks that must be in the result. `prose(mark)` begins with "The <mark> begins."
READABLE = {
    "letters/txt-utf8.txt": ("txt-utf8",),
    "letters/txt-cp1252.txt": ("txt-cp1252",),
    "letters/txt-utf16.txt": ("txt-utf16",),
    "letters/txt-utf16-plain.txt": ("txt-utf16-plain",),
    "letters/txt-bom.txt": ("txt-bom",),
    "letters/cyrillic.txt": ("cyrillic",),
    **{f"letters/word{number}.docx": (f"word{number}",) for number in range(5)},
    "letters/locked-for-editing.pdf": ("owner-only",),
    "leaflets/readme.md": ("readme",),
    **{f"leaflets/pdf{number}.pdf": (f"pdf{number}",) for number in range(5)},
    **{f"leaflets/page{number}.html": (f"page{number}",) for number in range(4)},
    "leaflets/latin.htm": ("latin",),
    "leaflets/slides.pptx": ("slides",),
    "leaflets/book.epub": ("chapter-one", "chapter-two"),
    "exports/notes.csv": ("csv-0", "csv-1"),
    "exports/semicolon.csv": ("semicolon-0", "semicolon-1"),
    "exports/tabs.tsv": ("tabs-0",),
    "exports/book.xlsx": ("sheet-0", "sheet-1"),
    "exports/list.json": ("json-0", "json-1"),
    "exports/lines.jsonl": ("lines-0",),
    "exports/lines.jsonl.gz": ("gzip-0",),
    "exports/rows.parquet": ("parquet-0",),
    "mail/first.eml": ("mail-first",),
    "mail/second.eml": ("mail-second",),
    "mail/third.eml": ("mail-third",),
    "mail/third.eml/leaflet.pdf": ("attached-pdf",),
    "mail/third.eml/pack.zip/in.txt": ("attached-zip",),
    "mail/third.eml/attachment.eml": ("mail-forwarded",),
    "mail/third.eml/attachment.eml/letter.docx": ("attached-word",),
    "pack.zip/in.txt": ("zip-text",),
    "pack.zip/deep/in.docx": ("zip-word",),
    "pack.tar.gz/in.pdf": ("tar-pdf",),
}

# Files that are left out, with a part of the reason.
UNREADABLE = {
    ".hidden.txt": "hidden",
    "letters/empty.txt": "empty",
    "letters/spaces.txt": "no text in it",
    "letters/damaged.docx": "damaged",
    "letters/locked.docx": PASSWORD,
    "letters/program.txt": "binary data",
    "leaflets/locked.pdf": PASSWORD,
    "leaflets/damaged.pdf": "damaged",
    "leaflets/scan.pdf": "no text on its pages",
    "leaflets/photo.jpg": "not a kind of file that is read; text in pictures needs character recognition",
    "letters/old.doc": "not a kind of file that is read; save it as .docx",
    "exports/numbers.csv": "no column of running text (columns: a, b)",
    "exports/book.xlsx, sheet Sums": "no field with text, only numbers",
    "exports/damaged.jsonl.gz": "damaged",
    "pack.tar.gz/../../escaped.txt": "leads out of the archive",
    "pack.tar.gz/link.txt": "a link",
    "mail/second.eml/scan.pdf": "damaged",
    "mail/second.eml/photo.jpg": "not a kind of file that is read",
    "broken.zip": "damaged",
    "locked.zip/a.txt": PASSWORD,
    "locked.zip/b.docx": PASSWORD,
}


def mixed_folder(root: Path) -> Path:
    """Write the folder."""
    files: dict[str, bytes] = {}
    french = "L'été dernier, le médecin a reçu des élèves très fatigués à l'hôpital. "
    for name, encoding in (("utf8", "utf-8"), ("cp1252", "cp1252"), ("utf16", "utf-16"), ("bom", "utf-8-sig")):
        files[f"letters/txt-{name}.txt"] = (prose(f"txt-{name}") + " " + french * 2).encode(encoding)
    files["letters/txt-utf16-plain.txt"] = prose("txt-utf16-plain").encode("utf-16-le")
    russian = "Пациент поступил вчера с болью в груди и одышкой при ходьбе. "
    files["letters/cyrillic.txt"] = (russian * 20 + prose("cyrillic", 4)).encode("cp1251")
    for n in range(5):
        files[f"letters/word{n}.docx"] = docx([prose(f"word{n}")], [("Drug", "Dose"), ("Aspirin", f"{n} mg")])
        halves = prose(f"pdf{n}", 40).split(" ")
        lines = [" ".join(halves[i : i + 8]) for i in range(0, len(halves), 8)]
        pages = [[f"Leaflet {n}", *lines, f"Page {page}"] for page in range(1, 2)]
        files[f"leaflets/pdf{n}.pdf"] = pdf(pages)
    files["letters/locked-for-editing.pdf"] = locked_pdf(pdf([[prose("owner-only", 8)]]), password="")
    files["leaflets/readme.md"] = prose("readme").encode()
    for n in range(4):
        files[f"leaflets/page{n}.html"] = html(prose(f"page{n}"))
    files["leaflets/latin.htm"] = html(f"{prose('latin')} {french}", charset="iso-8859-1")
    files["leaflets/slides.pptx"] = pptx("Title", prose("slides"), "Notes below.")
    files["leaflets/book.epub"] = epub([prose("chapter-one"), prose("chapter-two")])
    notes = [["id", "ward", "note"], *([str(n), f"w{n}", prose(f"csv-{n}")] for n in range(2))]
    files["exports/notes.csv"] = table(notes).encode()
    files["exports/semicolon.csv"] = table(
        [["id", "Befund"], *([str(n), f"{prose(f'semicolon-{n}')} Grüße, Ärztin"] for n in range(2))], delimiter=";"
    ).encode("cp1252")
    files["exports/tabs.tsv"] = table([["id", "comment"], ["1", prose("tabs-0")]], delimiter="\t").encode()
    files["exports/book.xlsx"] = xlsx(
        {"Notes": [["id", "story"], *([n, prose(f"sheet-{n}")] for n in range(2))], "Sums": [["a", "b"], [1, 2]]}
    )
    files["exports/list.json"] = json.dumps({"data": [{"body": prose(f"json-{n}"), "n": n} for n in range(2)]}).encode()
    line = json.dumps({"text": prose("lines-0"), "site": "north"})
    files["exports/lines.jsonl"] = f"{line}\nnot json\n".encode()
    files["exports/lines.jsonl.gz"] = gzip.compress(json.dumps({"note": {"body": prose("gzip-0")}}).encode())
    files["exports/rows.parquet"] = parquet_bytes([{"content": prose("parquet-0"), "n": 1}])
    files["mail/first.eml"] = eml("Hello", prose("mail-first"))
    files["mail/second.eml"] = eml("Again", prose("mail-second"), attached={"scan.pdf": b"x", "photo.jpg": b"y"})
    pages = {
        "leaflet.pdf": pdf([[prose("attached-pdf", 8)]]),
        "pack.zip": zipped({"in.txt": prose("attached-zip").encode()}),
    }
    forwarded = eml("Before", prose("mail-forwarded"), attached={"../../letter.docx": docx([prose("attached-word")])})
    files["mail/third.eml"] = eml("With files", prose("mail-third"), attached=pages, forwarded=forwarded)
    files["pack.zip"] = zipped({"in.txt": prose("zip-text").encode(), "deep/in.docx": docx([prose("zip-word")])})
    members = {"in.pdf": pdf([[prose("tar-pdf", 8)]]), "../../escaped.txt": b"Escaped words."}
    files["pack.tar.gz"] = tarred(members, {"link.txt": "/etc/passwd"})
    files |= damaged_files()
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def damaged_files() -> dict[str, bytes]:
    """Files that cannot be read."""
    return {
        ".hidden.txt": b"Hidden words.",
        "letters/empty.txt": b"",
        "letters/spaces.txt": b" \n \n",
        "letters/damaged.docx": docx([prose("lost")])[:900],
        "letters/locked.docx": bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 2000,
        "letters/program.txt": bytes(range(256)) * 20,
        "leaflets/locked.pdf": locked_pdf(pdf([[prose("secret", 8)]]), password="secret"),
        "leaflets/damaged.pdf": b"%PDF-1.4\nno more than this",
        "leaflets/scan.pdf": pdf([[]]),
        "letters/old.doc": bytes.fromhex("d0cf11e0a1b11ae1"),
        "leaflets/photo.jpg": b"\xff\xd8\xff\xe0",
        "exports/numbers.csv": b"a,b\n1,2\n3,4\n",
        "exports/damaged.jsonl.gz": gzip.compress(b'{"text": "x"}\n' * 3000)[:12],
        "locked.zip": locked_zip({"a.txt": b"Locked words.", "b.docx": docx([prose("locked")])}),
        "broken.zip": b"PK\x03\x04 and nothing more",
    }
