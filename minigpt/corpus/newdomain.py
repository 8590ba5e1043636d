"""`minigpt domains new`: a commented domain file for a folder of the user's own text.

A folder laid out with declared splits (`corpus_train.jsonl`, `corpus_heldout.jsonl`, question files `mcq_<set>.jsonl`)
keeps them; of any other folder every .txt, .md, .jsonl and .parquet file counts as text and is split by document.
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

# Sentences that say what the domain is about. With some here, the relevance filter keeps training text near them.
seeds: []

# Beginnings of texts, continued in the report by the specialist beside its parent.
prompts: []

{control}
# Each source is one of: file (.txt, .md, .jsonl, .parquet or a folder), hub (a Hugging Face data set), reader with ref.
# `columns` maps text, source and license to the names in your data; rows that share a source are one document.
# `split: train`, `heldout` or `dev` confines a source to that split; otherwise documents are split for you.
corpus:
{corpus}
# Multiple-choice questions: columns maps question, choices and answer. A `test` set never guides a choice, `dev` may.
questions:{questions}
"""

CONTROL = "# This is a control: other domains are measured on it to show what specialization costs.\ncontrol: true\n"
GENERAL = (
    "# The control on which forgetting is measured: a domain's name or the path of a domain file.\ngeneral: {general}\n"
)


def new_domain(name: str, folder: Path, *, output: Path, general: Path | None = None) -> Path:
    """Write a domain file for the text in `folder` and check that it can be read.

    Args:
        name: The domain's name: small letters, digits, `-` and `_`.
        folder: The text, in one of the two layouts above.
        output: The file to write, or a folder for `<name>.yaml`. Paths in it are absolute.
        general: A folder of control text; gets a file `<name>-general.yaml` beside the other.

    Returns:
        The path of the domain file.

    Raises:
        ConfigError: a name that cannot be used, or a file that is already there.
        CorpusError: the folder is missing, holds no text, or its first rows cannot be read.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a domain: use small letters, digits, '-' and '_', e.g. cardiology.")
    target = output if output.suffix in {".yaml", ".yml"} else output / f"{name}.yaml"
    control = target.with_name(f"{target.stem}-general.yaml")
    for path in (target, control) if general else (target,):
        if path.exists():
            raise ConfigError(f"{path} is already there. Remove it or choose another name or output.")
    write_checked(target, name, folder, head=GENERAL.format(general=control.name if general else "general"))
    if general:
        try:
            write_checked(control, f"{name}-general", general, head=CONTROL)
        except (ConfigError, CorpusError):
            target.unlink()
            raise
    return target


def write_checked(target: Path, name: str, folder: Path, *, head: str) -> None:
    """Write a domain file and read the beginning of every source through it; a file that fails is not left behind."""
    write_text(target, described(target, name, folder.expanduser().resolve(), head=head))
    try:
        domain = load_domain(str(target))
        for source in domain.corpus:
            next(read_source(source, root=domain.root))
        for questions in domain.questions:
            read_question_set(questions, root=domain.root)
    except (ConfigError, CorpusError):
        target.unlink()
        raise


def described(target: Path, name: str, folder: Path, *, head: str) -> str:
    """The text of a domain file for `folder`."""
    if not folder.is_dir():
        raise CorpusError(f"No such folder: {folder}. Give the folder that holds your text.")
    declared = sorted(path for path in folder.glob("corpus_*.jsonl") if path.stem in DECLARED)
    asked = sorted(folder.glob("mcq_*.jsonl"))
    if not declared:
        files_in(folder)
    corpus = [source_lines(path, split=DECLARED[path.stem]) for path in declared]
    corpus = corpus or plain_sources(folder, asked)
    questions = "".join(f"\n{question_lines(path)}" for path in asked)
    return TEMPLATE.format(
        path=target if target.is_absolute() else f"./{target}",
        name=name,
        title=name.replace("-", " ").replace("_", " ").capitalize(),
        control=head,
        corpus="\n".join(corpus) + "\n",
        questions=questions or " []",
    )


def plain_sources(folder: Path, asked: Sequence[Path]) -> list[str]:
    """The sources of a folder without declared splits: the folder as a whole, or its files if some are questions."""
    if not asked:
        return [source_lines(folder, split="auto")]
    files = [path for path in files_in(folder) if path not in asked]
    if not files:
        raise CorpusError(f"The folder {folder} holds questions but no text to train on.")
    return [source_lines(path, split="auto", name=path.relative_to(folder).as_posix()) for path in files]


def source_lines(path: Path, *, split: str, name: str | None = None) -> str:
    """One corpus entry as YAML."""
    lines = [f"  - name: {quoted(name or path.stem)}", f"    file: {quoted(str(path))}"]
    if split != "auto":
        lines.append(f"    split: {split}")
    return "\n".join([*lines, "    license: unknown  # say what license your text has: it goes into the model card"])


def question_lines(path: Path) -> str:
    """One question entry as YAML; the set `mcq_dev.jsonl` may guide choices, the others only test."""
    name = path.stem.removeprefix("mcq_")
    role = "dev" if name == "dev" else "test"
    return f"  - name: {quoted(name)}\n    file: {quoted(str(path))}\n    role: {role}"


def quoted(text: str) -> str:
    """`text` as a YAML scalar: JSON strings are YAML strings."""
    return text if re.fullmatch(r"[A-Za-z_][\w.-]*", text) else json.dumps(text, ensure_ascii=False)
