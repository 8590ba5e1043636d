"""Domain files for folders of the user's own text, as `minigpt domains new` writes them.

A folder may declare its splits: `corpus_train.jsonl`, `corpus_heldout.jsonl`, `corpus_dev.jsonl`,
`corpus_other.jsonl` (text of other sources, which is only measured), or folders of those names, as
`minigpt corpus curate` writes them. JSON Lines called `mcq_<set>.jsonl`, or with `question`, `choices` and `answer`,
become question sets; those with `prompt` and `answer` or `answers` become tasks with free answers. In any other folder
all files that can be read are text (`minigpt.corpus.ownfiles`), and documents are split for the user. Where such text
comes from several sources, one of them is kept apart (`minigpt.corpus.grouping`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt.corpus.domainfile import GENERAL_TEXT, MEASURED_ON, domain_yaml
from minigpt.corpus.grouping import propose
from minigpt.corpus.groups import Group, Proposal
from minigpt.corpus.ownfiles import OwnTexts, declared_files, own_texts, read_declared, texts_folder
from minigpt.corpus.question_files import QuestionFile, question_files
from minigpt.corpus.replacing import check_replaceable, replaced_sentence, staged
from minigpt.corpus.sources import read_source
from minigpt.corpus.task_files import TaskFile, task_files
from minigpt.documents.convert import Reading
from minigpt.domain.checks import name_problems
from minigpt.domain.config import SourceConfig, load_domain, packaged_folder
from minigpt.errors import ConfigError
from minigpt.files import path_of, write_text
from minigpt.progress import SILENT, Reporter
from minigpt.progress.stages import Stage, counted, passing

READ, SOURCES = "read", "sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """Wishes about the group of a text that is kept apart.

    Attributes:
        column: Column that tells groups apart, `folder`, or `none` to keep nothing apart (None: find one).
        apart: Value of the group to keep apart (None: the best one).
    """

    column: str | None = None
    apart: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDomain:
    """Result of :func:`new_domain`.

    Attributes:
        path: The domain file.
        apart: One sentence about the source that is kept apart, or why there is none.
        ties: Sentences on whether rows that share a source stay in one split; empty where none is kept apart by source.
        groups: Groups in the text, by the column `grouped_by`.
        grouped_by: Column that tells the groups apart; empty where there are none.
        reading: What was read of the folder, and what was left out.
        texts: Folder with the converted texts; None if they are read where they are.
        general: What was read of the folder of general text; None if there is none.
        tasks: Files of the folder that became tasks with free answers.
        questions: Files of the folder that became question sets.
        replaced: One sentence about the definition that was replaced; empty where none was.
    """

    path: Path
    apart: str
    groups: tuple[Group, ...]
    grouped_by: str
    reading: Reading
    texts: Path | None = None
    general: Reading | None = None
    tasks: tuple[TaskFile, ...] = ()
    questions: tuple[QuestionFile, ...] = ()
    replaced: str = ""
    ties: str = ""


def new_domain(
    name: str,
    folder: Path,
    *,
    output: Path,
    general: Path | None = None,
    grouped: Grouped | None = None,
    text_column: str | None = None,
    force: bool = False,
    reporter: Reporter = SILENT,
) -> NewDomain:
    """Write a domain file for the text in `folder` and check that it can be read.

    Nothing has its name before all of it is checked, so that a definition that is replaced stays if the new one fails.

    Args:
        name: The domain's name: small letters, digits, `-` and `_`.
        folder: The folder with the text, which may declare its splits (see the module's description), or one file.
        output: The file to write, or a folder for `<name>.yaml`. Paths in the file are absolute.
        general: A folder of general text. It gets a domain file `<name>-general.yaml` beside the other.
        grouped: Wishes about the group of the text in `folder` that is kept apart.
        text_column: Column of the text in tables (None: found in each).
        force: Replace a definition of the same name that is already there, with the texts that were converted for it.
        reporter: Receives progress.

    Raises:
        ConfigError: The name cannot be used, a file is already there, a package is missing that a file needs, the
            wishes contradict each other or the folder, or there is no group to keep apart as wished.
        CorpusError: The folder is missing or holds no text, or its first rows cannot be read.
    """
    target, other = targets(name, output, general=general is not None, force=force)
    written = (target, other) if general else (target,)
    replaced = replaced_sentence(written)
    reporter = counted(reporter, stages_of((name, f"{name}-general")[: len(written)]))
    with staged(written) as folder_of_new:
        proposal, texts = write_checked(
            target,
            name,
            folder,
            stage=folder_of_new,
            head=MEASURED_ON.format(general=other.name if general else "general"),
            grouped=grouped or Grouped(),
            column=text_column,
            reporter=reporter,
        )
        general_texts = None
        if general:
            _, general_texts = write_checked(
                other,
                f"{name}-general",
                general,
                stage=folder_of_new,
                head=GENERAL_TEXT,
                grouped=Grouped(),
                reporter=reporter,
            )
    groups = proposal.grouping
    return NewDomain(
        path=target,
        apart=proposal.reason,
        groups=groups.groups if groups else (),
        grouped_by=groups.column if groups else "",
        reading=texts.reading,
        texts=texts_folder(target) if texts.converted else None,
        general=general_texts.reading if general_texts else None,
        tasks=texts.tasks,
        questions=texts.questions,
        replaced=replaced,
        ties=proposal.ties,
    )


def check_wishes(folder: Path, grouped: Grouped) -> None:
    """Refuse wishes about the group that is kept apart that contradict each other, or splits that a folder declares.

    Args:
        folder: The folder with the text, or one file.
        grouped: The wishes.

    Raises:
        ConfigError: They do.
        CorpusError: The folder is missing.
    """
    if grouped.column == "none" and grouped.apart is not None:
        raise ConfigError(
            f"--group-by none keeps nothing apart, and --hold-out {grouped.apart!r} keeps a source apart: leave one of "
            "them out."
        )
    wishes = {"--group-by": grouped.column if grouped.column != "none" else None, "--hold-out": grouped.apart}
    given = " and ".join(f"{option} {value!r}" for option, value in wishes.items() if value is not None)
    if given and declared_files(folder):
        raise ConfigError(
            f"{folder} declares its splits (corpus_*.jsonl), so {given} cannot be honored: put the text to keep apart "
            "into corpus_other.jsonl and leave the option out."
        )


def stages_of(names: Sequence[str]) -> list[Stage]:
    """Return the stages of writing the definitions of these names."""
    return [Stage(name=f"{name} {part}", title=part) for name in names for part in (READ, SOURCES)]


def targets(name: str, output: Path, *, general: bool, force: bool = False) -> tuple[Path, Path]:
    """Return the domain file to write, and the one for general text.

    Args:
        name: The domain's name.
        output: The file to write, or a folder for `<name>.yaml`.
        general: True if both are written.
        force: True if definitions of one's own that are already there may be replaced.

    Raises:
        ConfigError: The name cannot be used or is that of a packaged domain, or a file is already there that may not be
            replaced.
    """
    for owner in (name, f"{name}-general")[: 2 if general else 1]:
        if problem := next(name_problems(owner, general_text=True, reserved=()), None):
            raise ConfigError(problem.removeprefix("name: "))
    if (packaged_folder() / f"{name}.yaml").is_file():
        raise ConfigError(
            f"{name!r} is a packaged domain, which yours would hide from every build here: choose another name, such "
            f"as my-{name}."
        )
    target = output if output.suffix in {".yaml", ".yml"} else output / f"{name}.yaml"
    other = target.with_name(f"{target.stem}-general.yaml")
    for path, owner in ((target, name), (other, f"{name}-general"))[: 2 if general else 1]:
        present = next((item for item in (path, texts_folder(path)) if item.exists()), None)
        if present is not None and force:
            check_replaceable(path, owner)
        elif present is not None:
            raise ConfigError(
                f"{present} is already there. Choose another name or output, or let `minigpt domains new --force` "
                "replace it if it is your definition of that name."
            )
    return target, other


def write_checked(
    target: Path,
    name: str,
    folder: Path,
    *,
    stage: Path,
    head: str,
    grouped: Grouped,
    column: str | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Proposal, OwnTexts]:
    """Write a domain file and its texts into the folder `stage`, and read the beginning of every source through it.

    Args:
        target: The place that the file will have.
        name: The domain's name.
        folder: The folder with the text, or one file.
        stage: The folder to write into.
        head: Lines about general text.
        grouped: Wishes about the group that is kept apart.
        column: Column of the text in tables (None: found in each).
        reporter: Receives progress.

    Returns:
        The group that the file keeps apart, or why there is none; and the texts of the folder.
    """
    folder = path_of(folder).resolve()
    check_wishes(folder, grouped)
    written = stage / target.name
    with passing(reporter, f"{name} {READ}", f"Reading the files of {folder.name}"):
        texts = texts_of(folder, written, grouped=grouped, column=column, reporter=reporter)
    with passing(reporter, f"{name} {SOURCES}", "Looking for sources that can be kept apart"):
        proposal = proposal_for(folder, texts, grouped, root=stage)
    write_text(written, domain_yaml(target, name, folder, texts, head=head, proposal=proposal))
    domain = load_domain(str(written))
    for source in domain.corpus:
        next(read_source(source, root=domain.root))
    return proposal, texts


def texts_of(folder: Path, written: Path, *, grouped: Grouped, column: str | None, reporter: Reporter) -> OwnTexts:
    """Read the files of a folder, or find out that they are splits, questions and prompts.

    Args:
        folder: The folder with the text, or one file.
        written: The domain file, beside which converted texts go.
        grouped: Wishes about the group that is kept apart.
        column: Column of the text in tables (None: found in each).
        reporter: Receives progress.
    """
    declared = declared_files(folder)
    questions = question_files(folder, declared)
    tasks = task_files(folder, (*declared, *(folder / file for file in questions.files)), names=questions.names)
    if declared:
        reading = read_declared(folder, declared, questions, tasks, column=column)
        return OwnTexts(
            file=str(folder), reading=reading, tasks=tasks.tasks, questions=questions.sets, column=column or ""
        )
    return own_texts(
        folder, written, column=column, group_by=grouped.column, questions=questions, tasks=tasks, reporter=reporter
    )


def proposal_for(folder: Path, texts: OwnTexts, grouped: Grouped, *, root: Path) -> Proposal:
    """Choose the group of a folder's text that is kept apart.

    Args:
        folder: The folder.
        texts: Its texts.
        grouped: Wishes about the group.
        root: Folder that converted texts lie in.

    Raises:
        ConfigError: There is no group as the user wishes it.
        CorpusError: The folder is missing or holds no text.
    """
    if declared_files(folder):
        return Proposal(grouping=None, group=None, reason="The folder declares its splits.")
    if grouped.column == "none":
        return Proposal(grouping=None, group=None, reason="Nothing is kept apart, as you wished.")
    source = SourceConfig(name=folder.name, file=texts.file)
    proposal = propose(source, root=root, column=grouped.column, value=grouped.apart)
    if grouped != Grouped() and proposal.group is None:
        raise ConfigError(f"{proposal.reason} Choose another --group-by or --hold-out, or leave both out.")
    return proposal
