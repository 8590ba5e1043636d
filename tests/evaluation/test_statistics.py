"""Bootstrap, metric classes and the choice of what to measure."""

from __future__ import annotations

from itertools import product

import evaluate as library
import numpy as np
import pytest

from minigpt.errors import CorpusError
from minigpt.evaluation import ItemScores, QuestionItems, TextItems, suite_for, summarize
from minigpt.evaluation.bootstrap import interval, resampled_sums
from minigpt.evaluation.metrics import METRICS, BitsPerByte, MultipleChoiceAccuracy, WordPerplexity
from minigpt.evaluation.suite import sample_documents, sample_questions
from minigpt.types import Corpus, Document, Question, QuestionSet

TEXT = TextItems(keys=("a", "b"), bits=(12.0, 4.0), bytes=(8, 8), words=(2, 2), tokens=(4, 4))


def test_resampling_draws_as_many_items_as_there_are_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.stack([np.ones(7), np.arange(7.0)], axis=1)
    drawn = resampled_sums(columns, seed=3, resamples=50)
    assert drawn.shape == (50, 2)
    assert (drawn[:, 0] == 7).all()
    assert len(set(drawn[:, 1])) > 10
    np.testing.assert_array_equal(drawn, resampled_sums(columns, seed=3, resamples=50))
    assert (drawn != resampled_sums(columns, seed=4, resamples=50)).any()
    monkeypatch.setattr("minigpt.evaluation.bootstrap.BLOCK", 20)
    np.testing.assert_array_equal(drawn, resampled_sums(columns, seed=3, resamples=50))


def test_the_interval_approaches_the_exact_bootstrap_distribution() -> None:
    """All 3^3 resamples of three items, enumerated."""
    bits, sizes = np.array([3.0, 10.0, 4.0]), np.array([4.0, 5.0, 9.0])
    exact = [bits[list(pick)].sum() / sizes[list(pick)].sum() for pick in product(range(3), repeat=3)]
    drawn = resampled_sums(np.stack([bits, sizes], axis=1), resamples=40_000)
    values = drawn[:, 0] / drawn[:, 1]
    assert values.mean() == pytest.approx(np.mean(exact), abs=0.01)
    assert values.std() == pytest.approx(np.std(exact), abs=0.01)
    bounds = interval(17 / 18, values)
    assert (bounds.low, bounds.high) == pytest.approx((min(exact), max(exact)), abs=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        draws = (generator.random(150) < 0.3).astype(float)
        sums = resampled_sums(np.stack([draws, np.ones(150)], axis=1), seed=trial, resamples=400)
        bounds = interval(draws.mean(), sums[:, 0] / sums[:, 1])
        covered += bounds.low <= 0.3 <= bounds.high
    assert 0.89 <= covered / 200 <= 0.99


def test_pairing_sees_a_small_gain_that_intervals_of_their_own_hide() -> None:
    generator = np.random.default_rng(1)
    sizes = tuple(generator.integers(200, 3000, size=60).tolist())
    bits = tuple((np.array(sizes) * generator.uniform(0.5, 1.5, size=60)).tolist())
    parent = TextItems(keys=tuple(map(str, range(60))), bits=bits, bytes=sizes, words=sizes, tokens=sizes)
    better = TextItems(
        keys=parent.keys, bits=tuple(0.99 * value for value in bits), bytes=sizes, words=sizes, tokens=sizes
    )
    before = summarize(ItemScores(texts={"d": parent}))[0]
    after = summarize(ItemScores(texts={"d": better}), parent=ItemScores(texts={"d": parent}))[0]
    assert after.low < before.value < after.high
    difference = after.paired_difference_vs_parent
    assert difference is not None
    assert difference.value == pytest.approx(after.value - before.value)
    assert difference.low <= difference.value <= difference.high < 0


def test_text_metrics_are_ratios_of_sums() -> None:
    values = {result.metric: result.value for result in summarize(ItemScores(texts={"d": TEXT}))}
    assert values == pytest.approx({"bits_per_byte": 1.0, "word_perplexity": 16.0, "token_perplexity": 4.0})


def test_question_metrics_count_right_picks() -> None:
    items = QuestionItems(
        keys=("a", "b", "c", "d"), answers=(0, 1, 2, 3), picks=(0, 1, 2, 0), picks_norm=(1, 1, 1, 1), chance=0.25
    )
    results = {result.metric: result for result in summarize(ItemScores(questions={"d/q": items}))}
    assert (results["accuracy"].value, results["accuracy_norm"].value) == (0.75, 0.25)
    assert {(result.n, result.chance, result.higher_is_better) for result in results.values()} == {(4, 0.25, True)}


def test_perplexity_of_text_without_white_space_stays_a_number() -> None:
    huge = TextItems(keys=("a",), bits=(5000.0,), bytes=(3000,), words=(1,), tokens=(1000,))
    assert all(np.isfinite(result.high) for result in summarize(ItemScores(texts={"d": huge})))


def test_the_metrics_are_metrics_of_the_library_and_need_no_hub() -> None:
    assert all(issubclass(kind, library.Metric) for kind in METRICS.values())
    assert BitsPerByte().compute(predictions=[8.0, 16.0], references=[4, 8]) == {"bits_per_byte": 2.0}
    assert WordPerplexity().compute(predictions=[6.0], references=[2]) == {"word_perplexity": 8.0}
    metric = MultipleChoiceAccuracy()
    metric.add_batch(predictions=[1, 2], references=[1, 0])
    metric.add_batch(predictions=[3, 3], references=[3, 3])
    assert metric.compute() == {"accuracy": 0.75}
    assert "UTF-8" in BitsPerByte().description


def corpus(domain: str, *sets: QuestionSet, passages: int = 40) -> Corpus:
    heldout = tuple(Document(text=f"{domain} {n} " + "x" * n, source=f"d{n // 2}") for n in range(passages))
    return Corpus(domain=domain, calibration=(), train=(), dev=(), heldout=heldout, questions=sets)


def question_set(name: str, role: str = "test", count: int = 30) -> QuestionSet:
    questions = tuple(Question(question=f"{name} {n}", choices=("a", "b"), answer=n % 2) for n in range(count))
    return QuestionSet(name=name, questions=questions, role=role)  # type: ignore[arg-type]


def test_the_suite_holds_heldout_text_and_test_questions_under_the_names_of_the_report() -> None:
    suite = suite_for(
        corpus("law", question_set("terms"), question_set("tune", "dev")), corpus("general", question_set("terms"))
    )
    assert list(suite.texts) == ["law", "general"]
    assert list(suite.questions) == ["law/terms", "general/terms"]
    assert len(suite.texts["law"]) == 40
    assert list(suite_for(corpus("general"), corpus("general")).texts) == ["general"]


def test_a_suite_without_text_or_with_two_sets_of_one_name_is_refused() -> None:
    with pytest.raises(CorpusError, match="no held-out text"):
        suite_for(corpus("law", passages=0))
    with pytest.raises(CorpusError, match="law/terms"):
        suite_for(corpus("law", question_set("terms"), question_set("terms")))


def test_samples_keep_to_the_limit_and_depend_on_the_items_not_their_order() -> None:
    documents = corpus("law").heldout
    taken = sample_documents(documents, 500, seed=0)
    assert 300 < sum(len(document.text.encode()) for document in taken) <= 500
    assert (
        set(sample_documents(documents[::-1], 500, seed=0))
        == set(taken)
        != set(sample_documents(documents, 500, seed=1))
    )
    assert len(sample_documents(documents, 1, seed=0)) == 1
    some = sample_questions(question_set("terms"), 10, seed=0).questions
    assert len(some) == 10
    assert list(some) == sorted(some, key=question_set("terms").questions.index)
    assert sample_questions(question_set("terms"), 99, seed=0) == question_set("terms")
