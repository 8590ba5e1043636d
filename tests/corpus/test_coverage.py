"""Coverage of measured text by training text, against sets of words counted one by one."""

from __future__ import annotations

from random import Random

import pytest

from minigpt.corpus import coverage
from minigpt.corpus.coverage import SeenRuns, coverage_records, seen_runs
from minigpt.corpus.dedup import words
from minigpt.results import Coverage
from minigpt.types import Document

LEXICON = ["fever", "cough", "rash", "pain"]


def documents(seed: int, count: int, length: int) -> list[Document]:
    draw = Random(seed)
    return [
        Document(text=" ".join(draw.choices(LEXICON, k=draw.randrange(1, length))), source=f"d{draw.randrange(6)}")
        for _ in range(count)
    ]


def runs(text: str) -> list[tuple[str, ...]]:
    tokens = words(text)
    return [tuple(tokens[place : place + 8]) for place in range(len(tokens) - 7)]


@pytest.mark.parametrize("together", [1, 7, 1024])
def test_counts_equal_those_of_sets_of_words(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr(coverage, "TOGETHER", together)
    texts = {"own": documents(0, 12, 40), "other": documents(1, 7, 90)}
    training = documents(2, 40, 3000)
    known = {run for document in training for run in runs(document.text)}
    for task, counts in seen_runs(texts, iter(training)).items():
        assert counts.keys == tuple(dict.fromkeys(document.source for document in texts[task]))
        for key, seen, total in zip(counts.keys, counts.seen, counts.runs, strict=True):
            own = [run for document in texts[task] if document.source == key for run in runs(document.text)]
            assert (seen, total) == (sum(run in known for run in own), len(own))
        assert 0.1 < counts.share < 0.9


def test_no_run_crosses_from_one_passage_into_the_next() -> None:
    halves = [Document(text="one two three four", source="a"), Document(text="five six seven eight", source="a")]
    whole = [Document(text="one two three four five six seven eight", source="b")]
    assert seen_runs({"t": whole}, halves)["t"] == SeenRuns(keys=("b",), seen=(0,), runs=(1,))
    assert seen_runs({"t": halves}, whole)["t"] == SeenRuns(keys=("a",), seen=(0,), runs=(0,))


def test_case_and_punctuation_do_not_count() -> None:
    measured = [Document(text="The quick, brown fox; jumps over the lazy dog.", source="a")]
    training = [Document(text="THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG", source="b")]
    assert seen_runs({"t": measured}, training)["t"].share == 1.0


def test_boilerplate_over_many_documents_is_seen_though_no_pair_of_passages_is_alike() -> None:
    """Each measured sentence stands in another training document, among other text: the guard's blind spot."""
    draw = Random(3)
    sentences = [" ".join(f"s{number}w{place}" for place in range(12)) for number in range(20)]
    filler = [" ".join(f"f{draw.random()}" for _ in range(80)) for _ in sentences]
    texts = [f"{other} {sentence}" for other, sentence in zip(filler, sentences, strict=True)]
    training = [Document(text=text, source=text[:9]) for text in texts]
    measured = [Document(text=" ".join(sentences), source="letter")]
    counts = seen_runs({"t": measured}, training)["t"]
    assert counts.share == pytest.approx(20 * 5 / (240 - 7))
    from collections import Counter

    from minigpt.corpus.guard import drop_overlap

    assert drop_overlap(training, measured, (), Counter()) == training


def test_unseen_documents_are_those_below_two_percent_and_short_ones_are_neither() -> None:
    counts = SeenRuns(keys=("none", "little", "at", "much", "short"), seen=(0, 1, 2, 50, 0), runs=(9, 100, 100, 99, 0))
    assert counts.unseen == ("none", "little")
    assert coverage_records({"t": counts, "empty": SeenRuns(keys=("x",), seen=(0,), runs=(0,))}) == (
        Coverage(task="t", share=53 / 308, documents=5, unseen=2),
    )


def test_nothing_measured_and_nothing_trained_on() -> None:
    assert seen_runs({}, documents(0, 3, 30)) == {}
    assert seen_runs({"t": documents(0, 3, 30)}, [])["t"].share == 0
    assert seen_runs({"t": []}, documents(0, 3, 30))["t"] == SeenRuns(keys=(), seen=(), runs=())
