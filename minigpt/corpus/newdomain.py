"""Domain files for folders of the user's own text, as `minigpt domains new` writes them.

A folder may declare its splits: `corpus_train.jsonl`, `corpus_heldout.jsonl`, `corpus_dev.jsonl`,
`corpus_other.jsonl` (text of other sources, which is only measured), and question files
`mcq_<set>.jsonl`. In any other folder all .txt, .md, .jsonl and .parquet files are text, and documents are split for
the user. Where such text comes from several sources, one of them is kept apart (`minigpt.corpus.grouping`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from minigpt.corpus.grouping import Group, Proposal, parts, propose
from minigpt.corpus.rows import files_in
from minigpt.corpus.sources import read_question_set, read_source
from minigpt.domain.config import SourceConfig, load_domain
from minigpt.errors import ConfigError, CorpusError
from minigpt.files import write_text

DECLARED = {"corpus_train": "train", "corpus_heldout": "heldout", "corpus_dev": "dev", "corpus_other": "other"}
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
REMARK_WIDTH = 112

TEMPLATE = """\
# minigpt build --domain {path}
name: {name}
title: {title}

# Other names this domain answers to, e.g. [medicine, clinical].
synonyms: []

# Sentences that say what the domain is about. If there are any, the relevance filter keeps training text near them.
seeds: []

# Beginnings of texts. The report shows how the specialist and its parent continue them.
prompts: []

{head}
# Each source is one of: file (.txt, .md, .jsonl, .parquet or a folder), hub (a Hugging Face data set), reader with ref.
# `columns` maps text, source and license to the names in your data; rows that share a source are one document.
# `split: train`, `heldout` or `dev` puts a source into that split; otherwise documents are split for you.
# `split: other` keeps a source apart: nothing of it is trained on, and the report shows how the specialist does on it.
corpus:
{corpus}
# Multiple-choice questions. `columns` maps question, choices and answer. Only a `dev` set may guide choices.
questions:{questions}
"""

# The part of a domain file that says which general text the domain is measured on, or that it is general text itself.
MEASURED_ON = (
    "# General text on which forgetting is measured: the name of a domain or the path of a domain file.\n"
    "general: {general}\n"
)
GENERAL_TEXT = (
    "# General text: other domains are measured on it to show what specialization costs.\ngeneral_text: true\n"
)


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
        groups: Groups in the text, by the column `grouped_by`.
        grouped_by: Column that tells the groups apart; empty where there are none.
    """

    path: Path
    apart: str
    groups: tuple[Group, ...]
    grouped_by: str


def new_domain(
    name: str, folder: Path, *, output: Path, general: Path | None = None, grouped: Grouped | None = None
) -> NewDomain:
    """Write a domain file for the text in `folder` and check that it can be read.

    Args:
        name: The domain's name: small letters, digits, `-` and `_`.
        folder: The folder with the text. It may declare its splits (see the module's description).
        output: The file to write, or a folder for `<name>.yaml`. Paths in the file are absolute.
        general: A folder of general text. It gets a domain file `<name>-general.yaml` beside the other.
        grouped: Wishes about the group of the text in `folder` that is kept apart.

    Raises:
        ConfigError: The name cannot be used, a file is already there, or there is no group to keep apart as wished.
        CorpusError: The folder is missing or holds no text, or its first rows cannot be read.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a domain: use small letters, digits, '-' and '_', e.g. cardiology.")
    target = output if output.suffix in {".yaml", ".yml"} else output / f"{name}.yaml"
    other = target.with_name(f"{target.stem}-general.yaml")
    for path in (target, other) if general else (target,):
        if path.exists():
            raise ConfigError(f"{path} is already there. Remove it or choose another name or output.")
    head = MEASURED_ON.format(general=other.name if general else "general")
    proposal = write_checked(target, name, folder, head=head, grouped=grouped or Grouped())
    if general:
        try:
            write_checked(other, f"{name}-general", general, head=GENERAL_TEXT, grouped=Grouped())
        except (ConfigError, CorpusError):
            target.unlink()
            raise
    groups = proposal.grouping
    return NewDomain(
        path=target,
        apart=proposal.reason,
        groups=groups.groups if groups else (),
        grouped_by=groups.column if groups else "",
    )


def write_checked(target: Path, name: str, folder: Path, *, head: str, grouped: Grouped) -> Proposal:
    """Write a domain file and read the beginning of every source through it; remove the file if that fails.

    Returns:
        The group that the file keeps apart, or why there is none.
    """
    folder = folder.expanduser().resolve()
    proposal = proposal_for(folder, grouped)
    write_text(target, domain_yaml(target, name, folder, head=head, proposal=proposal))
    try:
        domain = load_domain(str(target))
        for source in domain.corpus:
            next(read_source(source, root=domain.root))
        for questions in domain.questions:
            read_question_set(questions, root=domain.root)
    except (ConfigError, CorpusError):
        target.unlink()
        raise
    return proposal


def proposal_for(folder: Path, grouped: Grouped) -> Proposal:
    """Choose the group of a folder's text that is kept apart.

    Raises:
        ConfigError: There is no group as the user wishes it.
        CorpusError: The folder is missing or holds no text.
    """
    declared, questions = declared_files(folder)
    if declared:
        return Proposal(grouping=None, group=None, reason="The folder declares its splits.")
    if questions and grouped == Grouped():
        reason = "Nothing is kept apart, because questions lie between the texts; give the texts a folder of their own."
        return Proposal(grouping=None, group=None, reason=reason)
    if grouped.column == "none":
        return Proposal(grouping=None, group=None, reason="Nothing is kept apart, as you wished.")
    source = SourceConfig(name=folder.name, file=str(folder))
    proposal = propose(source, root=folder, column=grouped.column, value=grouped.apart)
    if grouped != Grouped() and proposal.group is None:
        raise ConfigError(f"{proposal.reason} Choose another --group-by or --hold-out, or leave both out.")
    if questions:
        raise ConfigError("Questions lie between the texts; give the texts a folder of their own to keep one apart.")
    return proposal


def declared_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the files of a folder that declare a split, and those that hold questions.

    Raises:
        CorpusError: There is no such folder.
    """
    if not folder.is_dir():
        raise CorpusError(f"No such folder: {folder}. Give the folder that holds your text.")
    declared = sorted(path for path in folder.glob("corpus_*.jsonl") if path.stem in DECLARED)
    return declared, sorted(folder.glob("mcq_*.jsonl"))


def domain_yaml(target: Path, name: str, folder: Path, *, head: str, proposal: Proposal) -> str:
    """Return the text of the domain file `target` for the text in `folder`.

    Args:
        target: The file, for the command in its first line.
        name: The domain's name.
        folder: The folder with the text.
        head: Lines about general text: `MEASURED_ON` or `GENERAL_TEXT`.
        proposal: The group that is kept apart.

    Raises:
        CorpusError: The folder is missing or holds no text.
    """
    declared, question_files = declared_files(folder)
    if not declared:
        files_in(folder)
    corpus = [source_lines(path, split=DECLARED[path.stem]) for path in declared]
    corpus = corpus or plain_sources(folder, question_files, proposal)
    questions = "".join(f"\n{question_lines(path)}" for path in question_files)
    return TEMPLATE.format(
        path=target if target.is_absolute() else f"./{target}",
        name=name,
        title=name.replace("-", " ").replace("_", " ").capitalize(),
        head=head,
        corpus="\n".join(corpus) + "\n",
        questions=questions or " []",
    )


def plain_sources(folder: Path, question_files: Sequence[Path], proposal: Proposal) -> list[str]:
    """Return the corpus entries of a folder without declared splits: the whole folder, or its files of text.

    Args:
        folder: The folder with the text.
        question_files: Files of the folder that hold questions, not text.
        proposal: The group that is kept apart.
    """
    if not question_files:
        sources = parts(SourceConfig(name=folder.name, file=str(folder)), proposal)
        remark = [f"  # {line}" for line in wrap(remark_on(proposal), REMARK_WIDTH)]
        return ["\n".join([*remark, *map(entry_lines, sources)])]
    files = [path for path in files_in(folder) if path not in question_files]
    if not files:
        raise CorpusError(f"The folder {folder} holds questions but no text to train on.")
    return [source_lines(path, split="auto", name=path.relative_to(folder).as_posix()) for path in files]


def source_lines(path: Path, *, split: str, name: str | None = None) -> str:
    """Return one corpus entry as YAML."""
    lines = [f"  - name: {quoted(name or path.stem)}", f"    file: {quoted(str(path))}"]
    if split != "auto":
        lines.append(f"    split: {split}")
    return "\n".join([*lines, "    license: unknown  # say what license your text has: it goes into the model card"])


def remark_on(proposal: Proposal) -> str:
    """Explain the entries of a folder: what is kept apart and how to change it."""
    if proposal.group is None:
        return proposal.reason
    return (
        f"{proposal.reason} To keep another apart, write its name in both places below; to train on all text, remove "
        "`without` and the entry with `split: other`."
    )


def entry_lines(source: SourceConfig) -> str:
    """Return the entry of a folder, or of a part of it, as YAML."""
    lines = source_lines(Path(source.file or ""), split=source.split, name=source.name).split("\n")
    rules = [f"    {key}: {json.dumps(getattr(source, key), ensure_ascii=False)}" for key in ("where", "without")]
    rules = [line for line in rules if not line.endswith("{}")]
    if source.row_documents:
        rules.append("    row_documents: true")
    return "\n".join([*lines[:2], *rules, *lines[2:]])


def question_lines(path: Path) -> str:
    """Return one question entry as YAML. The set `mcq_dev.jsonl` may guide choices; the others only measure."""
    name = path.stem.removeprefix("mcq_")
    role = "dev" if name == "dev" else "test"
    return f"  - name: {quoted(name)}\n    file: {quoted(str(path))}\n    role: {role}"


def quoted(text: str) -> str:
    """Return `text` as a YAML scalar."""
    # JSON strings are YAML strings.
    return text if re.fullmatch(r"[A-Za-z_][\w.-]*", text) else json.dumps(text, ensure_ascii=False)
