"""Files of a user's folder that hold multiple-choice questions: by their name, or by their rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from minigpt.corpus.guarded_questions import unguarded
from minigpt.corpus.likeness import files_like, free_name
from minigpt.corpus.rows import Row
from minigpt.corpus.sources import read_question_set
from minigpt.documents.base import Skipped
from minigpt.domain.config import QuestionsConfig
from minigpt.errors import ConfigError, CorpusError

# Beginning of the name of a file that holds questions, whatever its rows look like.
PREFIX = "mcq_"
# Everything else in the name of a set becomes a hyphen.
BANNED = r"[^\w .-]+"
DEV = "dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionFile:
    """A file that is a question set.

    Attributes:
        config: Its entry in the domain file.
        file: Its path inside the folder.
        questions: Number of its questions.
        unguarded: Number of those that are too short to be looked for in training text.
    """

    config: QuestionsConfig
    file: str
    questions: int
    unguarded: int = 0

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.config.file or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionFiles:
    """Files of a folder that look like question sets.

    Attributes:
        sets: Those that can be read as question sets.
        skipped: Those that cannot, with the reason.
    """

    sets: tuple[QuestionFile, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of all of them inside the folder."""
        return (*(item.file for item in self.sets), *(item.file for item in self.skipped))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the question sets."""
        return tuple(item.config.name for item in self.sets)


def question_files(folder: Path, without: Collection[Path] = ()) -> QuestionFiles:
    """Find the files of a folder and its subfolders that hold multiple-choice questions, and read them.

    Args:
        folder: The folder.
        without: Files and folders that hold something else, such as the text of a split.
    """
    sets: list[QuestionFile] = []
    skipped: list[Skipped] = []
    for path in files_like(folder, without, _is_question, PREFIX):
        file = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
        taken = {item.config.name for item in sets}
        name = free_name(path.stem.removeprefix(PREFIX), taken, banned=BANNED, default="questions")
        # Only a set that its owner calls so may guide choices.
        config = QuestionsConfig(name=name, file=str(path), role="dev" if name == DEV else "test")
        try:
            read = read_question_set(config, root=folder)
        except (ConfigError, CorpusError) as error:
            reason = str(error).replace(f"{path}, ", "").partition(" Map it in the domain file")[0]
            skipped.append(Skipped(file=file, reason=f"it looks like questions, but {reason}"))
        else:
            count, short = len(read.questions), unguarded(read) if config.role == "test" else 0
            sets.append(QuestionFile(config=config, file=file, questions=count, unguarded=short))
    return QuestionFiles(sets=tuple(sets), skipped=tuple(skipped))


def questions_sentence(sets: Collection[QuestionFile]) -> str:
    """Say which files are questions and what is done with them; empty where there is none."""
    if not sets:
        return ""
    names = ", ".join(f"{item.config.name} ({item.questions:,} of {item.file})" for item in sets)
    noun = "one set" if len(sets) == 1 else f"{len(sets)} sets"
    short = sum(item.unguarded for item in sets)
    remark = (
        f" Text that holds one of {short:,} of them is trained on all the same: they are too short or too common to be "
        "looked for."
    )
    return (
        f"Multiple-choice questions became {noun}, not text: {names}. They only measure; nothing is trained on them."
        f"{remark if short else ''}"
    )


def _is_question(row: Row) -> bool:
    """Return True if a row has a question, choices, an answer and no text of its own."""
    listed = isinstance(row.get("question"), str) and isinstance(row.get("choices"), list)
    return listed and "answer" in row and "text" not in row
