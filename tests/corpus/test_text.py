"""Cleaning and repeated text."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.corpus import dedup
from minigpt.corpus.cleaning import drop_unknown_ends, sample_documents
from minigpt.corpus.normalize import normalize
from minigpt.corpus.prose import documents_of
from minigpt.corpus.split import Passage, by_draw
from minigpt.types import Document

VOCABULARY = [f"word{number}" for number in range(400)]


def prose(seed: int, length: int = 60) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length))


def hits(rule: dedup.Overlap, text: str) -> bool:
    return bool(rule.matches(dedup.hash_texts([text]))[0])


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("cafe\u0301", "café"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a\x00b\x07c\ufeffd\u200be\u00adf", "abcdef"),
        ("a\u00a0b \t  c  \nd", "a b c\nd"),
        ("first\n\n\n\n  \nsecond", "first\n\nsecond"),
        ("list:\n    - indented", "list:\n    - indented"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("क्\u200dष 👩\u200d⚕️", "क्\u200dष 👩\u200d⚕️"),
        (" \n\t\n ", ""),
    ],
)
def test_normalize(raw: str, clean: str) -> None:
    assert normalize(raw) == clean


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters() | st.sampled_from(" \t\n\r\u00a0\u0301\u2028\u200b\ufeffé"), max_size=60))
def test_normalize_is_idempotent_and_writable(raw: str) -> None:
    clean = normalize(raw)
    assert normalize(clean) == clean
    assert clean.encode("utf-8").decode("utf-8") == clean
    assert unicodedata.is_normalized("NFC", clean)
    assert not {"\r", "\u00a0", "\x00"} & set(clean)
    assert "\n\n\n" not in clean


def test_exact_ignores_case_punctuation_and_space() -> None:
    assert dedup.drop_exact_duplicates(["The heart.", "Lung", "the  HEART", "!!", "??"]) == [0, 1, 3, 4]


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert dedup.words("Das Herz pumpt 東京 1,5 Liter") == ["das", "herz", "pumpt", "東", "京", "1", "5", "liter"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=14), st.lists(st.sampled_from("abcdef"), max_size=14))
def test_jaccard_of_grams_is_that_of_word_runs(left: list[str], right: list[str]) -> None:
    def runs(tokens: list[str]) -> set[tuple[str, ...]]:
        return {tuple(tokens[i : i + 3]) for i in range(max(1, len(tokens) - 2))} if tokens else set()

    union = runs(left) | runs(right)
    expected = len(runs(left) & runs(right)) / len(union) if union else 0.0
    assert dedup.jaccard(dedup.grams(left, 3), dedup.grams(right, 3)) == pytest.approx(expected)


def test_grams_are_the_same_on_every_machine() -> None:
    assert dedup.grams(["the", "heart", "beats"], 2).tolist() == dedup.grams(["the", "heart", "beats"], 2).tolist()
    assert dedup.grams(["heart"], 1).dtype == np.uint64
    assert len(dedup.grams([], 5)) == 0


def test_distinct_drops_the_later_near_duplicate() -> None:
    original = prose(1, 200)
    edited = original.split()
    edited[100] = "changed"
    texts = [original, prose(2, 200), " ".join(edited), prose(3, 200)]
    assert dedup.drop_near_duplicates(texts) == [0, 1, 3]


def test_distinct_keeps_protected_text_and_drops_what_resembles_it() -> None:
    original = prose(1, 200)
    texts = [original + " end", prose(2), original, original + " stop"]
    assert dedup.drop_near_duplicates(texts, protected=[2, 3]) == [1, 2, 3]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_no_two_distinct_texts_are_near_duplicates(seed: int) -> None:
    rng = random.Random(seed)
    texts = []
    for number in range(6):
        tokens = prose(seed + number, 80).split()
        texts.append(" ".join(tokens))
        for _ in range(3):
            for _ in range(rng.choice((1, 1, 2, 20))):
                tokens[rng.randrange(80)] = "edit"
            texts.append(" ".join(tokens))
    kept = dedup.drop_near_duplicates(texts)

    def similarity(a: int, b: int) -> float:
        left, right = ({tuple(t.split()[i : i + 5]) for i in range(76)} for t in (texts[a], texts[b]))
        return len(left & right) / len(left | right)

    assert all(similarity(a, b) < 0.8 for a in kept for b in kept if a < b)
    dropped = set(range(len(texts))) - set(kept)
    assert all(any(similarity(a, b) >= 0.8 for b in kept) for a in dropped)


def test_overlap_sees_containment_both_ways() -> None:
    short, long = prose(5, 30), prose(6, 300)
    holds_short = f"{long} {short}"
    assert hits(dedup.Overlap([short], size=8, share=0.5), holds_short)
    assert hits(dedup.Overlap([holds_short], size=8, share=0.5), short)
    assert not hits(dedup.Overlap([short], size=8, share=0.5), long)
    one_phrase = f"{long} {' '.join(short.split()[:10])}"
    assert not hits(dedup.Overlap([short], size=8, share=0.5), one_phrase)


def test_overlap_of_a_question_is_one_run_of_words() -> None:
    question = prose(7, 20)
    rule = dedup.Overlap([question, prose(8, 10), "too short"], size=13, share=0)
    assert hits(rule, f"{prose(9)} {' '.join(question.split()[3:16])} {prose(10)}")
    assert not hits(rule, f"{prose(9)} {' '.join(question.split()[3:15])} {prose(10)}")
    assert hits(rule, f"{prose(9)} {prose(8, 10)}")
    assert not hits(rule, "this is too short, far too short to tell anything away by chance")
    assert not hits(dedup.Overlap([], size=13, share=0), question)


FEW_WORDS = st.lists(st.sampled_from("abc"), max_size=24).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(
    targets=st.lists(FEW_WORDS, max_size=4),
    texts=st.lists(FEW_WORDS, max_size=6),
    size=st.integers(2, 13),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_many_texts_at_once_are_judged_as_each_alone(
    targets: list[str], texts: list[str], size: int, share: float
) -> None:
    """By the definition, with sets of words; runs across the border of two texts are none."""

    def runs(text: str, length: int) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}

    def given_away(text: str) -> bool:
        long = [target for target in targets if len(target.split()) >= dedup.Overlap.SHORTEST]
        for length in {min(size, len(target.split())) for target in long}:
            alike = [runs(target, length) for target in long if min(size, len(target.split())) == length]
            text_runs = runs(text, length)
            common = text_runs & set().union(*alike)
            if common and (
                len(common) >= share * len(text_runs)
                or any(len(text_runs & target_runs) >= share * len(target_runs) for target_runs in alike)
            ):
                return True
        return False

    rule = dedup.Overlap(targets, size=size, share=share)
    expected = [given_away(text) for text in texts]
    assert rule.matches(dedup.hash_texts(texts)).tolist() == expected
    assert [hits(rule, text) for text in texts] == expected


def test_a_document_ends_where_its_last_passage_does() -> None:
    """Cuts are no ends; a document of several rows does not say which of them is its last."""
    cut = list(documents_of("book", ["A sentence of the book. " * 90] * 3, license="CC0"))
    assert len(cut) > 1 and [passage.ends for passage in cut] == [False] * (len(cut) - 1) + [True]
    rows = [Document(text=text, source="rows") for text in ("one", "two")]
    passages = [Passage(document=document, origin="x") for document in (*cut, *rows)]
    kept = [passage.document.ends for passage in drop_unknown_ends(passages)]
    assert kept == [passage.ends for passage in cut] + [False, False]
    assert drop_unknown_ends(passages[::-1]) == drop_unknown_ends(passages)[::-1]


def test_the_sample_of_documents_is_that_of_a_whole_list_in_any_order() -> None:
    draws = random.Random(3)
    passages = [
        Passage(
            document=Document(text=f"passage {number}", source=f"d{draws.randrange(60)}"),
            origin="o",
            declared=draws.choice(("auto", "auto", "train", "dev", "heldout")),
        )
        for number in range(300)
    ]
    free = {passage.document.source for passage in passages if passage.declared in ("auto", "train")}
    for seed, limit in ((0, 1), (1, 7), (2, 59), (3, 1000), (4, None)):
        kept = set(by_draw(free, seed)[:limit])
        expected = [item for item in passages if item.declared in ("dev", "heldout") or item.document.source in kept]
        for order in (passages, passages[::-1]):
            tally: Counter[str] = Counter()
            sampled = sample_documents(iter(order), limit, seed, tally)
            assert sampled == [item for item in order if item in expected]
            assert tally["beyond_max_documents"] == len(passages) - len(expected)
