"""Texts of a user's folder: read where they are if they can be, or else converted beside the domain file."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt.corpus.grouping import COLUMNS
from minigpt.corpus.localfiles import rows_and_documents
from minigpt.corpus.rows import SUFFIXES, files_in
from minigpt.corpus.task_files import TaskFile, TaskFiles
from minigpt.documents.base import Skipped
from minigpt.documents.convert import FileRead, Reading, convert, reasons
from minigpt.documents.kinds import kind_of
from minigpt.documents.scan import UNKNOWN, listed
from minigpt.domain.config import SourceConfig
from minigpt.errors import CorpusError
from minigpt.progress import SILENT, Reporter

DECLARED = {"corpus_train": "train", "corpus_heldout": "heldout", "corpus_dev": "dev", "corpus_other": "other"}
# Columns that the rest of minigpt reads, beside the text.
KEPT = ("source", "license", *COLUMNS)
NO_TASKS = TaskFiles()
SPLITS_DECLARED = "the folder declares its splits (corpus_*.jsonl), so nothing else is read"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTexts:
    """Texts of a folder in a form that a domain file can name.

    Attributes:
        file: The folder as the domain file names it.
        reading: What was read, and what was left out.
        converted: The folder with the converted texts; None if the texts are read where they are.
        tasks: Files of the folder that are tasks with free answers, not text.
    """

    file: str
    reading: Reading
    converted: Path | None = None
    tasks: tuple[TaskFile, ...] = ()


def own_texts(
    folder: Path,
    target: Path,
    *,
    column: str | None = None,
    group_by: str | None = None,
    questions: Sequence[Path] = (),
    tasks: TaskFiles = NO_TASKS,
    reporter: Reporter = SILENT,
) -> OwnTexts:
    """Read the texts of a folder; convert them if a file is neither text, JSON Lines nor Parquet in its plainest form.

    Texts between which tasks lie are converted too, so that a domain file can name them without the tasks.

    Args:
        folder: The folder.
        target: The domain file, beside which converted texts lie in a folder `NAME.texts`.
        column: Column of the text in tables (None: found in each).
        group_by: Column that is kept beside the usual ones.
        questions: Files of the folder that hold questions.
        tasks: Files of the folder that look like tasks.
        reporter: Receives progress.

    Raises:
        ConfigError: A package is missing that a file needs.
        CorpusError: Nothing can be read.
    """
    without = [*(path.relative_to(folder).as_posix() for path in questions), *tasks.files]
    if column is None and not tasks.files and (reading := read_in_place(folder, without)) is not None:
        check_texts(folder, reading)
        return OwnTexts(file=str(folder), reading=reading)
    texts = texts_folder(target)
    keep = [*KEPT, group_by] if group_by else KEPT
    reading = convert(folder, texts, column=column, keep=keep, without=without, reporter=reporter)
    reading = replace(reading, skipped=(*reading.skipped, *tasks.skipped))
    try:
        check_texts(folder, reading)
    except CorpusError:
        shutil.rmtree(texts, ignore_errors=True)
        raise
    return OwnTexts(file=texts.name, reading=reading, converted=texts, tasks=tasks.tasks)


def texts_folder(target: Path) -> Path:
    """Return the folder beside a domain file that converted texts lie in."""
    return target.with_name(f"{target.stem}.texts")


def read_in_place(folder: Path, without: Collection[str]) -> Reading | None:
    """Read every file of a folder as a build would; None if one has to be converted.

    Args:
        folder: The folder.
        without: Files of the folder that are not to be read.
    """
    files: list[FileRead] = []
    skipped: list[Skipped] = []
    for item in listed(folder):
        if isinstance(item, Skipped):
            skipped.append(item)
        elif kind_of(item.file) is None:
            skipped.append(Skipped(file=item.file, reason=UNKNOWN))
        elif not item.file.lower().endswith(SUFFIXES):
            return None
        elif item.file not in without:
            try:
                read = plain_file(folder, item.file)
            except CorpusError:
                return None
            if read.documents:
                files.append(read)
            else:
                skipped.append(Skipped(file=item.file, reason="no text in it"))
    return Reading(files=tuple(files), skipped=tuple(skipped))


def plain_file(folder: Path, file: str) -> FileRead:
    """Read one file as a build would.

    Raises:
        CorpusError: It cannot be read.
    """
    documents = empty = size = 0
    path = folder / file if folder.is_dir() else folder
    for _, passages in rows_and_documents(SourceConfig(name=folder.name, file=str(path)), path):
        lengths = [len(passage.text.encode()) for passage in passages]
        documents, empty, size = documents + bool(lengths), empty + (not lengths), size + sum(lengths)
    kind = kind_of(file)
    notes = (f"rows left out, because 'text' holds no text: {empty:,}",) if empty and documents else ()
    column = "text" if kind is not None and kind.gives == "table" else ""
    return FileRead(
        file=file, kind=kind.name if kind else "", documents=documents, bytes=size, column=column, notes=notes
    )


def read_declared(
    folder: Path, files: Sequence[Path], questions: Sequence[Path], tasks: TaskFiles = NO_TASKS
) -> Reading:
    """Read a folder that declares its splits; every other file is left out.

    Args:
        folder: The folder.
        files: Its files of text.
        questions: Its files of questions.
        tasks: Its files that look like tasks.

    Raises:
        CorpusError: A file cannot be read.
    """
    used = {path.name for path in (*files, *questions)}
    others = (
        item for item in listed(folder) if item.file.partition("/")[0] not in used and item.file not in tasks.files
    )
    skipped = (
        item if isinstance(item, Skipped) else Skipped(file=item.file, reason=SPLITS_DECLARED) for item in others
    )
    read = (plain_file(folder, item.relative_to(folder).as_posix()) for path in files for item in files_in(path))
    return Reading(files=tuple(read), skipped=(*skipped, *tasks.skipped))


def check_texts(folder: Path, reading: Reading) -> None:
    """Refuse a folder in which nothing can be read.

    Raises:
        CorpusError: There is no text; the message gives the reasons.
    """
    if reading.documents:
        return
    groups = reasons(reading.skipped)
    why = "; ".join(
        f"{files[0]}{f' and {len(files) - 1} more' if files[1:] else ''}: {reason}" for reason, files in groups.items()
    )
    raise CorpusError(f"{folder} holds no text that can be read{f' ({why})' if why else ''}.")


def declared_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the files of a folder that declare a split, or folders of such files, and the files that hold questions.

    A single file declares nothing.

    Raises:
        CorpusError: There is no such folder or file.
    """
    if folder.is_file():
        return [], []
    if not folder.is_dir():
        raise CorpusError(f"No such folder: {folder}. Give the folder that holds your text.")
    splits = (path for path in folder.glob("corpus_*") if path.suffix == ".jsonl" or path.is_dir())
    declared = sorted(path for path in splits if path.stem in DECLARED)
    return declared, sorted(folder.glob("mcq_*.jsonl"))
