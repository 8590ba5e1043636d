"""Word documents with changes that await approval, with content controls and with what is no text of the document."""

from __future__ import annotations

import io
import zipfile

from minigpt.documents import word
from minigpt.documents.base import Source
from tests.support import mixed


def text_with(markup: str) -> str:
    """Text of a document with one paragraph MARK and more markup below it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(mixed.docx(["MARK"]))) as old, zipfile.ZipFile(stream, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename == "word/document.xml":
                data = data.replace(b"<w:sectPr", markup.encode() + b"<w:sectPr", 1)
            new.writestr(item, data)
    content = stream.getvalue()
    file = Source(file="a.docx", size=len(content), opener=lambda: io.BytesIO(content))
    return str(next(iter(word.read(file)))["text"])


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def control(content: str, properties: str = "") -> str:
    return f"<w:sdt><w:sdtPr>{properties}</w:sdtPr><w:sdtContent>{content}</w:sdtContent></w:sdt>"


def test_deleted_and_moved_text_is_left_out_and_inserted_text_is_kept() -> None:
    change = (
        '<w:p><w:ins w:id="1" w:author="a"><w:r><w:t>Inserted words</w:t></w:r></w:ins>'
        '<w:del w:id="2" w:author="a"><w:r><w:delText>Deleted words</w:delText></w:r></w:del></w:p>'
        '<w:p><w:moveFrom w:id="3" w:author="a"><w:r><w:t>Moved words</w:t></w:r></w:moveFrom></w:p>'
        '<w:p><w:moveTo w:id="4" w:author="a"><w:r><w:t>Moved words</w:t></w:r></w:moveTo></w:p>'
    )
    assert text_with(change) == "MARK\nInserted words\nMoved words"


def test_content_controls_are_read_as_blocks_rows_cells_and_in_lines() -> None:
    cell = f"<w:tc>{paragraph('{}')}</w:tc>"
    row = f"<w:tr>{cell.format('One')}{control(cell.format('Two'))}</w:tr>"
    last = f"<w:tr>{cell.format('Three')}</w:tr>"
    table = f"<w:tbl>{row}{control(last)}</w:tbl>"
    line = f"<w:p><w:r><w:t>Before </w:t></w:r>{control('<w:r><w:t>inside</w:t></w:r>')}</w:p>"
    nested = control(control(paragraph("Findings")) + table)
    wrapped = f'<w:customXml w:element="x">{paragraph("Wrapped")}</w:customXml>'
    assert text_with(nested + line + wrapped) == "MARK\nFindings\nOne | Two\nThree\nBefore inside\nWrapped"


def test_hints_of_forms_and_tables_of_contents_are_no_text() -> None:
    hint = control(paragraph("Click here to enter text."), "<w:showingPlcHdr/>")
    inline = f"<w:p><w:r><w:t>Name:</w:t></w:r>{control('<w:r><w:t>Enter it</w:t></w:r>', '<w:showingPlcHdr/>')}</w:p>"
    gallery = '<w:docPartObj><w:docPartGallery w:val="{}"/></w:docPartObj>'
    contents = control(paragraph("Findings 3"), gallery.format("Table of Contents"))
    cover = control(paragraph("Title"), gallery.format("Cover Pages"))
    assert text_with(hint + inline + contents + cover) == "MARK\nName:\nTitle"
