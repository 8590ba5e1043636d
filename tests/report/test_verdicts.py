"""What a report says of its figures: better, worse, not distinguishable, too few to tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minigpt.report.figures import (
    at_chance,
    metric_of,
    verdict,
    verdict_vs_parent,
)
from minigpt.report.verdicts import sentences
from minigpt.results import Interval
from tests.support.reports import make_report, metric, shown, with_metrics


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("bits_per_byte", -0.2, -0.1, "better"),
        ("bits_per_byte", 0.1, 0.2, "worse"),
        ("bits_per_byte", -0.1, 0.0, "not distinguishable"),
        ("accuracy", -0.2, -0.1, "worse"),
        ("accuracy", 0.1, 0.2, "better"),
    ],
)
def test_the_paired_interval_decides(name, low, high, expected):
    ours, parent = metric("x", name, 0.5, spread=1), metric("x", name, 0.5, spread=1)
    assert verdict(ours, parent, Interval(value=(low + high) / 2, low=low, high=high)) == expected


def test_without_pairs_intervals_must_not_overlap():
    parent = metric("x", "bits_per_byte", 1.0, spread=0.1)
    assert verdict(metric("x", "bits_per_byte", 0.85, spread=0.1), parent) == "not distinguishable"
    assert verdict(metric("x", "bits_per_byte", 0.7, spread=0.1), parent) == "better"
    assert verdict(metric("x", "bits_per_byte", 1.3, spread=0.1), parent) == "worse"


def test_token_perplexity_is_judged_only_between_equal_vocabularies():
    report = make_report()
    result = metric_of(report.stage("healed"), "medical", "token_perplexity")
    assert verdict_vs_parent(report, result) is None
    kept = replace(report.shape_after, vocab_size=report.shape_before.vocab_size)
    assert verdict_vs_parent(replace(report, shape_after=kept), result) is not None


def test_chance_inside_the_interval_is_no_knowledge():
    assert at_chance(metric("x/q", "accuracy", 0.27, spread=0.03, chance=0.25))
    assert not at_chance(metric("x/q", "accuracy", 0.30, spread=0.03, chance=0.25))
    assert not at_chance(metric("x", "bits_per_byte", 0.3))


def test_a_skipped_tuned_parent_is_said_and_one_that_was_made_is_compared():
    assert "was skipped by the quick preset" in " ".join(sentences(make_report(tuned=False)))
    tuned = " ".join(sentences(make_report()))
    assert "1.062×, worse" in tuned
    assert "skipped" not in tuned
    assert "vs tuned" in shown(make_report())
    assert "vs tuned" not in shown(make_report(tuned=False))


def test_a_worse_model_is_called_worse():
    verdicts = sentences(make_report(healed=0.7823))
    assert verdicts[0].startswith("Worse than the parent on its own sources")
    assert "1.027× the parent's 0.762" in verdicts[0]


def quiz(value, name="accuracy", *, task="medical/quiz", paired=None, n=200):
    return metric(task, name, value, spread=0.05, n=n, chance=0.25, paired=paired)


@pytest.mark.parametrize(("n", "expected"), [(1, "too few to tell"), (9, "too few to tell"), (10, "better")])
def test_a_handful_of_documents_gives_no_verdict(n, expected):
    ours, parent = (metric("x", "bits_per_byte", value, spread=0, n=n) for value in (0.5, 0.9))
    assert verdict(ours, parent) == expected
    assert verdict(ours, parent, Interval(value=-0.4, low=-0.4, high=-0.4)) == expected


def test_few_documents_are_said_in_sentence_and_caption():
    def find_report(n):
        parent = metric("medical", "bits_per_byte", 0.9, spread=0, n=n)
        ours = metric("medical", "bits_per_byte", 0.5, spread=0, n=n, paired=(-0.4, -0.4, -0.4))
        return with_metrics(make_report(tuned=False), parent=(parent,), healed=(ours,), pruned=())

    flat = " ".join(shown(find_report(1)).split())
    assert "Too few to tell on its own sources" in flat
    assert "0.556× the parent's 0.900 (n=1)" in flat
    assert "too few: too few documents or questions to tell" in flat
    assert "better" not in flat
    assert "the true uncertainty may be larger than the interval shown" in " ".join(shown(find_report(29)).split())
    assert "the true uncertainty may be larger than the interval shown" not in " ".join(shown(find_report(30)).split())


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.06, "worse"), (-0.06, -0.01, "better"), (-0.01, 0.06, "not distinguishable")],
)
def test_the_tuned_parent_is_judged_by_pairs_where_there_are_any(low, high, expected):
    ours = replace(
        metric("medical", "bits_per_byte", 0.7, spread=0.3),
        paired_difference_vs_tuned=Interval(value=0, low=low, high=high),
    )
    report = with_metrics(make_report(), healed=(ours,))
    sentence = next(sentence for sentence in sentences(report) if sentence.startswith("Against"))
    assert f"{expected} (paired 95 % interval of the difference" in sentence
    assert "unpaired" not in sentence
    unpaired = with_metrics(make_report(), healed=(replace(ours, paired_difference_vs_tuned=None),))
    assert "the unpaired intervals overlap" in " ".join(sentences(unpaired))


def test_seen_questions_are_marked_and_not_counted():
    seen = {"task": "medical/quiz_seen"}
    report = with_metrics(
        make_report(),
        parent=(quiz(0.5), quiz(0.5, **seen)),
        healed=(quiz(0.4, paired=(-0.1, -0.15, -0.05)), quiz(0.9, paired=(0.4, 0.3, 0.5), **seen)),
    )
    sentence = next(sentence for sentence in sentences(report) if "questions" in sentence)
    assert sentence == "On the medical questions: worse than the parent."
    text = shown(report)
    assert "medical/quiz_seen seen" in " ".join(text.split())
    assert "definitions in training text, not held out" in " ".join(text.split())


def test_a_drop_to_guessing_is_a_loss_where_the_parent_knew_better():
    fell = with_metrics(
        make_report(),
        parent=(quiz(0.5), quiz(0.26, "accuracy_norm")),
        healed=(quiz(0.26, paired=(-0.24, -0.3, -0.18)), quiz(0.27, "accuracy_norm", paired=(0.01, -0.05, 0.07))),
    )
    assert "worse than the parent and no longer distinguishable from guessing" in " ".join(sentences(fell))


def test_question_sets_fall_back_to_the_metric_on_which_the_parent_is_informative():
    report = with_metrics(
        make_report(),
        parent=(quiz(0.26), quiz(0.5, "accuracy_norm"), quiz(0.25, task="medical/hard")),
        healed=(
            quiz(0.26, paired=(0, -0.05, 0.05)),
            quiz(0.7, "accuracy_norm", paired=(0.2, 0.1, 0.3)),
            quiz(0.4, task="medical/hard", paired=(0.15, 0.1, 0.2)),
        ),
    )
    sentence = next(sentence for sentence in sentences(report) if "question sets" in sentence)
    assert sentence == (
        "Of 2 medical question sets: 1 better than the parent, 1 uninformative (the parent itself is at chance)."
    )
