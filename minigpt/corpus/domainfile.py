"""Text of domain files for a user's own folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import wrap

from minigpt.corpus.grouping import parts
from minigpt.corpus.groups import Proposal
from minigpt.corpus.ownfiles import DECLARED, OwnTexts, declared_files
from minigpt.corpus.question_files import QuestionFile
from minigpt.corpus.task_files import TaskFile
from minigpt.domain.config import SourceConfig

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

# Tasks with free answers. `columns` maps prompt and answer; `split: train` or `heldout` says it for all rows of a file.
tasks:{tasks}
"""

# The part of a domain file that says which general text the domain is measured on, or that it is general text itself.
MEASURED_ON = (
    "# General text on which forgetting is measured: the name of a domain or the path of a domain file.\n"
    "general: {general}\n"
)
GENERAL_TEXT = (
    "# General text: other domains are measured on it to show what specialization costs.\ngeneral_text: true\n"
)


def domain_yaml(target: Path, name: str, folder: Path, texts: OwnTexts, *, head: str, proposal: Proposal) -> str:
    """Return the text of the domain file `target` for the text in `folder`.

    Args:
        target: The file, for the command in its first line.
        name: The domain's name.
        folder: The folder with the text.
        texts: Its texts.
        head: Lines about general text: `MEASURED_ON` or `GENERAL_TEXT`.
        proposal: The group that is kept apart.

    Raises:
        CorpusError: The folder is missing or holds no text.
    """
    corpus = [source_lines(path, split=DECLARED[path.stem], column=texts.column) for path in declared_files(folder)]
    corpus = corpus or [plain_source(folder, texts, proposal)]
    questions = "".join(f"\n{question_lines(item)}" for item in texts.questions)
    return TEMPLATE.format(
        path=target if target.is_absolute() else f"./{target}",
        name=name,
        title=name.replace("-", " ").replace("_", " ").capitalize(),
        head=head,
        corpus="\n".join(corpus) + "\n",
        questions=questions or " []",
        tasks="".join(f"\n{task_lines(task)}" for task in texts.tasks) or " []",
    )


def plain_source(folder: Path, texts: OwnTexts, proposal: Proposal) -> str:
    """Return the corpus entries of a folder without declared splits: the whole folder, or it and a group kept apart.

    Args:
        folder: The folder with the text.
        texts: Its texts.
        proposal: The group that is kept apart.
    """
    sources = parts(SourceConfig(name=folder.name, file=texts.file), proposal)
    remark = [f"  # {line}" for line in wrap(remark_on(proposal), REMARK_WIDTH)]
    return "\n".join([*remark, *map(entry_lines, sources)])


def source_lines(path: Path, *, split: str, name: str | None = None, column: str = "") -> str:
    """Return one corpus entry as YAML; `column` holds the text, if it is not called so."""
    lines = [f"  - name: {quoted(name or path.stem)}", f"    file: {quoted(str(path))}"]
    if column:
        lines.append(f"    columns: {json.dumps({'text': column}, ensure_ascii=False)}")
    if split != "auto":
        lines.append(f"    split: {split}")
    return "\n".join([*lines, "    license: unknown  # say what license your text has: it goes into the model card"])


def remark_on(proposal: Proposal) -> str:
    """Explain the entries of a folder: what is kept apart and how to change it."""
    if proposal.group is None:
        return proposal.reason
    change = (
        "To keep another apart, write its name in both places below; to train on all text, remove `without` and the "
        "entry with `split: other`."
    )
    return " ".join(filter(None, (proposal.reason, change, proposal.ties)))


def entry_lines(source: SourceConfig) -> str:
    """Return the entry of a folder, or of a part of it, as YAML."""
    lines = source_lines(Path(source.file or ""), split=source.split, name=source.name).split("\n")
    rules = [f"    {key}: {json.dumps(getattr(source, key), ensure_ascii=False)}" for key in ("where", "without")]
    rules = [line for line in rules if not line.endswith("{}")]
    if source.row_documents:
        rules.append("    row_documents: true")
    return "\n".join([*lines[:2], *rules, *lines[2:]])


def question_lines(item: QuestionFile) -> str:
    """Return one question entry as YAML."""
    config = item.config
    return f"  - name: {quoted(config.name)}\n    file: {quoted(config.file or '')}\n    role: {config.role}"


def task_lines(task: TaskFile) -> str:
    """Return one task entry as YAML; metrics that the rows decide on are left out."""
    config = task.config
    lines = [f"  - name: {quoted(config.name)}", f"    file: {quoted(config.file or '')}"]
    lines.append(f"    max_tokens: {config.max_tokens}")
    if config.metrics:
        lines.append(f"    metrics: [{', '.join(config.metrics)}]")
    return "\n".join(lines)


def quoted(text: str) -> str:
    """Return `text` as a YAML scalar."""
    # JSON strings are YAML strings.
    return text if re.fullmatch(r"[A-Za-z_][\w.-]*", text) else json.dumps(text, ensure_ascii=False)
