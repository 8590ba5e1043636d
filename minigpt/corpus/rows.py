"""Rows of tables and Hub data sets, as dictionaries, each with its place for error messages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.errors import CorpusError, first_line
from minigpt.escaping import valid
from minigpt.parsing import Unreadable, load_json

TEXT_SUFFIXES = (".txt", ".md")
TABLE_SUFFIXES = (".jsonl", ".parquet")
SUFFIXES = TEXT_SUFFIXES + TABLE_SUFFIXES

# Lines of a JSON Lines file that give no row.
NO_ROW = (b"", b"null", b"\xef\xbb\xbf", b"\xef\xbb\xbfnull")
# Field of a row that stands for the top-level folder of its file.
FOLDER = "folder"

Row = Mapping[str, Any]
Located = tuple[str, Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A run of whole lines of a JSON Lines file.

    Attributes:
        start: Byte at which it begins.
        stop: Byte at which it ends; None for the end of the file.
        line: Number of its first line.
        row: Number of its first row; empty lines are none.
    """

    start: int = 0
    stop: int | None = None
    line: int = 1
    row: int = 1


WHOLE = Span()


def files_in(path: Path, *, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """List a file, or the readable files of a folder and its subfolders in the order of their names.

    Args:
        path: The file or folder. Files and folders whose name starts with a dot are left out.
        suffixes: Suffixes of readable files.

    Raises:
        CorpusError: There is no such path, or no readable file.
    """
    if not os.path.exists(path):  # unlike the method, it is false for names that no system has
        raise CorpusError(f"No such file or folder: {path}. Check the path in the domain file.")
    wanted = ", ".join(suffixes)
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise CorpusError(f"Cannot read {path}: expected one of {wanted}.")
        return [path]
    readable = sorted(item for item in path.rglob("*") if item.is_file() and item.suffix.lower() in suffixes)
    visible = [item for item in readable if not any(part.startswith(".") for part in item.relative_to(path).parts)]
    if not visible:
        raise CorpusError(f"The folder {path} holds no {wanted} files.")
    return visible


def read_rows(path: Path, span: Span = WHOLE) -> Iterator[Located]:
    """Yield the rows of a .jsonl or .parquet file as (place, row).

    Args:
        path: The file.
        span: Part of a .jsonl file to read.

    Raises:
        CorpusError: A line is not a JSON object, or the file is not a Parquet file. The message names the line.
    """
    yield from (parquet_rows(path) if path.suffix.lower() == ".parquet" else jsonl_rows(path, span))


def spans(path: Path, size: int) -> Iterator[Span]:
    """Cut a JSON Lines file into spans of about `size` bytes."""
    start = position = 0
    line = row = lines = rows = 1
    with path.open("rb") as stream:
        for content in stream:
            position, lines = position + len(content), lines + 1
            rows += content.strip() not in NO_ROW
            if position - start >= size:
                yield Span(start=start, stop=position, line=line, row=row)
                start, line, row = position, lines, rows
    if position > start:
        yield Span(start=start, stop=position, line=line, row=row)


def jsonl_rows(path: Path, span: Span = WHOLE) -> Iterator[Located]:
    """Yield the objects of a JSON Lines file as (place, row); skip empty lines."""
    with path.open("rb") as stream:
        stream.seek(span.start)
        position = span.start
        for number, line in enumerate(stream, start=span.line):
            if span.stop is not None and position >= span.stop:
                return
            position += len(line)
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                row = load_json(text) if text else None
            except UnicodeDecodeError:
                raise CorpusError(f"{where}: not UTF-8 text. Save the file as UTF-8.") from None
            except Unreadable as error:
                raise CorpusError(f"{where}: not valid JSON ({error}).") from None
            if row is not None and not isinstance(row, dict):
                raise CorpusError(f'{where}: expected an object such as {{"text": "..."}}, found {type(row).__name__}.')
            if row is not None:
                yield where, without_surrogates(row) if "\\ud" in text.lower() else row


def without_surrogates(value: Any) -> Any:
    """Return a JSON value whose texts can be written as UTF-8: a lone surrogate becomes `�`."""
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {valid(key): without_surrogates(item) for key, item in value.items()}
    return value


def parquet_rows(path: Path) -> Iterator[Located]:
    """Yield the rows of a Parquet file as (place, row), read in batches."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # text that is not UTF-8 is a ValueError
        raise CorpusError(f"{path} is not a readable Parquet file ({first_line(error)}).") from None


def hub_rows(
    name: str, *, subset: str | None, split: str | None, revision: str | None, limit: int | None
) -> Iterator[Located]:
    """Yield the rows of a data set on the Hugging Face Hub, or of a local folder laid out like one, as (place, row).

    Args:
        name: Name of the data set, or the folder.
        subset: Subset of the data set; None for the default.
        split: Split of the data set; None for `train`.
        revision: Revision of the data set; None for the default.
        limit: Number of rows to yield; None for all. With a limit the data is streamed, so that a large data set is
            not downloaded for a small sample.

    Raises:
        CorpusError: There is no network or no such data set, or the data set needs its own code to load.
    """
    import datasets

    try:
        data = datasets.load_dataset(
            name, subset, split=split or "train", revision=revision, streaming=limit is not None
        )
        for number, row in enumerate(data, start=1):
            yield f"{name}, row {number}", row
            if number == limit:
                return
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise CorpusError(
            f"Cannot load {name} from the Hugging Face Hub: {first_line(error)}. "
            "Check its name, subset and split, go online, or leave this source out."
        ) from None


def value_of(row: Row, column: str, where: str, *, key: str) -> Any:
    """Return the value at `column` of a row.

    Args:
        row: The row.
        column: Name of a field. A dot goes into nested fields.
        where: Place of the row, for the error message.
        key: Key of the domain file's `columns` that maps to the field, for the error message.

    Raises:
        CorpusError: There is no such field. The message lists the fields and the mapping that would fix it.
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = ", ".join(map(str, row)) or "none"
            raise CorpusError(f"{where}: no field {column!r}; the fields are {known}. {hint(row, key)}")
        value = value[part]
    return value


def hint(row: Row, key: str) -> str:
    """Say how a domain file maps a row's longest text to `key`; only a mapping that can be read is named.

    Args:
        row: The row.
        key: Key of the domain file's `columns`.
    """
    if texts := dict(_texts(row, "")):
        return f"Map it in the domain file, e.g. columns: {{{key}: {max(texts, key=lambda name: texts[name])}}}."
    return f"None of them holds text. Write the texts into a field {key!r} first."


def _texts(value: Mapping[str, Any], before: str) -> Iterator[tuple[str, int]]:
    """Yield the dotted name and the length of every field that :func:`text_of` reads."""
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _texts(item, f"{before}{name}.")
        elif isinstance(item, str) or (isinstance(item, list) and item and all(isinstance(x, str) for x in item)):
            yield f"{before}{name}", len(item) if isinstance(item, str) else sum(map(len, item))


def text_of(value: Any, where: str, *, key: str) -> str:
    """Return a string as it is, or a list of strings joined by line ends.

    Raises:
        CorpusError: The value is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    raise CorpusError(f"{where}: {key} must be text, found {type(value).__name__}.")


def is_wanted(row: Row, where: Mapping[str, Sequence[str]], without: Mapping[str, Sequence[str]]) -> bool:
    """Return True if a row has one of the values of every column in `where`, and none of those in `without`.

    Args:
        row: The row.
        where: Values of columns that the row must have. A value that ends in `*` stands for all that begin so.
        without: Values of columns that the row must not have.
    """
    return all(_has(row, column, values) for column, values in where.items()) and not any(
        _has(row, column, values) for column, values in without.items()
    )


def _has(row: Row, column: str, values: Sequence[str]) -> bool:
    """Return True if the row's field is one of the values. White space around either does not count."""
    text = field_text(row, column).strip()
    wanted = map(str.strip, values)
    return any(text.startswith(value[:-1]) if value.endswith("*") else text == value for value in wanted)


def name_in(value: Any) -> str:
    """Return the value of a field that names something, such as `source`, as text; empty if it names nothing.

    White space around it goes, so that two rows whose sources differ by nothing else belong together. The number 0 is
    a name like others.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value).strip() if value or is_number else ""


def field_text(row: Row, column: str) -> str:
    """Return a field as text, empty where there is none. A dot goes into nested fields."""
    value: Any = row.get(column)
    if value is None and "." in column:
        value = row
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)
