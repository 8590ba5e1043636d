"""Domain files for folders of the user's own text, as `minigpt domains new` writes them.

A folder may declare its splits: `corpus_train.jsonl`, `corpus_heldout.jsonl`, `corpus_dev.jsonl`, and question files
`mcq_<set>.jsonl`. In any other folder all .txt, .md, .jsonl and .parquet files are text, and documents are split for
the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from minigpt.corpus.rows import files_in
from minigpt.corpus.sources import read_question_set, read_source
from minigpt.domain.config import load_domain
from minigpt.errors import ConfigError, CorpusError
from minigpt.files import write_text

DECLARED = {"corpus_train": "train", "corpus_heldout": "heldout", "corpus_dev": "dev"}
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

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


def new_domain(name: str, folder: Path, *, output: Path, general: Path | None = None) -> Path:
    """Write a domain file for the text in `folder` and check that it can be read.

    Args:
        name: The domain's name: small letters, digits, `-` and `_`.
        folder: The folder with the text. It may declare its splits (see the module's description).
        output: The file to write, or a folder for `<name>.yaml`. Paths in the file are absolute.
        general: A folder of general text. It gets a domain file `<name>-general.yaml` beside the other.

    Returns:
        The path of the domain file.

    Raises:
        ConfigError: The name cannot be used, or a file is already there.
        CorpusError: The folder is missing or holds no text, or its first rows cannot be read.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a domain: use small letters, digits, '-' and '_', e.g. cardiology.")
    target = output if output.suffix in {".yaml", ".yml"} else output / f"{name}.yaml"
    other = target.with_name(f"{target.stem}-general.yaml")
    for path in (target, other) if general else (target,):
        if path.exists():
            raise ConfigError(f"{path} is already there. Remove it or choose another name or output.")
    write_checked(target, name, folder, head=MEASURED_ON.format(general=other.name if general else "general"))
    if general:
        try:
            write_checked(other, f"{name}-general", general, head=GENERAL_TEXT)
        except (ConfigError, CorpusError):
            target.unlink()
            raise
    return target


def write_checked(target: Path, name: str, folder: Path, *, head: str) -> None:
    """Write a domain file and read the beginning of every source through it; remove the file if that fails."""
    write_text(target, domain_yaml(target, name, folder.expanduser().resolve(), head=head))
    try:
        domain = load_domain(str(target))
        for source in domain.corpus:
            next(read_source(source, root=domain.root))
        for questions in domain.questions:
            read_question_set(questions, root=domain.root)
    except (ConfigError, CorpusError):
        target.unlink()
        raise


def domain_yaml(target: Path, name: str, folder: Path, *, head: str) -> str:
    """Return the text of the domain file `target` for the text in `folder`.

    Args:
        target: The file, for the command in its first line.
        name: The domain's name.
        folder: The folder with the text.
        head: Lines about general text: `MEASURED_ON` or `GENERAL_TEXT`.

    Raises:
        CorpusError: The folder is missing or holds no text.
    """
    if not folder.is_dir():
        raise CorpusError(f"No such folder: {folder}. Give the folder that holds your text.")
    declared = sorted(path for path in folder.glob("corpus_*.jsonl") if path.stem in DECLARED)
    question_files = sorted(folder.glob("mcq_*.jsonl"))
    if not declared:
        files_in(folder)
    corpus = [source_lines(path, split=DECLARED[path.stem]) for path in declared]
    corpus = corpus or plain_sources(folder, question_files)
    questions = "".join(f"\n{question_lines(path)}" for path in question_files)
    return TEMPLATE.format(
        path=target if target.is_absolute() else f"./{target}",
        name=name,
        title=name.replace("-", " ").replace("_", " ").capitalize(),
        head=head,
        corpus="\n".join(corpus) + "\n",
        questions=questions or " []",
    )


def plain_sources(folder: Path, question_files: Sequence[Path]) -> list[str]:
    """Return the corpus entries of a folder without declared splits: the whole folder, or its files of text.

    Args:
        folder: The folder with the text.
        question_files: Files of the folder that hold questions, not text.
    """
    if not question_files:
        return [source_lines(folder, split="auto")]
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


def question_lines(path: Path) -> str:
    """Return one question entry as YAML. The set `mcq_dev.jsonl` may guide choices; the others only measure."""
    name = path.stem.removeprefix("mcq_")
    role = "dev" if name == "dev" else "test"
    return f"  - name: {quoted(name)}\n    file: {quoted(str(path))}\n    role: {role}"


def quoted(text: str) -> str:
    """Return `text` as a YAML scalar."""
    # JSON strings are YAML strings.
    return text if re.fullmatch(r"[A-Za-z_][\w.-]*", text) else json.dumps(text, ensure_ascii=False)
