"""Documents of local files: text files and the rows of tables, whole files or spans of long ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minigpt.corpus.prose import MAX_CHARACTERS, documents_of
from minigpt.corpus.rows import (
    FOLDER,
    TABLE_SUFFIXES,
    WHOLE,
    Row,
    Span,
    files_in,
    is_wanted,
    name_in,
    read_rows,
    text_of,
    value_of,
)
from minigpt.domain.config import SourceConfig
from minigpt.errors import CorpusError
from minigpt.escaping import valid
from minigpt.types import Document


def file_documents(source: SourceConfig, path: Path) -> Iterator[Document]:
    """Yield the documents of a file or folder. A text file is one document; each row of a table is one."""
    for _, documents in rows_and_documents(source, path):
        yield from documents


def rows_and_documents(source: SourceConfig, path: Path) -> Iterator[tuple[Row, Iterator[Document]]]:
    """Yield every wanted row of a file or folder with the passages of its text; a text file counts as one row.

    Args:
        source: The source, which says which rows are wanted.
        path: Its file or folder.

    Yields:
        The row, with the top-level folder of its file as the field `folder`, and its passages.
    """
    for file in files_in(path):
        yield from rows_of_file(source, path, file)


def rows_of_file(
    source: SourceConfig, path: Path, file: Path, *, span: Span = WHOLE
) -> Iterator[tuple[Row, Iterator[Document]]]:
    """Yield the wanted rows of one file as :func:`rows_and_documents` does.

    Args:
        source: The source, which says which rows are wanted.
        path: Its file or folder.
        file: The file.
        span: Part of a JSON Lines file to read.
    """
    inside = valid(file.relative_to(path).as_posix() if path.is_dir() else file.name)
    folder = {FOLDER: inside.partition("/")[0] if "/" in inside else ""}
    if file.suffix.lower() in TABLE_SUFFIXES:
        for number, (where, row) in enumerate(read_rows(file, span), start=span.row):
            fields = {**row, **folder}
            if is_wanted(fields, source.where, source.without):
                yield fields, row_documents(row, where, source, fallback=f"{source.name}:{inside}:{number}")
    elif is_wanted(folder, source.where, source.without):
        paragraphs = [re.sub(r"[ \t]*\n[ \t]*", " ", block) for block in blocks(file)]
        yield folder, documents_of(f"{source.name}:{inside}", paragraphs, license=source.license)


def blocks(file: Path) -> list[str]:
    """Return the paragraphs of a text file, which empty lines separate. Single line ends stay in them.

    Raises:
        CorpusError: The file is not UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise CorpusError(f"{file}: not UTF-8 text. Save the file as UTF-8.") from None
    return [block.strip() for block in re.split(r"\n[ \t]*\n", text) if block.strip()]


def row_documents(row: Row, where: str, source: SourceConfig, *, fallback: str) -> Iterator[Document]:
    """Yield the passages of one row, none if it has no text. Rows that name the same `source` are one document.

    Args:
        row: The row.
        where: Place of the row, for error messages.
        source: The source that the row belongs to.
        fallback: Name of the document if the row gives none.
    """
    column = source.columns.get("text", "text")
    text = text_of(value_of(row, column, where, key="text"), where, key="text").strip()
    if not text:
        return
    name = "" if source.row_documents else optional_text(row, source.columns, "source", where)
    name = name or fallback
    license = optional_text(row, source.columns, "license", where) or source.license
    if "ends" in source.columns:  # passages that were cut before
        ends = bool(value_of(row, source.columns["ends"], where, key="ends"))
        yield Document(text=text, source=name, license=license, ends=ends)
    elif len(text) <= MAX_CHARACTERS:
        yield Document(text=text, source=name, license=license)
    else:
        yield from documents_of(name, text.split("\n"), license=license)


def optional_text(row: Row, columns: Mapping[str, Any], key: str, where: str) -> str:
    """Return a field as text, empty if it is missing. A field that the domain file maps must exist."""
    return name_in(value_of(row, columns[key], where, key=key) if key in columns else row.get(key))
