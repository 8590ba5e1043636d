"""Tasks of a corpus: divided by document, guarded, stored, trained on; mistakes in files are named."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from minigpt.corpus import build_corpus, load_corpus, save_corpus
from minigpt.corpus.guard import drop_overlap
from minigpt.corpus.tasks import MEASURED, file_tasks, guarded_prompts, rule_tasks, task_documents
from minigpt.domain.config import load_domain, resolved_yaml, validate
from minigpt.errors import ConfigError, CorpusError
from minigpt.types import Document

RULE = {"name": "blank", "rule": "missing_word"}


def passage(number: int) -> str:
    """A passage of its own words, one of which stands twice."""
    words = [f"{chr(97 + number % 26)}{chr(97 + place)}{chr(97 + number // 26)}word" for place in range(20)]
    return f"The {words[0]} of number {number} is " + " ".join(words[1:]) + f". It has another {words[3]} beside it."


def domain_in(folder: Path, tasks: list[dict[str, Any]], rows: list[dict[str, Any]] | None = None) -> Any:
    """A domain of 60 documents with some tasks; `rows` stand in tasks.jsonl."""
    texts = [{"text": passage(number), "source": f"doc{number}"} for number in range(60)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    if rows is not None:
        (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"name": "d", "corpus": [{"name": "t", "file": "texts.jsonl"}], "tasks": tasks}
    (folder / "d.yaml").write_text(yaml.safe_dump(values))
    return load_domain(str(folder / "d.yaml"))


def test_a_rule_never_asks_of_a_document_on_both_sides(tmp_path: Path) -> None:
    corpus = build_corpus(domain_in(tmp_path, [RULE]))
    (task,) = corpus.tasks
    heldout, train = {item.source for item in corpus.heldout}, {item.source for item in corpus.train}
    assert {item.source for item in task.prompts} == heldout
    assert {item.source for item in task.train} == train
    assert task.derived
    assert task.note.startswith("Derived")
    assert task.metrics == ("exact_match", "token_f1")


def test_a_document_measures_once_and_a_limit_holds(tmp_path: Path) -> None:
    domain = domain_in(tmp_path, [{**RULE, "limit": 3}])
    documents = [Document(text=passage(number), source=f"s{number % 5}") for number in range(20)]
    (task,) = rule_tasks(domain, documents, documents, seed=0)
    assert len(task.prompts) == len({item.source for item in task.prompts}) == 3
    assert not {item.prompt for item in task.prompts} & {item.prompt for item in task.train}
    assert rule_tasks(domain, documents[::-1], documents[::-1], seed=0) == (task,)


def test_rows_follow_their_documents_and_others_are_divided(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q {number}?", "answer": str(number), "source": f"doc{number}"} for number in range(60)]
    rows += [{"prompt": f"Free {number}?", "answers": ["a", "b"]} for number in range(90)]
    corpus = build_corpus(domain_in(tmp_path, [{"name": "own", "file": "tasks.jsonl"}], rows))
    (task,) = corpus.tasks
    heldout = {item.source for item in corpus.heldout}
    assert {item.source for item in task.prompts if item.source} >= heldout
    assert not {item.source for item in task.train} & heldout
    free = [item for item in task.prompts if not item.source]
    assert abs(len(free) - 90 / MEASURED) < 15
    assert len(task.prompts) + len(task.train) == 150


@pytest.mark.parametrize(("split", "measured"), [("heldout", 4), ("train", 0)])
def test_a_declared_split_holds(tmp_path: Path, split: str, measured: int) -> None:
    rows = [{"prompt": f"Q {number}?", "answer": "x"} for number in range(4)]
    domain = domain_in(tmp_path, [{"name": "own", "file": "tasks.jsonl", "split": split}], rows)
    (task,) = file_tasks(domain, (), (), seed=0)
    assert (len(task.prompts), len(task.train)) == (measured, 4 - measured)


def test_text_that_holds_a_measured_prompt_is_not_trained_on(tmp_path: Path) -> None:
    rows = [{"prompt": passage(number) + " What is it?", "answer": "x"} for number in range(60)]
    corpus = build_corpus(domain_in(tmp_path, [{"name": "own", "file": "tasks.jsonl"}], rows))
    (task,) = corpus.tasks
    assert task.prompts
    measured = {item.prompt for item in task.prompts}
    for document in (*corpus.train, *corpus.calibration):
        assert f"{document.text} What is it?" not in measured
    assert corpus.counts["overlaps_questions"] > 0


def test_training_prompts_are_written_with_their_answers_and_guarded(tmp_path: Path) -> None:
    corpus = build_corpus(domain_in(tmp_path, [RULE]))
    (task,) = corpus.tasks
    documents = task_documents(corpus.tasks, 5)
    assert [item.text for item in documents] == [f"{item.prompt} {item.answers[0]}" for item in task.train[:5]]
    assert task_documents([replace(task, chat=True)], 5) == []
    assert task_documents(corpus.tasks, 0) == []
    leaked = task_documents([replace(task, train=task.prompts)], 1000)
    assert drop_overlap(leaked, corpus.heldout, [], Counter()) == []
    guarded = list(guarded_prompts([replace(task, derived=False)]))
    assert drop_overlap(leaked, [], guarded, Counter()) == []
    assert list(guarded_prompts([task])) == []


def test_tasks_are_stored(tmp_path: Path) -> None:
    rows = [{"prompt": "Say it.", "constraints": [{"kind": "sentences", "value": 2}, {"kind": "json"}]}]
    tasks = [RULE, {"name": "own", "file": "tasks.jsonl", "split": "heldout", "chat": True}]
    corpus = build_corpus(domain_in(tmp_path, tasks, rows))
    assert len(corpus.tasks) == 2
    save_corpus(corpus, tmp_path / "corpus")
    assert load_corpus(tmp_path / "corpus") == corpus


def test_columns_choices_and_patterns_of_a_file(tmp_path: Path) -> None:
    rows = [{"in": {"text": "Is it?"}, "out": "yes", "no": 1}]
    config = {"name": "own", "file": "tasks.jsonl", "columns": {"prompt": "in.text", "answer": "out"},
              "choices": ["yes", "no"], "regex": "[a-z]+", "split": "heldout"}  # fmt: skip
    (task,) = file_tasks(domain_in(tmp_path, [config], rows), (), (), seed=0)
    (item,) = task.prompts
    assert (item.prompt, item.answers, item.choices, item.regex) == ("Is it?", ("yes",), ("yes", "no"), "[a-z]+")
    assert task.metrics == ("exact_match", "label_f1")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Q?"}, "no answer"),
        ({"prompt": " ", "answer": "x"}, "the prompt is empty"),
        ({"question": "Q?", "answer": "x"}, "columns: {prompt: question}"),
        ({"prompt": "Q?", "answer": ["x", ""]}, "none of them empty"),
        ({"prompt": "Q?", "answer": "x", "choices": ["y", "z"]}, "none of the choices"),
        ({"prompt": "Q?", "answer": "x", "regex": "("}, "cannot be read"),
        ({"prompt": "Q?", "constraints": [{"kind": "sentence", "value": 1}]}, "Did you mean 'sentences'"),
        ({"prompt": "Q?", "constraints": [{"kind": "sentences", "value": "two"}]}, "whole number"),
        ({"prompt": "Q?", "constraints": [{"kind": "contains"}]}, "needs a text"),
        ({"prompt": "Q?", "constraints": {"kind": "json"}}, "must be a list"),
    ],
)
def test_a_mistake_in_a_row_is_named_with_its_place(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    domain = domain_in(tmp_path, [{"name": "own", "file": "tasks.jsonl"}], [row])
    with pytest.raises(CorpusError, match="line 1") as error:
        file_tasks(domain, (), (), seed=0)
    assert words in str(error.value)


def test_repeated_prompts_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "Q?", "answer": "x"}, {"prompt": "Q?", "answer": "y"}]
    with pytest.raises(CorpusError, match="a prompt twice"):
        file_tasks(domain_in(tmp_path, [{"name": "own", "file": "tasks.jsonl"}], rows), (), (), seed=0)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"name": "a"}, "exactly one of rule, file or hub"),
        ({"name": "a", "rule": "missing_words"}, "rule"),
        ({"name": "a", "rule": "kind"}, "needs labels"),
        ({"name": "a", "rule": "heading", "labels": {"x": "y"}}, "needs labels"),
        ({"name": "a", "rule": "heading", "choices": ["x"]}, "makes its prompts itself"),
        ({"name": "a", "file": "f.jsonl", "shots": 99}, "shots must be between 0 and 16"),
        ({"name": "a", "file": "f.jsonl", "max_tokens": 0}, "max_tokens must be between 1 and 512"),
        ({"name": "a", "file": "f.jsonl", "limit": 0}, "limit must be at least 1"),
        ({"name": "a", "file": "f.jsonl", "regex": "["}, "cannot be read"),
        ({"name": "a", "file": "f.jsonl", "columns": {"promt": "x"}}, "Did you mean 'prompt'"),
        ({"name": "a", "file": "f.jsonl", "revision": "x"}, "only for Hub"),
        ({"name": "a", "file": "f.jsonl", "metrics": ["exact"]}, "metrics"),
        ({"name": "other", "file": "f.jsonl"}, "rename it"),
        ({"name": "a", "file": "f.jsonl", "shot": 1}, "Did you mean 'shots'"),
    ],
)
def test_a_mistake_in_the_domain_file_is_named(tmp_path: Path, task: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        domain_in(tmp_path, [task])
    assert words in str(error.value)


def test_a_task_and_a_question_set_need_different_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'blank'"):
        domain_in(tmp_path, [RULE, RULE])


def test_a_resolved_file_reads_the_same_tasks(tmp_path: Path) -> None:
    domain = domain_in(tmp_path, [RULE, {"name": "own", "file": "tasks.jsonl"}])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.yaml").write_text(resolved_yaml(domain))
    assert load_domain(str(tmp_path / "elsewhere" / "d.yaml")) == domain
    assert any("tasks.jsonl" in problem for problem in validate(domain))
