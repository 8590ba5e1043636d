"""Intervals, metric classes and the choice of what to measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import evaluate as library
import numpy as np
import pytest

from minigpt.errors import CorpusError
from minigpt.evaluation import ItemScores, QuestionItems, TextItems, suite_for, summarize
from minigpt.evaluation.intervals import (
    effective_number,
    half_width,
    influences,
    share_difference,
    share_interval,
    t_quantile,
)
from minigpt.evaluation.metrics import METRICS, BitsPerByte, MultipleChoiceAccuracy, WordPerplexity
from minigpt.evaluation.paired import metric_interval, paired
from minigpt.evaluation.suite import sample_documents, sample_questions
from minigpt.types import Corpus, Document, Question, QuestionSet

TEXT = TextItems(keys=("a", "b"), bits=(12.0, 4.0), bytes=(8, 8), words=(2, 2), tokens=(4, 4))


def test_the_quantile_of_t_is_that_of_the_tables() -> None:
    """Values of printed tables; between them the quantile falls."""
    table = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 19: 2.0930, 47: 2.0117, 1e7: 1.95996}
    for freedom, quantile in table.items():
        assert t_quantile(freedom) == pytest.approx(quantile, abs=6e-5)
    grid = [t_quantile(freedom) for freedom in np.linspace(2, 60, 200)]
    assert grid == sorted(grid, reverse=True)
    assert t_quantile(0.3) == t_quantile(1)


def test_items_of_one_size_give_the_interval_of_the_textbook() -> None:
    """Mean and Student's t of four values, worked out by hand: sd of the mean 0.6455, times 3.1824."""
    columns = np.stack([np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4)], axis=1)
    bounds = metric_interval(columns, "bits_per_byte")
    assert (bounds.value, bounds.low, bounds.high) == pytest.approx((2.5, 2.5 - 2.05426, 2.5 + 2.05426), abs=1e-4)
    assert effective_number(columns[:, 1]) == 4


def test_an_influence_is_what_leaving_the_item_out_changes() -> None:
    bits, sizes = np.array([3.0, 10.0, 4.0]), np.array([4.0, 5.0, 9.0])
    others = [(17 - bits[at]) / (18 - sizes[at]) for at in range(3)]
    np.testing.assert_allclose(influences(bits, sizes), 17 / 18 - np.array(others))
    assert influences(np.array([5.0]), np.array([2.0])).tolist() == [0.0]


def test_a_large_document_counts_for_more_than_it_did_by_its_residual() -> None:
    """The jackknife is wider than the variance of residuals, the more so the larger the document."""
    sizes = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 5.0])
    bits = sizes * np.array([1.0, 1.1, 0.9, 1.0, 1.1, 0.8])
    assert effective_number(sizes) == pytest.approx(100 / 30)
    plain = (bits - bits.sum() / sizes.sum() * sizes) / sizes.sum()
    effects = influences(bits, sizes)
    assert abs(effects[-1]) == pytest.approx(2 * abs(plain[-1]))
    assert half_width(effects, 6) > half_width(plain, 6)
    assert half_width(effects, effective_number(sizes)) > half_width(effects, 6)


def covered(draw: Callable[[np.random.Generator], tuple[bool, ...]], trials: int = 600) -> Any:
    """Share of trials in which each interval holds the truth."""
    generator = np.random.default_rng(0)
    return np.mean([draw(generator) for _ in range(trials)], axis=0)


@pytest.mark.parametrize("metric", ["bits_per_byte", "word_perplexity"])
@pytest.mark.parametrize("count", [20, 48])
def test_intervals_of_few_uneven_documents_hold_the_truth_as_often_as_they_say(metric: str, count: int) -> None:
    """Document lengths spread over a factor of ten; a percentile bootstrap of 20 such holds it in 90 %."""

    def holds(generator: np.random.Generator) -> tuple[bool, ...]:
        sizes = np.exp(generator.normal(7, 0.6, count))
        rate, gain = np.exp(generator.normal(-0.2, 0.2, count)), generator.normal(-0.08, 0.1, count)
        parent = np.stack([rate * sizes, sizes], axis=1)
        ours = np.stack([(rate + gain) * sizes, sizes], axis=1)
        truth, difference = np.exp(-0.2 + 0.02), -0.08
        if metric == "word_perplexity":
            truth, difference = 2**truth, 2 ** (truth - 0.08) - 2**truth
        own, both = metric_interval(parent, metric), paired(ours, parent, metric)
        return own.low <= truth <= own.high, both.low <= difference <= both.high

    shares = covered(holds)
    assert (shares >= 0.92).all()
    assert (shares <= 0.98).all()


def test_ratios_of_two_models_hold_the_truth_as_often_as_they_say() -> None:
    def holds(generator: np.random.Generator) -> tuple[bool, ...]:
        sizes = np.exp(generator.normal(7, 0.6, 24))
        rate = np.exp(generator.normal(-0.2, 0.2, 24))
        ours = rate * np.exp(generator.normal(-0.1, 0.1, 24))
        columns = [np.stack([values * sizes, sizes], axis=1) for values in (ours, rate)]
        bounds = paired(*columns, "bits_per_byte", how="ratio")
        return (bounds.low <= np.exp(-0.1 + 0.005) <= bounds.high,)

    assert 0.92 <= covered(holds) <= 0.98


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_accuracies_hold_the_truth_as_often_as_they_say(share: float) -> None:
    def holds(generator: np.random.Generator) -> tuple[bool, ...]:
        bounds = share_interval((generator.random(60) < share).astype(float))
        return (bounds.low <= share <= bounds.high,)

    assert 0.92 <= covered(holds) <= 0.99


def test_differences_of_accuracies_hold_the_truth_as_often_as_they_say() -> None:
    def holds(generator: np.random.Generator) -> tuple[bool, ...]:
        parent = generator.random(100) < 0.5
        ours = np.where(generator.random(100) < 0.2, generator.random(100) < 0.75, parent)
        bounds = share_difference(ours.astype(float), parent.astype(float))
        return (bounds.low <= 0.05 <= bounds.high,)

    assert 0.92 <= covered(holds) <= 0.985


def test_differences_of_scores_hold_the_truth_and_show_losses_that_are_there() -> None:
    """ROUGE-L and F1 differ by little on an item: items of a whole point would hide what thirty items show."""

    def holds(generator: np.random.Generator) -> tuple[bool, ...]:
        parent = generator.beta(3, 9, 30)
        ours = parent + generator.normal(-0.06, 0.08, 30)
        bounds = share_difference(ours, parent)
        return bounds.low <= -0.06 <= bounds.high, bounds.high < 0

    truth, shown = covered(holds)
    assert 0.92 <= truth <= 0.995
    assert shown > 0.9


@pytest.mark.parametrize("metric", ["recitation", "constraints_followed", "label_f1"])
def test_a_share_that_no_item_shows_is_not_proved_to_be_nothing(metric: str) -> None:
    sizes = np.full(16, 100.0)
    none = metric_interval(np.stack([0 * sizes, sizes], axis=1), metric)
    assert none.low == none.value == 0 and 0.1 < none.high < 0.3
    every = metric_interval(np.stack([sizes, sizes], axis=1), metric)
    assert every.high == every.value == 1 and 0.7 < every.low < 0.9


def test_no_share_reaches_beyond_one() -> None:
    columns = np.stack([np.array([90.0, 100.0, 100.0]), np.full(3, 100.0)], axis=1)
    assert metric_interval(columns, "recitation").high == 1.0


def test_scores_that_are_alike_have_a_width_too() -> None:
    scores = np.random.default_rng(0).beta(3, 9, 40)
    bounds = share_difference(scores, scores)
    assert bounds.value == 0 and -0.02 < bounds.low < -0.002 and bounds.low == -bounds.high


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    """8 of 10 by the formula in the textbook; the variance of the sample is that of 9 answers."""
    z, n = 2.262157, 9
    center, spread = (0.8 + z**2 / (2 * n)), z * np.sqrt(0.8 * 0.2 / n + z**2 / (4 * n**2))
    bounds = share_interval(np.array([1.0] * 8 + [0.0] * 2))
    expected = (0.8, (center - spread) / (1 + z**2 / n), (center + spread) / (1 + z**2 / n))
    assert (bounds.value, bounds.low, bounds.high) == pytest.approx(expected, abs=1e-5)
    every = share_interval(np.ones(30))
    assert 0.8 < every.low < 0.95
    assert every.high == every.value == 1.0


def test_answers_averaged_over_seeds_give_a_narrower_interval_than_single_ones() -> None:
    generator = np.random.default_rng(2)
    runs = (generator.random((4, 200)) < 0.5).astype(float)
    single, mean = share_interval(runs[0]), share_interval(runs.mean(0))
    assert mean.high - mean.low < 0.6 * (single.high - single.low)


def test_models_that_answer_alike_may_still_differ_on_other_questions() -> None:
    right = np.array([1.0, 0.0] * 50)
    bounds = share_difference(right, right)
    assert bounds.value == 0
    assert -0.05 < bounds.low < -0.01
    assert bounds.low == -bounds.high


def test_a_single_item_has_no_width_and_a_value_never_falls_below_nothing() -> None:
    one = metric_interval(np.array([[8.0, 4.0]]), "word_perplexity")
    assert (one.low, one.value, one.high) == (4.0, 4.0, 4.0)
    two = metric_interval(np.array([[8.0, 4.0], [0.1, 4.0]]), "bits_per_byte")
    assert two.low == 0.0 < two.value < two.high


def test_a_perplexity_has_the_interval_of_its_exponent() -> None:
    columns = np.stack([np.array([5.0, 7.0, 6.5, 9.0]), np.array([4.0, 4.0, 5.0, 6.0])], axis=1)
    exponent, perplexity = (metric_interval(columns, metric) for metric in ("bits_per_byte", "word_perplexity"))
    assert (perplexity.low, perplexity.high) == pytest.approx((2**exponent.low, 2**exponent.high))


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


def test_a_loss_in_proportion_has_a_ratio_without_width_and_shares_at_their_ends_have_none() -> None:
    bits = np.random.default_rng(3).uniform(50, 150, 40)
    documents = {"keys": tuple(map(str, range(40))), "bytes": (100,) * 40, "words": (20,) * 40, "tokens": (30,) * 40}
    parent = ItemScores(texts={"d": TextItems(bits=tuple(bits), **documents)})
    worse = ItemScores(texts={"d": TextItems(bits=tuple(1.2 * bits), **documents)})
    first = {result.metric: result for result in summarize(worse, parent=parent)}["bits_per_byte"]
    ratio, difference = first.paired_ratio_vs_parent, first.paired_difference_vs_parent
    assert ratio is not None and difference is not None
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((1.2, 1.2, 1.2))
    assert difference.high - difference.low > 0.01
    assert all(result.paired_ratio_vs_parent is None for result in summarize(parent))
    perfect, half = (
        ItemScores(questions={"d/q": QuestionItems(keys=("a", "b"), answers=(0, 1), picks=p, picks_norm=p, chance=0.5)})
        for p in ((0, 1), (0, 0))
    )
    assert all(result.paired_ratio_vs_parent is None for result in summarize(perfect, parent=half))
    ours = summarize(half, parent=half)[0].paired_ratio_vs_parent
    assert ours is not None and ours.value == 1


def test_text_metrics_are_ratios_of_sums() -> None:
    values = {result.metric: result.value for result in summarize(ItemScores(texts={"d": TEXT}))}
    assert values == pytest.approx({"bits_per_byte": 1.0, "word_perplexity": 16.0, "token_perplexity": 4.0})


def test_the_effective_number_of_documents_stands_beside_their_number() -> None:
    uneven = TextItems(keys=("a", "b", "c"), bits=(9.0, 1.0, 1.0), bytes=(8, 1, 1), words=(1, 1, 1), tokens=(1, 1, 1))
    for result in summarize(ItemScores(texts={"d": uneven})):
        assert (result.n, result.effective_n) == (3, pytest.approx(100 / 66))


def test_question_metrics_count_right_picks() -> None:
    items = QuestionItems(
        keys=("a", "b", "c", "d"), answers=(0, 1, 2, 3), picks=(0, 1, 2, 0), picks_norm=(1, 1, 1, 1), chance=0.25
    )
    results = {result.metric: result for result in summarize(ItemScores(questions={"d/q": items}))}
    assert (results["accuracy"].value, results["accuracy_norm"].value) == (0.75, 0.25)
    assert {(result.n, result.chance, result.higher_is_better) for result in results.values()} == {(4, 0.25, True)}
    assert {result.effective_n for result in results.values()} == {4.0}


def test_perplexity_of_text_without_white_space_stays_a_number() -> None:
    huge = TextItems(keys=("a",), bits=(5000.0,), bytes=(3000,), words=(1,), tokens=(1000,))
    assert all(np.isfinite(result.high) for result in summarize(ItemScores(texts={"d": huge})))


def test_a_ratio_without_an_end_is_none_and_stops_nothing() -> None:
    generator = np.random.default_rng(5)
    parts = {"bytes": (20_000,) * 12, "words": (1,) * 12, "tokens": (9_000,) * 12}
    models = []
    for level in (0.010, 0.011):
        bits = tuple((20_000 * level * generator.uniform(0.9, 1.1, 12)).tolist())
        models.append(ItemScores(texts={"d": TextItems(keys=tuple(map(str, range(12))), bits=bits, **parts)}))
    results = {result.metric: result for result in summarize(models[0], parent=models[1])}
    assert results["bits_per_byte"].paired_ratio_vs_parent is not None
    ratio = results["word_perplexity"].paired_ratio_vs_parent
    assert ratio is None or np.isfinite(ratio.high)
    large = tuple(1e6 * (1 + place) for place in range(12))
    broken = ItemScores(texts={"d": TextItems(keys=tuple(map(str, range(12))), bits=large, **parts)})
    by_metric = {result.metric: result for result in summarize(broken, parent=models[1])}
    assert by_metric["word_perplexity"].paired_ratio_vs_parent is None


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


def test_no_document_gives_most_of_a_measured_text() -> None:
    """One document of 40 passages among 19 of one: it gives two passages, a tenth, whatever the limit is."""
    short = [Document(text=f"{n:02}" + "x" * 98, source=f"s{n}") for n in range(19)]
    long = [Document(text=f"{n:02}" + "y" * 98, source="long") for n in range(40)]
    documents = (*short, *long)
    for limit in (None, 2500):
        taken = sample_documents(documents, limit, seed=0)
        assert sum(item.source == "long" for item in taken) == 2
        assert len(taken) == 21
    other = {item.text for item in sample_documents(documents, None, seed=1) if item.source == "long"}
    assert other != {item.text for item in sample_documents(documents, None, seed=0) if item.source == "long"}


def test_few_documents_may_give_twice_their_equal_share_and_one_passage_is_always_kept() -> None:
    three = [Document(text=f"{n}" * 100, source="abc"[n % 3] if n < 3 else "a") for n in range(9)]
    taken = sample_documents(three, None, seed=0)
    sizes = {source: sum(len(item.text) for item in taken if item.source == source) for source in "abc"}
    assert sizes == {"a": 400, "b": 100, "c": 100}
    whole = [Document(text="x" * 5000, source="a"), *(Document(text=f"{n}", source=f"s{n}") for n in range(30))]
    assert len(sample_documents(whole, None, seed=0)) == 31
