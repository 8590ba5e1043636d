"""Text of other sources: kept apart, guarded like held-out text, stored and counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from minigpt.corpus import build_corpus, load_corpus, save_corpus, statistics
from minigpt.corpus.dedup import words
from minigpt.domain.config import load_domain
from minigpt.errors import ConfigError, CorpusError
from minigpt.evaluation import suite_for
from minigpt.pipeline.read import guarded_text, separate
from minigpt.types import Corpus, Document

WORDS = [f"{first}{second}{third}" for first in "bdfgk" for second in "aeiou" for third in "lmnrst"]


def prose(seed: object, length: int = 60) -> str:
    return " ".join(Random(str(seed)).choices(WORDS, k=length))


def rows(name: str, count: int) -> list[dict[str, str]]:
    return [{"text": prose((name, number)), "source": f"{name}{number}"} for number in range(count)]


def domain_of(folder: Path, texts: dict[str, list[dict[str, str]]], **changes: Any) -> str:
    """A domain with one source for each split that is named."""
    for split, entries in texts.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    corpus = [{"name": split, "file": f"{split}.jsonl", "split": split, "license": "CC0"} for split in texts]
    (folder / "field.yaml").write_text(yaml.safe_dump({"name": "field", "corpus": corpus, **changes}))
    return str(folder / "field.yaml")


def text_of(documents: Sequence[Document]) -> list[str]:
    return [document.text for document in documents]


def test_other_text_is_kept_apart_whole_and_nothing_is_drawn_from_it(tmp_path: Path) -> None:
    texts = {"auto": rows("own", 40), "other": rows("far", 12)}
    corpus = build_corpus(load_domain(domain_of(tmp_path, texts)))
    assert sorted(text_of(corpus.other)) == sorted(entry["text"] for entry in texts["other"])
    rest = [*corpus.calibration, *corpus.train, *corpus.dev, *corpus.heldout]
    assert sorted(text_of(rest)) == sorted(entry["text"] for entry in texts["auto"])
    assert {item.name: item.measured_only for item in corpus.attributions} == {"auto": False, "other": True}
    assert statistics(corpus)["splits"]["other"]["documents"] == 12


def test_text_that_repeats_other_text_is_not_trained_on(tmp_path: Path) -> None:
    far = rows("far", 12)
    exact = {"text": far[0]["text"].upper(), "source": "exact"}
    near = {"text": far[1]["text"].replace(far[1]["text"].split()[30], "edited"), "source": "near"}
    half = {"text": " ".join([*far[2]["text"].split()[:40], *prose("x", 30).split()]), "source": "half"}
    texts = {"auto": [*rows("own", 40), exact, near, half], "other": far}
    corpus = build_corpus(load_domain(domain_of(tmp_path, texts)))
    kept = {document.source for split in ("calibration", "train", "dev") for document in getattr(corpus, split)}
    assert kept.isdisjoint({"exact", "near", "half"})
    assert len(corpus.other) == 12


def test_a_document_that_one_source_keeps_apart_is_in_no_other_split(tmp_path: Path) -> None:
    far = [*rows("far", 12), {"text": prose("mine"), "source": "own3"}]
    texts = {"train": rows("own", 40), "heldout": rows("h", 9), "other": far}
    corpus = build_corpus(load_domain(domain_of(tmp_path, texts)))
    assert "own3" in {document.source for document in corpus.other}
    assert "own3" not in {document.source for document in (*corpus.train, *corpus.calibration, *corpus.dev)}
    assert corpus.counts["declared_elsewhere"] == 1


def test_a_sample_of_documents_keeps_all_other_text(tmp_path: Path) -> None:
    path = domain_of(tmp_path, {"auto": rows("own", 40), "other": rows("far", 12)})
    corpus = build_corpus(load_domain(path), max_documents=15)
    rest = [*corpus.calibration, *corpus.train, *corpus.dev, *corpus.heldout]
    assert (len(corpus.other), len(rest)) == (12, 15)


def test_it_is_stored_and_a_corpus_without_its_file_is_refused(tmp_path: Path) -> None:
    corpus = build_corpus(load_domain(domain_of(tmp_path, {"auto": rows("own", 40), "other": rows("far", 12)})))
    save_corpus(corpus, tmp_path / "saved")
    assert load_corpus(tmp_path / "saved") == corpus
    (tmp_path / "saved" / "other.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"other\.jsonl is missing; build it again"):
        load_corpus(tmp_path / "saved")


def test_domain_and_general_text_respect_the_other_s_text_of_other_sources() -> None:
    def corpus(name: str, *extra: Document) -> Corpus:
        train, more, calibration, dev, heldout, other = (
            Document(text=prose((name, number)), source=f"{name}{number}") for number in range(6)
        )
        return Corpus(
            domain=name,
            train=(train, more, *extra),
            calibration=(calibration,),
            dev=(dev, *extra),
            heldout=(heldout,),
            other=(other,),
        )

    own, general = corpus("own"), corpus("general")
    copies = [Document(text=whole.other[0].text, source="copy") for whole in (general, own)]
    left = separate(corpus("own", copies[0]), corpus("general", copies[1]))
    for side, expected in zip(left, (own, general), strict=True):
        assert (side.train, side.dev, side.other) == (expected.train, expected.dev, expected.other)
    documents, _ = guarded_text(own, general)
    assert {*own.other, *general.other} <= set(documents)


def test_other_text_is_a_task_of_its_own_and_sampled_like_the_others(tmp_path: Path) -> None:
    corpus = build_corpus(load_domain(domain_of(tmp_path, {"auto": rows("own", 60), "other": rows("far", 30)})))
    general = build_corpus(load_domain(domain_of(tmp_path, {"auto": rows("g", 40), "other": rows("gf", 20)})))
    suite = suite_for(corpus, general, max_heldout_bytes=1500)
    assert list(suite.texts) == ["field", "field/other", "general", "general/other"]
    sizes = {task: sum(len(text.encode()) for text in text_of(documents)) for task, documents in suite.texts.items()}
    assert all(size <= 1500 for size in sizes.values()) and sizes["field/other"] > 750
    assert set(suite.texts["general/other"]) < set(general.other)


@pytest.mark.parametrize("name", ["other", "unseen", "train"])
def test_question_sets_cannot_have_the_names_of_texts(tmp_path: Path, name: str) -> None:
    path = domain_of(tmp_path, {"auto": rows("own", 4)}, questions=[{"name": name, "file": "q.jsonl"}])
    with pytest.raises(ConfigError, match=f"a question set cannot be called '{name}', the name of a text"):
        load_domain(path)


def test_questions_on_other_documents_are_unseen_and_their_text_is_not_trained_on(tmp_path: Path) -> None:
    from minigpt.corpus.guard import guarded_questions, split_sets_by_seen
    from minigpt.types import Question, QuestionSet

    corpus = build_corpus(load_domain(domain_of(tmp_path, {"auto": rows("own", 40), "other": rows("far", 12)})))
    measured = [*corpus.heldout, *corpus.other]
    asked = tuple(
        Question(question=" ".join(words(document.text)[:9]), choices=("a", "b"), answer=0, source=document.source)
        for document in (*corpus.train, *measured)
    )
    terms = QuestionSet(name="terms", questions=asked, derived=True)
    guarded = {question.source for question in guarded_questions(terms, measured).questions}
    assert guarded == {document.source for document in measured}
    unseen, seen = split_sets_by_seen([terms], corpus.train, measured, limits={}, seed=0)
    assert {question.source for question in unseen.questions} == guarded
    assert {question.source for question in seen.questions} == {document.source for document in corpus.train}
