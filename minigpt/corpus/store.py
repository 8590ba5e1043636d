"""Corpora on disk: a JSONL file for each split and one for the questions, the tasks, and a manifest with the hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import TypeAdapter, ValidationError

from minigpt import files
from minigpt.errors import CorpusError
from minigpt.parsing import load_json
from minigpt.types import AnswerTask, Attribution, Corpus, Document, Question, QuestionSet, Split

MANIFEST = "corpus.json"
QUESTIONS = "questions.jsonl"
TASKS = "tasks.json"
SPLITS = cast("tuple[Split, ...]", get_args(Split))
# Version of a corpus: raised when the same text would be split or stored otherwise, so that cached ones are made again.
VERSION = 4


def fingerprint(corpus: Corpus) -> str:
    """Return the hash of a corpus's whole content, its order included."""
    return files.fingerprint(replace(corpus, fingerprint=""))


def save_corpus(corpus: Corpus, folder: Path) -> None:
    """Write a corpus to a folder and replace a corpus that is there, as a whole or not at all.

    Args:
        corpus: The corpus.
        folder: A new or empty folder, or one that holds a corpus.

    Raises:
        CorpusError: The folder holds something other than a corpus.
        MiniGPTError: The folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).exists())):
        raise CorpusError(f"{folder} holds something other than a corpus; choose a new or empty folder.")
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        for split in SPLITS:
            files.write_jsonl(temporary / f"{split}.jsonl", getattr(corpus, split))
        rows = ({"set": s.name, **files.to_plain(question)} for s in corpus.questions for question in s.questions)
        files.write_jsonl(temporary / QUESTIONS, rows)
        files.write_json(temporary / TASKS, corpus.tasks)
        files.write_json(temporary / MANIFEST, _manifest(corpus))


def load_corpus(folder: Path) -> Corpus:
    """Read a corpus that :func:`save_corpus` wrote, and check that it is unchanged.

    Raises:
        CorpusError: There is no corpus, a file is damaged, or the content was changed.
    """
    try:
        corpus = _read(folder)
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        raise CorpusError(f"No corpus in {folder}: {name} is missing; build it again.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"The corpus in {folder} is damaged ({_reason(error)}); build it again.") from None
    if fingerprint(corpus) != corpus.fingerprint:
        raise CorpusError(f"The corpus in {folder} was changed after it was saved; build it again.")
    return corpus


def _manifest(corpus: Corpus) -> dict[str, Any]:
    """Return all of a corpus but its passages and questions."""
    return {
        "domain": corpus.domain,
        "fingerprint": fingerprint(corpus),
        "counts": corpus.counts,
        "attributions": corpus.attributions,
        "questions": [files.to_plain(replace(questions, questions=())) for questions in corpus.questions],
    }


def _read(folder: Path) -> Corpus:
    """Read the files of a corpus; errors of reading pass as they are."""
    manifest: Mapping[str, Any] = load_json((folder / MANIFEST).read_text("utf-8"))
    question, document = TypeAdapter(Question), TypeAdapter(Document)
    by_set: dict[str, list[Question]] = {entry["name"]: [] for entry in manifest["questions"]}
    for row in _rows(folder / QUESTIONS):
        by_set[row.pop("set")].append(question.validate_python(row))
    sets = [{**entry, "questions": tuple(by_set[entry["name"]])} for entry in manifest["questions"]]
    splits = {s: tuple(document.validate_python(row) for row in _rows(folder / f"{s}.jsonl")) for s in SPLITS}
    return Corpus(
        domain=manifest["domain"],
        questions=TypeAdapter(tuple[QuestionSet, ...]).validate_python(sets),
        tasks=TypeAdapter(tuple[AnswerTask, ...]).validate_json((folder / TASKS).read_text("utf-8")),
        attributions=TypeAdapter(tuple[Attribution, ...]).validate_python(manifest["attributions"]),
        counts=TypeAdapter(dict[str, int]).validate_python(manifest["counts"]),
        fingerprint=manifest["fingerprint"],
        **splits,
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file."""
    with path.open(encoding="utf-8", newline="\n") as stream:
        yield from (load_json(line) for line in stream)


def _reason(error: Exception) -> str:
    """Describe a reading error in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
