"""The whole pipeline on made-up text: what it promises holds for its result."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigpt.corpus import build, build_corpus, dedup, guard, load_corpus, save_corpus, statistics
from minigpt.corpus.store import SPLITS
from minigpt.domain.config import DomainConfig, QuestionsConfig, SourceConfig
from minigpt.errors import CorpusError
from minigpt.types import Corpus, Document, Question, QuestionSet

MEDICAL = [f"{stem}{end}" for stem in ("cardi", "neur", "hepat", "derm", "oste") for end in "abcdefghij"]
FOREIGN = [f"{stem}{end}" for stem in ("wheel", "engine", "brake", "tyre") for end in "abcdefghij"]


def prose(seed: Any, vocabulary: Sequence[str] = MEDICAL, length: int = 60) -> str:
    return " ".join(random.Random(str(seed)).choices(vocabulary, k=length))


def documents(count: int, rows: int = 3) -> list[Document]:
    return [Document(text=prose((i, j)), source=f"book|{i}", license="CC0") for i in range(count) for j in range(rows)]


class HashEncoder:
    """Bags of words as vectors: texts are close when they share words."""

    def encode(self, texts: Sequence[str]) -> Any:
        columns = {word: column for column, word in enumerate(MEDICAL + FOREIGN)}
        vectors = np.zeros((len(texts), len(columns)), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.split():
                row[columns[word]] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a domain from texts by declared split, and questions."""

    def make(
        texts: dict[str, list[Document]], questions: tuple[QuestionSet, ...] = (), limit: int | None = None
    ) -> DomainConfig:
        monkeypatch.setattr(build, "read_source", lambda source, *, root: iter(texts[source.name]))
        monkeypatch.setattr(build, "read_questions", lambda config, *, root: iter(questions))
        return DomainConfig(
            name="medical",
            seeds=(" ".join(MEDICAL),),
            corpus=tuple(
                SourceConfig(name=name, file=f"{name}.jsonl", split=name.partition("_")[0], citation=f"By {name}.")  # type: ignore[arg-type]
                for name in texts
            ),
            questions=tuple(
                QuestionsConfig(name=question_set.name, file="q.jsonl", limit=limit if question_set.derived else None)
                for question_set in questions
            ),
        )

    return make


def sources(passages: Sequence[Document]) -> set[str]:
    return {document.source for document in passages}


def pairs(corpus: Corpus) -> Iterator[tuple[str, str]]:
    return ((a, b) for i, a in enumerate(SPLITS) for b in SPLITS[i + 1 :])


def assert_sound(corpus: Corpus) -> None:
    """No document and no near duplicate on two sides, and nothing empty."""
    for a, b in pairs(corpus):
        assert sources(getattr(corpus, a)).isdisjoint(sources(getattr(corpus, b))), (a, b)
        for left in getattr(corpus, a):
            for right in getattr(corpus, b):
                shingles = [dedup.grams(dedup.words(d.text), dedup.SHINGLE) for d in (left, right)]
                assert dedup.jaccard(*shingles) < dedup.NEAR
    assert all(getattr(corpus, split) for split in SPLITS if split != "other")


def edited(text: str, times: int = 1) -> str:
    words = text.split()
    for position in range(times):
        words[5 + 20 * position] = "edited"
    return " ".join(words)


def test_splits_are_sound_and_all_is_counted(domain: Any) -> None:
    texts = documents(60)
    texts += [Document(text=edited(d.text), source=f"copy|{i}") for i, d in enumerate(texts[:90:3])]
    texts += [Document(text=d.text.upper(), source="shouting") for d in texts[:5]] + [Document(text=" ", source="void")]
    corpus = build_corpus(domain({"auto": texts}))
    assert_sound(corpus)
    counts = corpus.counts
    kept = sum(len(getattr(corpus, split)) for split in SPLITS)
    assert (counts["read"], counts["empty"], counts["exact_duplicates"]) == (216, 1, 5)
    assert counts["near_duplicates"] == 30
    assert kept == 180 == counts["read"] - sum(count for name, count in counts.items() if name != "read")


def test_same_seed_same_corpus_whatever_the_order(domain: Any) -> None:
    texts = documents(40) + [Document(text=edited(d.text), source="z") for d in documents(5)]
    first = build_corpus(domain({"auto": texts}), seed=4)
    random.Random(0).shuffle(texts)
    assert build_corpus(domain({"auto": texts}), seed=4) == first
    assert build_corpus(domain({"auto": texts}), seed=5).fingerprint != first.fingerprint


def test_declared_splits_are_honored(domain: Any) -> None:
    train, heldout = documents(30), [replace(d, source=f"exam|{d.source}", text=f"{d.text} x") for d in documents(5)]
    heldout += [Document(text=prose(("own", i)), source="own") for i in range(4)]
    heldout.append(replace(heldout[-1], text=edited(heldout[-1].text)))
    corpus = build_corpus(domain({"train_a": train, "heldout_b": heldout}))
    assert_sound(corpus)
    assert sorted(d.text for d in corpus.heldout) == sorted(d.text for d in heldout)
    assert corpus.counts["near_duplicates"] == 15
    assert {a.name: a.documents for a in corpus.attributions} == {"train_a": 25, "heldout_b": 6}
    with_dev = build_corpus(
        domain({"train": train, "heldout": heldout, "dev": [Document(text=prose("d"), source="d")]})
    )
    assert sources(with_dev.dev) == {"d"}


def test_text_of_test_questions_is_not_trained_on(domain: Any) -> None:
    texts = documents(60)
    leaked = [d for d in texts if d.source in {f"book|{i}" for i in range(0, 60, 2)}][::3]
    template = "Which of these is meant by the following words: {}?"
    questions = tuple(
        Question(question=template.format(" ".join(d.text.split()[10:30])), choices=("a", "b"), answer=0)
        for d in leaked
    )
    corpus = build_corpus(domain({"auto": texts}, (QuestionSet(name="exam", questions=questions),)))
    trained = [d.text for d in (*corpus.train, *corpus.calibration)]
    assert all(" ".join(d.text.split()[10:30]) not in text for d in leaked for text in trained)
    assert corpus.counts["overlaps_questions"] >= 20
    assert [question_set.name for question_set in corpus.questions] == ["exam"]


def test_the_fragments_of_a_blanked_question_are_guarded() -> None:
    first, second = prose("first", length=14).split(), prose("second", length=9).split()
    phrase = prose("turn", length=9)

    def question_set(*texts: str) -> QuestionSet:
        questions = tuple(
            Question(question=text, choices=("a", "b"), answer=0, source=f"s{index}", license="x")
            for index, text in enumerate(texts)
        )
        return QuestionSet(name="q", role="test", derived=True, questions=questions)

    guarded = question_set(
        f"Alpha {' '.join(first)} ___ tail one?",
        f"Beta ___ {' '.join(second)} ___ {phrase} ___ two?",
        f"Gamma ___ {phrase} ___ three?",
        f"Delta ___ {phrase} ___ four?",
    )
    texts = {
        "long": f"begins {' '.join(first[1:])} ends",
        "short": f"begins {' '.join(second)} ends",
        "part": f"begins {' '.join(second[:8])} ends",
        "turn": f"begins {phrase} ends",
    }
    pool = [Document(text=text, source=name, license="x") for name, text in texts.items()]
    tally: Counter[str] = Counter()
    kept = guard.drop_overlap(pool, (), [guarded], tally)
    assert [document.source for document in kept] == ["part", "turn"]
    assert tally == {"overlaps_questions": 2}


def test_a_domain_says_how_much_training_text_may_share_with_held_out_text() -> None:
    words = prose("heldout", length=60).split()
    near = " ".join([*words[:27], *prose("other", length=60).split()])
    pool = [Document(text=near, source="near", license="x")]
    heldout = [Document(text=" ".join(words), source="heldout", license="x")]
    assert guard.drop_overlap(pool, heldout, (), Counter()) == pool
    assert guard.drop_overlap(pool, heldout, (), Counter(), share=0.3) == []


def test_derived_questions_are_parted_by_what_was_trained_on(domain: Any) -> None:
    texts = documents(80, rows=1)
    questions = tuple(
        Question(question=f"Term of {d.source}?", choices=("a", "b"), answer=1, source=d.source) for d in texts
    )
    terms = QuestionSet(name="terms", questions=questions, derived=True)
    corpus = build_corpus(domain({"auto": texts}, (terms,)))
    unseen, seen = corpus.questions
    assert (unseen.name, unseen.seen, seen.name, seen.seen) == ("terms", False, "terms_seen", True)
    assert {q.source for q in unseen.questions} == sources(corpus.heldout)
    assert {q.source for q in seen.questions} == sources(corpus.train)
    few = build_corpus(domain({"auto": texts}, (terms,), limit=3))
    assert [len(question_set.questions) for question_set in few.questions] == [3, 3]


def test_a_test_question_is_not_in_the_dev_set(domain: Any) -> None:
    one, two = (Question(question=f"What is {name}?", choices=("x", "y"), answer=0) for name in "ab")
    sets = (QuestionSet(name="exam", questions=(one, one)), QuestionSet(name="dev", questions=(one, two), role="dev"))
    corpus = build_corpus(domain({"auto": documents(20)}, sets))
    assert {question_set.name: question_set.questions for question_set in corpus.questions} == {
        "exam": (one,),
        "dev": (two,),
    }
    assert corpus.counts["dropped_questions"] == 2


def test_derived_questions_with_two_right_choices_are_dropped(domain: Any) -> None:
    rows = [("bowing of the ___", ("shin", "thigh", "x"), 0), ("bowing of the ___", ("y", "thigh", "shin"), 1)]
    rows += [("bowing of the ___", ("nose", "y", "z"), 0), ("pain of the ___", ("thigh", "shin", "x"), 0)]
    questions = tuple(Question(question=q, choices=c, answer=a) for q, c, a in rows)
    sets = (QuestionSet(name="terms", questions=questions, derived=True), QuestionSet(name="exam", questions=questions))
    terms, exam = build_corpus(domain({"auto": documents(20)}, sets)).questions
    assert (terms.questions, terms.seen) == (questions[2:], None)
    assert exam.questions == questions


def test_relevance_filters_training_text_only(domain: Any) -> None:
    foreign = [Document(text=prose(("f", i), FOREIGN), source=f"car|{i}") for i in range(20)]
    definition = domain({"auto": documents(80) + foreign})
    plain = build_corpus(definition)
    filtered = build_corpus(definition, relevance=True, encoder=HashEncoder())
    assert_sound(filtered)
    assert filtered.heldout == plain.heldout and filtered.dev == plain.dev
    assert any(s.startswith("car") for s in sources(plain.heldout + plain.dev))
    assert any(s.startswith("car") for s in sources(plain.train))
    assert not any(s.startswith("car") for s in sources(filtered.train + filtered.calibration))
    assert filtered.counts["irrelevant"] == sum(s.startswith("car") for s in sources(plain.train + plain.calibration))
    random.Random(1).shuffle(texts := documents(80) + foreign)
    again = build_corpus(domain({"auto": texts}), relevance=True, encoder=HashEncoder())
    assert again == filtered


def test_max_documents_keeps_whole_documents_and_declared_text(domain: Any) -> None:
    definition = domain({"auto": documents(50), "heldout": [Document(text=prose("h"), source="h")]})
    corpus = build_corpus(definition, max_documents=12)
    everything = [d for split in SPLITS for d in getattr(corpus, split)]
    assert len(sources(everything)) == 13 and len(everything) == 37
    assert "h" in sources(corpus.heldout)
    assert corpus.counts["beyond_max_documents"] == 38 * 3


def test_no_text_and_too_little_text(domain: Any) -> None:
    with pytest.raises(CorpusError, match="2 passages read, all empty"):
        build_corpus(domain({"auto": [Document(text="\n", source="a"), Document(text="", source="b")]}))
    same = [Document(text=prose(0), source=f"s{i}") for i in range(8)]
    with pytest.raises(CorpusError, match=r"need 4 documents and 1 is left .*read 8.*exact duplicates 7"):
        build_corpus(domain({"auto": same}))
    assert_sound(build_corpus(domain({"auto": documents(4, rows=1)})))


def test_save_and_load(domain: Any, tmp_path: Path) -> None:
    sets = (
        QuestionSet(name="exam", questions=(Question(question="Ä\u2028?", choices=("x", "y"), answer=0),), note="n"),
    )
    corpus = build_corpus(domain({"auto": documents(12)}, sets))
    folder = tmp_path / "corpus"
    save_corpus(corpus, folder)
    save_corpus(corpus, folder)
    assert load_corpus(folder) == corpus
    (folder / "train.jsonl").write_text((folder / "train.jsonl").read_text("utf-8").replace("cardia", "liver"), "utf-8")
    with pytest.raises(CorpusError, match="changed after it was saved"):
        load_corpus(folder)
    (folder / "train.jsonl").write_text("{broken\n", "utf-8")
    with pytest.raises(CorpusError, match="damaged"):
        load_corpus(folder)
    (folder / "dev.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"No corpus in .*: dev\.jsonl is missing|damaged"):
        load_corpus(folder)
    with pytest.raises(CorpusError, match=r"corpus.json is missing"):
        load_corpus(tmp_path / "nowhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(CorpusError, match="something other than a corpus"):
        save_corpus(corpus, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_statistics(domain: Any) -> None:
    corpus = build_corpus(domain({"auto": documents(30)}))
    figures = statistics(corpus)
    assert sum(split["documents"] for split in figures["splits"].values()) == 30
    assert sum(split["words"] for split in figures["splits"].values()) == 90 * 60
    total = sum(split["bytes"] for split in figures["splits"].values())
    assert total == sum(len(d.text.encode()) for d in documents(30)) == figures["sources"][0]["bytes"]
    assert figures["sources"][0]["license"] == "CC0"
    assert figures["counts"] == dict(corpus.counts)
