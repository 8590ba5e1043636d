"""Texts of a user's folder: read where they are if they can be, or else converted beside the domain file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt.corpus.grouping import COLUMNS
from minigpt.corpus.localfiles import rows_and_documents
from minigpt.corpus.question_files import QuestionFile, QuestionFiles
from minigpt.corpus.rows import SUFFIXES, files_in
from minigpt.corpus.task_files import TaskFile, TaskFiles
from minigpt.documents.base import Skipped
from minigpt.documents.convert import FileRead, Reading, Tally, convert, reasons
from minigpt.documents.kinds import kind_of, unread_reason
from minigpt.documents.scan import listed
from minigpt.domain.config import SourceConfig
from minigpt.errors import CorpusError
from minigpt.progress import SILENT, Reporter

DECLARED = {"corpus_train": "train", "corpus_heldout": "heldout", "corpus_dev": "dev", "corpus_other": "other"}
# Columns that the rest of minigpt reads, beside the text.
KEPT = ("source", "license", *COLUMNS)
NO_TASKS = TaskFiles()
NO_QUESTIONS = QuestionFiles()
# Advice of errors about rows on a domain file.
MAPPED = r"Map it in the domain file, e\.g\. columns: \{text: (.+?)\}\."
SPLITS_DECLARED = "the folder declares its splits (corpus_*.jsonl), so nothing else is read"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTexts:
    """Texts of a folder in a form that a domain file can name.

    Attributes:
        file: The folder as the domain file names it.
        reading: What was read, and what was left out.
        converted: The folder with the converted texts; None if the texts are read where they are.
        tasks: Files of the folder that are tasks with free answers, not text.
        questions: Files of the folder that are multiple-choice questions, not text.
        column: Column of the text in tables that are read where they are; empty for `text`.
    """

    file: str
    reading: Reading
    converted: Path | None = None
    tasks: tuple[TaskFile, ...] = ()
    questions: tuple[QuestionFile, ...] = ()
    column: str = ""


def own_texts(
    folder: Path,
    target: Path,
    *,
    column: str | None = None,
    group_by: str | None = None,
    questions: QuestionFiles = NO_QUESTIONS,
    tasks: TaskFiles = NO_TASKS,
    reporter: Reporter = SILENT,
) -> OwnTexts:
    """Read the texts of a folder; convert them if a file is neither text, JSON Lines nor Parquet in its plainest form.

    Texts between which questions or tasks lie are converted too, so that a domain file can name them without these.

    Args:
        folder: The folder.
        target: The domain file, beside which converted texts lie in a folder `NAME.texts`.
        column: Column of the text in tables (None: found in each).
        group_by: Column that is kept beside the usual ones.
        questions: Files of the folder that look like questions.
        tasks: Files of the folder that look like tasks.
        reporter: Receives progress.

    Raises:
        ConfigError: A package is missing that a file needs.
        CorpusError: Nothing can be read.
    """
    without = (*questions.files, *tasks.files)
    if column is None and not without and (reading := read_in_place(folder)) is not None:
        check_texts(folder, reading)
        return OwnTexts(file=str(folder), reading=reading)
    texts = texts_folder(target)
    keep = [*KEPT, group_by] if group_by else KEPT
    reading = convert(folder, texts, column=column, keep=keep, without=without, reporter=reporter)
    reading = with_skipped(reading, (*questions.skipped, *tasks.skipped))
    try:
        check_texts(folder, reading)
    except CorpusError:
        shutil.rmtree(texts, ignore_errors=True)
        raise
    return OwnTexts(file=texts.name, reading=reading, converted=texts, tasks=tasks.tasks, questions=questions.sets)


def with_skipped(reading: Reading, skipped: Sequence[Skipped]) -> Reading:
    """Add files that were passed over as something else, because they cannot be read as that either."""
    tally = reading.tally
    tally = replace(tally, other=tally.other - len(skipped), left_out=tally.left_out + len(skipped))
    return replace(reading, skipped=(*reading.skipped, *skipped), tally=tally)


def texts_folder(target: Path) -> Path:
    """Return the folder beside a domain file that converted texts lie in."""
    return target.with_name(f"{target.stem}.texts")


def read_in_place(folder: Path) -> Reading | None:
    """Read every file of a folder as a build would; None if one has to be converted."""
    files: list[FileRead] = []
    skipped: list[Skipped] = []
    for item in listed(folder):
        if isinstance(item, Skipped):
            skipped.append(item)
        elif kind_of(item.file) is None:
            skipped.append(Skipped(file=item.file, reason=unread_reason(item.file)))
        elif not item.file.lower().endswith(SUFFIXES):
            return None
        else:
            try:
                read = plain_file(folder, item.file)
            except CorpusError:
                return None
            if read.documents:
                files.append(read)
            else:
                skipped.append(Skipped(file=item.file, reason="no text in it"))
    return counted(files, skipped)


def counted(files: Sequence[FileRead], skipped: Sequence[Skipped], other: int = 0) -> Reading:
    """Return a reading of files that lie in the folder itself, with their numbers."""
    tally = Tally(listed=len(files) + len(skipped) + other, read=len(files), other=other, left_out=len(skipped))
    return Reading(files=tuple(files), skipped=tuple(skipped), tally=tally)


def plain_file(folder: Path, file: str, column: str = "text") -> FileRead:
    """Read one file as a build would.

    Args:
        folder: The folder, or the file itself.
        file: The file inside the folder.
        column: Column of the text, if it is a table.

    Raises:
        CorpusError: It cannot be read.
    """
    documents = empty = size = 0
    path = folder / file if folder.is_dir() else folder
    source = SourceConfig(name=folder.name, file=str(path), columns={"text": column})
    for _, passages in rows_and_documents(source, path):
        lengths = [len(passage.text.encode()) for passage in passages]
        documents, empty, size = documents + bool(lengths), empty + (not lengths), size + sum(lengths)
    kind = kind_of(file)
    notes = (f"rows left out, because {column!r} holds no text: {empty:,}",) if empty and documents else ()
    return FileRead(
        file=file,
        kind=kind.name if kind else "",
        documents=documents,
        bytes=size,
        column=column if kind is not None and kind.gives == "table" else "",
        notes=notes,
    )


def read_declared(
    folder: Path,
    files: Sequence[Path],
    questions: QuestionFiles = NO_QUESTIONS,
    tasks: TaskFiles = NO_TASKS,
    *,
    column: str | None = None,
) -> Reading:
    """Read a folder that declares its splits; every other file is left out.

    Args:
        folder: The folder.
        files: Its files of text, or folders of such files.
        questions: Its files that look like questions.
        tasks: Its files that look like tasks.
        column: Column of the text in tables (None: `text`).

    Raises:
        CorpusError: A file cannot be read.
    """
    texts = [item.relative_to(folder).as_posix() for path in files for item in files_in(path)]
    used = {*texts, *questions.files, *tasks.files}
    skipped = [
        item if isinstance(item, Skipped) else Skipped(file=item.file, reason=SPLITS_DECLARED)
        for item in listed(folder)
        if item.file not in used
    ]
    try:
        read = [plain_file(folder, file, column or "text") for file in texts]
    except CorpusError as error:
        # There is no domain file yet to map a column in.
        raise CorpusError(re.sub(MAPPED, r"Name the column: --text-column \1.", str(error))) from None
    reading = counted(read, skipped, len(questions.files) + len(tasks.files))
    return with_skipped(reading, (*questions.skipped, *tasks.skipped))


def check_texts(folder: Path, reading: Reading) -> None:
    """Refuse a folder in which nothing can be read.

    Raises:
        CorpusError: There is no text; the message gives the reasons.
    """
    if reading.documents:
        return
    if not reading.tally.listed:
        raise CorpusError(f"The folder {folder} is empty. Give the folder that holds your text.")
    groups = reasons(reading.skipped)
    why = "; ".join(
        f"{files[0]}{f' and {len(files) - 1} more' if files[1:] else ''}: {reason}" for reason, files in groups.items()
    )
    other = " beside questions and prompts, which only measure" if reading.tally.other else ""
    raise CorpusError(f"{folder} holds no text that can be read{other}{f' ({why})' if why else ''}.")


def declared_files(folder: Path) -> list[Path]:
    """List the files of a folder that declare a split, or folders of such files.

    A single file declares nothing.

    Raises:
        CorpusError: There is no such folder or file.
    """
    if folder.is_file():
        return []
    if not folder.is_dir():
        raise CorpusError(f"No such folder: {folder}. Give the folder that holds your text.")
    splits = (path for path in folder.glob("corpus_*") if path.suffix == ".jsonl" or path.is_dir())
    return sorted(path for path in splits if path.stem in DECLARED)
