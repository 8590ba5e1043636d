"""Notes on what was not measured: a part of the held-out documents, and tasks without held-out prompts."""

from __future__ import annotations

from pathlib import Path

from minigpt.domain.config import DomainConfig, SourceConfig
from minigpt.domain.tasks import TaskConfig
from minigpt.evaluation.suite import suite_for
from minigpt.pipeline.part_notes import part_notes, task_notes
from minigpt.pipeline.read import Corpora
from minigpt.types import AnswerTask, Corpus, Document, Prompt, Question, QuestionSet


def documents(number: int, name: str, size: int = 100) -> tuple[Document, ...]:
    return tuple(Document(text=f"{name} {index} ".ljust(size, "x"), source=f"{name}{index}") for index in range(number))


def corpus(domain: str, **changes: object) -> Corpus:
    values = {"heldout": documents(16, f"{domain} held"), "train": documents(3, "t"), "dev": documents(3, "d")}
    return Corpus(domain=domain, calibration=documents(1, "c"), **{**values, **changes})  # type: ignore[arg-type]


def prompts(number: int) -> tuple[Prompt, ...]:
    return tuple(Prompt(prompt=f"Say {index}.", answers=(str(index),)) for index in range(number))


def notes_of(domain: Corpus, general: Corpus | None = None, **limits: int) -> list[str]:
    suite = suite_for(domain, general, **limits)
    return part_notes(Corpora(domain=domain, general=general), suite, heldout_bytes=limits.get("max_heldout_bytes"))


def test_a_part_of_the_documents_is_told_with_its_size() -> None:
    (note,) = notes_of(corpus("words"), corpus("general", other=documents(4, "o")), max_heldout_bytes=1400)
    assert "14 of 16 held-out documents of words (88 % of their text)" in note
    assert "14 of 16 held-out documents of general (88 % of their text)" in note
    assert "other sources" not in note and "evaluation.heldout_bytes" in note
    (note,) = notes_of(corpus("words", other=documents(20, "o")), max_heldout_bytes=1600)
    assert "16 of 20 documents of other sources of words" in note and "held-out documents" not in note


def test_a_long_document_is_told_where_nothing_else_is_limited() -> None:
    """20 passages of one document and 19 of others: of the first only some may count."""
    one = tuple(Document(text=f"long {index} ".ljust(100, "x"), source="long") for index in range(20))
    (note,) = notes_of(corpus("words", heldout=(*one, *documents(19, "h"))))
    assert "20 of 20 held-out documents of words" in note and "first passages" in note and "settings" not in note


def test_questions_and_prompts_are_told_too() -> None:
    asking = tuple(Question(question=f"Q{index}?", choices=("a", "b"), answer=0, source="q") for index in range(9))
    domain = corpus(
        "words",
        questions=(QuestionSet(name="quiz", questions=asking),),
        tasks=(AnswerTask(name="say", prompts=prompts(7), metrics=("exact_match",), max_tokens=4),),
    )
    (note,) = notes_of(domain, max_questions=5, max_answers=3)
    assert "5 of 9 questions of words/quiz; 3 of 7 prompts of words/say" in note


def test_nothing_is_said_where_all_was_measured() -> None:
    assert notes_of(corpus("words"), corpus("general")) == []


def test_a_task_without_a_held_out_prompt_is_named_with_the_reason() -> None:
    configs = (
        TaskConfig(name="lost", file="lost.jsonl"),
        TaskConfig(name="taught", file="taught.jsonl", split="train"),
        TaskConfig(name="ruled", rule="define"),
        TaskConfig(name="kept", file="kept.jsonl"),
        TaskConfig(name="far", hub="org/name", online=True),
    )
    tasks = tuple(
        AnswerTask(name=name, prompts=prompts(measured), train=prompts(2), metrics=("exact_match",), max_tokens=4)
        for name, measured in (("lost", 0), ("taught", 0), ("kept", 1))
    )
    definition = DomainConfig(name="words", corpus=(SourceConfig(name="a", file="a.txt"),), root=Path(), tasks=configs)
    lines = task_notes([(definition, corpus("words", tasks=tasks))], answers=None)
    assert [line.split(":")[0].split()[2] for line in lines] == ["words/lost", "words/taught", "words/ruled"]
    assert "none of its 2 prompts is on the held-out side" in lines[0]
    assert "`split: train`" in lines[1] and "makes no prompt of the held-out documents" in lines[2]
    assert "evaluation.answers is 0" in task_notes([(definition, corpus("words", tasks=tasks))], answers=0)[-1]
