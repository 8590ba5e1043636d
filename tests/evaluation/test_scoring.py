"""Scores of free answers, against values by hand, brute force and other libraries."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from minigpt.corpus.task_rows import NUMBERS, PLAIN, WORDS
from minigpt.domain.tasks import ANSWER_METRICS
from minigpt.evaluation.answers import label_influences
from minigpt.evaluation.ratios import RATIOS
from minigpt.evaluation.scoring import (
    CHECKS,
    NO_LABEL,
    aggregate_labels,
    aggregate_shares,
    answer_of,
    complies,
    exact_match,
    followed,
    label_f1,
    label_of,
    normalized,
    process_results,
    rouge_l,
    token_f1,
)
from minigpt.metrics import ANSWER_METRICS as MEASURED


def test_texts_are_normalized_as_squad_does() -> None:
    assert normalized("  The Heart,  an ORGAN of a body!") == "heart organ of body"
    assert normalized("the") == ""
    assert normalized("theater") == "theater"


def test_an_answer_is_its_first_line_or_all_of_it() -> None:
    assert answer_of(" the heart \nQuestion:", whole=False) == "the heart"
    assert answer_of("\nthe heart", whole=False) == ""
    assert answer_of("\none\ntwo\n", whole=True) == "one\ntwo"


def test_exact_match_takes_any_right_answer() -> None:
    assert exact_match("The heart.", ("heart", "cor")) == 1
    assert exact_match("Cor", ("heart", "cor")) == 1
    assert exact_match("heart valve", ("heart", "cor")) == 0


def test_token_f1_by_hand() -> None:
    # Two of three words are right, and two of four of the right answer are there: 2 * 2 / (3 + 4).
    assert token_f1("left heart valve", ("left valve near lung",)) == pytest.approx(4 / 7)
    assert token_f1("left left", ("left",)) == pytest.approx(2 / 3)
    assert token_f1("", ("left",)) == 0
    assert token_f1("the", ("a",)) == 1
    assert token_f1("lung", ("heart", "the lung")) == 1


def test_rouge_l_is_that_of_the_package() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    draw = random.Random(0)
    words = ["heart", "lung", "the", "of", "vein", "blood", "A-1"]
    for _ in range(60):
        ours, right = (" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(2))
        assert rouge_l(ours, (right,)) == pytest.approx(scorer.score(right, ours)["rougeL"].fmeasure)
    assert rouge_l("", ("heart",)) == 0
    assert rouge_l("сердце и кровь", ("кровь и сердце",)) == pytest.approx(1 / 3)


def test_label_f1_is_macro_f1_over_the_labels_that_are_right_somewhere() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = random.Random(1)
    for _ in range(30):
        right = [draw.randrange(3) for _ in range(12)]
        ours = [draw.choice([0, 1, 2, NO_LABEL]) for _ in range(12)]
        expected = metrics.f1_score(right, ours, labels=sorted(set(right)), average="macro", zero_division=0)
        assert label_f1(right, ours) == pytest.approx(expected)
        assert aggregate_labels(list(zip(right, ours, strict=True))) == pytest.approx(expected)
        column = label_influences(right, ours)
        assert sum(column) / len(column) == pytest.approx(expected)


def test_the_numbers_of_items_are_their_influence_on_label_f1() -> None:
    """The effect of giving an item a little more weight, by a finite difference."""
    right, ours = [0, 0, 1, 1, 2, 0], [0, 1, 1, NO_LABEL, 2, 0]
    value, step, number = label_f1(right, ours), 10_000, len(right)
    for place, column in enumerate(label_influences(right, ours)):
        heavier = ([*right * step, right[place]], [*ours * step, ours[place]])
        slope = (label_f1(*heavier) - value) * step * number
        assert column == pytest.approx(value + slope, abs=2e-3)


def test_a_label_is_found_whatever_its_case_and_point() -> None:
    assert label_of("Inherited disease.", ("disease", "inherited disease")) == 1
    assert label_of("an illness", ("disease", "inherited disease")) == NO_LABEL


def test_form_is_checked_to_the_letter() -> None:
    assert complies("yes", ("yes", "no"), "") == 1
    assert complies("Yes", ("yes", "no"), "") == 0
    assert complies("12 mg", (), r"\d+ mg") == 1
    assert complies("about 12 mg", (), r"\d+ mg") == 0


@pytest.mark.parametrize(
    ("kind", "value", "right", "wrong"),
    [
        ("json", "", '["a", 1]', 'Here: ["a"]'),
        ("json", "", '{"a": []}', "12"),
        ("sentences", 2, "One is here. Two is 2!", "Only one."),
        ("sentences", 1, "Is it? ...".replace(" ...", ""), "Yes. No."),
        ("words_at_most", 3, "one two-fold three", "one two three four"),
        ("words_at_least", 3, "it isn't one", "two words"),
        ("bullets", 2, "- a\n* b", "- a\nb"),
        ("bullets", 2, "- a\n\n- b", "- a"),
        ("lines", 2, "a\n\nb", "a"),
        ("contains", "water", "Water, please", "waterfall"),
        ("avoids", "wet", "It pours", "It is wet."),
        ("starts_with", "Once", "Once more", "At once"),
        ("ends_with", "Take care!", "Bye. Take care!", "Take care! Bye"),
        ("one_of", "yes|no", "no.", "No idea"),
        ("lower_case", "", "all low 1", "Not low"),
        ("lower_case", "", "a", "12"),
        ("upper_case", "", "ICE AHEAD", "Ice AHEAD"),
        ("number", "", "1,440", "eight"),
        ("no_commas", "", "a and b", "a, b"),
        ("quoted", "", '"yes"', 'say "yes"'),
    ],
)
def test_constraints(kind: str, value: object, right: str, wrong: str) -> None:
    constraint = [{"kind": kind, "value": value}]
    assert followed(right, constraint) == 1
    assert followed(wrong, constraint) == 0
    assert followed("  ", constraint) == 0


def test_the_tables_name_the_same_checks_and_metrics() -> None:
    assert set(CHECKS) == NUMBERS | WORDS | PLAIN
    assert set(ANSWER_METRICS) < set(MEASURED) <= set(RATIOS)


def test_lm_eval_gets_the_same_scores() -> None:
    row = {
        "answers": ["heart"],
        "choices": ["heart", "lung"],
        "labels": ["lung", "heart"],
        "regex": "",
        "constraints": json.dumps([{"kind": "lower_case", "value": ""}, {"kind": "number", "value": ""}]),
        "metrics": list(MEASURED),
        "whole": False,
    }
    assert process_results(row, [" heart\nlung"]) == {
        "exact_match": 1.0,
        "token_f1": 1.0,
        "label_f1": (1, 1),
        "rouge_l": 1.0,
        "format_compliance": 1.0,
        "instructions_followed": 0.0,
        "constraints_followed": (1, 2),
    }
    assert aggregate_shares([(1, 2), (2, 2)]) == pytest.approx(3 / 4)


def test_the_longest_common_subsequence_by_brute_force() -> None:
    left, right = list("abcbd"), list("bdcab")
    best = max(
        size
        for size in range(6)
        for chosen in itertools.combinations(range(5), size)
        if _is_subsequence([left[place] for place in chosen], right)
    )
    assert rouge_l(" ".join(left), (" ".join(right),)) == pytest.approx(2 * best / 10)


def _is_subsequence(words: list[str], text: list[str]) -> bool:
    """Return True if the words stand in the text in this order."""
    rest = iter(text)
    return all(word in rest for word in words)
