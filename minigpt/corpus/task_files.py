"""Files of a user's folder that hold tasks with free answers: JSON Lines with a prompt and its right answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from minigpt.corpus.likeness import files_like, free_name
from minigpt.corpus.rows import Row
from minigpt.corpus.tasks import MEASURED, read_task
from minigpt.documents.base import Skipped
from minigpt.domain.tasks import LONGEST, TaskConfig
from minigpt.errors import CorpusError
from minigpt.types import AnswerTask

# Everything else in the name of a task becomes a hyphen.
BANNED = r"[^a-z0-9_-]+"
ANSWERS = ("answer", "answers")
# Words of a mean answer from which it is scored as running text and not as a fact.
LONG_ANSWER = 12
# Bytes of text that a token stands for at least, in most vocabularies and languages.
TOKEN_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile:
    """A file that is a task.

    Attributes:
        config: Its entry in the domain file.
        file: Its path inside the folder.
        prompts: Number of its prompts.
    """

    config: TaskConfig
    file: str
    prompts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFiles:
    """Files of a folder that look like tasks.

    Attributes:
        tasks: Those that can be read as tasks.
        skipped: Those that cannot, with the reason.
    """

    tasks: tuple[TaskFile, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of all of them inside the folder."""
        return (*(task.file for task in self.tasks), *(item.file for item in self.skipped))


def task_files(folder: Path, without: Collection[Path] = (), names: Collection[str] = ()) -> TaskFiles:
    """Find the files of a folder that hold prompts with answers, and read them as tasks.

    Args:
        folder: The folder.
        without: Files and folders that hold something else, such as questions.
        names: Names that are taken, such as those of question sets.
    """
    tasks: list[TaskFile] = []
    skipped: list[Skipped] = []
    for path in files_like(folder, without, _is_prompt):
        file = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
        taken = {*names, *(task.config.name for task in tasks)}
        name = free_name(path.stem.lower(), taken, banned=BANNED, default="task")
        try:
            config = TaskConfig(name=name, file=str(path))
            task = read_task(config, folder)
        except (CorpusError, ValueError) as error:
            reason = f"it looks like a task (prompt and answer), but {str(error).replace(str(path), file)}"
            skipped.append(Skipped(file=file, reason=reason))
        else:
            tasks.append(TaskFile(config=_suited(config, task), file=file, prompts=len(task.prompts)))
    return TaskFiles(tasks=tuple(tasks), skipped=tuple(skipped))


def tasks_sentence(tasks: Collection[TaskFile]) -> str:
    """Say which files are tasks and what is done with their prompts; empty where there is none."""
    if not tasks:
        return ""
    names = ", ".join(f"{task.config.name} ({task.prompts:,} prompts of {task.file})" for task in tasks)
    noun = "a task" if len(tasks) == 1 else f"{len(tasks)} tasks"
    return (
        f"Prompts with answers became {noun} with free answers, not text: {names}. A prompt that names a document as "
        f"its source goes where that goes; of the others one in {MEASURED} measures, and the rest are trained on."
    )


def _is_prompt(row: Row) -> bool:
    """Return True if a row has a prompt, an answer and no text of its own."""
    return isinstance(row.get("prompt"), str) and any(key in row for key in ANSWERS) and "text" not in row


def _suited(config: TaskConfig, task: AnswerTask) -> TaskConfig:
    """Choose length and metrics of a task by its answers: long ones are scored as running text."""
    answers = [item.answers[0] for item in task.prompts if item.answers]
    needed = max((len(answer.encode()) for answer in answers), default=0) // TOKEN_BYTES
    words = sum(len(answer.split()) for answer in answers) / max(1, len(answers))
    return TaskConfig(
        name=config.name,
        file=config.file,
        max_tokens=min(LONGEST, max(config.max_tokens, needed)),
        metrics=("token_f1", "rouge_l") if words >= LONG_ANSWER else (),
    )
