"""The arithmetic that report, gate, catalog and model card share: which number, against which, and what it says.

Pure functions over the records of :mod:`minigpt.types`, so that a verdict reads the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from minigpt.types import BuildReport, Interval, MetricResult, PrunePlan, Shape, StageName, StageReport

Verdict = Literal["better", "not distinguishable", "worse", "too few to tell"]

ENOUGH_ITEMS = 10
"""With fewer documents or questions a bootstrap interval says nothing (of one it has no width): no verdict."""
COMFORTABLE_ITEMS = 30
"""Below this, bootstrap intervals are too narrow; a verdict is given with a notice."""
FEW = f"n < {COMFORTABLE_ITEMS}: few documents or questions, the interval is too narrow"
SEEN = "definitions in training text"

METRICS = ("bits_per_byte", "word_perplexity", "token_perplexity", "accuracy", "accuracy_norm")
HEADLINE = "bits_per_byte"
FINAL_STAGES: tuple[StageName, ...] = ("healed", "pruned", "exported", "parent_tuned", "parent")


def metric_of(stage: StageReport | None, task: str, metric: str) -> MetricResult | None:
    """The result of `metric` on `task`, or None where the stage was skipped or did not measure it."""
    found = stage.metrics if stage else ()
    return next((result for result in found if result.task == task and result.metric == metric), None)


def final_stage(report: BuildReport) -> StageReport:
    """The model the build hands over: the healed one, or the furthest stage there is."""
    return next(found for name in FINAL_STAGES if (found := report.stage(name)) is not None)


def same_vocabulary(report: BuildReport) -> bool:
    """Whether parent and child count the same tokens, so that their token perplexities can be compared."""
    return report.shape_before.vocab_size == report.shape_after.vocab_size


def verdict(result: MetricResult, against: MetricResult, paired: Interval | None = None) -> Verdict:
    """What the 95 % intervals allow to say about `result` against `against`.

    With the `paired` interval of `result - against` (same documents or questions, so most of the noise cancels): it
    must exclude zero. Without one, the two intervals must not overlap, which is the more cautious test. Fewer than
    :data:`ENOUGH_ITEMS` items give no verdict, whatever the intervals say.
    """
    if min(result.n, against.n) < ENOUGH_ITEMS:
        return "too few to tell"
    if paired is not None:
        low, high = paired.low, paired.high
    else:
        low, high = result.low - against.high, result.high - against.low
    if low <= 0 <= high:
        return "not distinguishable"
    return "better" if (low > 0) == result.higher_is_better else "worse"


def verdict_vs_parent(report: BuildReport, result: MetricResult) -> Verdict | None:
    """The verdict on a final-stage result against the parent; None where there is nothing fair to compare with."""
    parent = metric_of(report.stage("parent"), result.task, result.metric)
    if parent is None or (result.metric == "token_perplexity" and not same_vocabulary(report)):
        return None
    return verdict(result, parent, result.paired_difference_vs_parent)


def verdict_vs_tuned(report: BuildReport, result: MetricResult) -> Verdict | None:
    """The paired verdict on a final-stage result against the tuned parent; None without pairs or a fair comparison."""
    tuned = metric_of(report.stage("parent_tuned"), result.task, result.metric)
    if tuned is None or result.paired_difference_vs_tuned is None:
        return None
    if result.metric == "token_perplexity" and not same_vocabulary(report):
        return None
    return verdict(result, tuned, result.paired_difference_vs_tuned)


def few_items(results: Iterable[MetricResult]) -> bool:
    """Whether any result rests on so few items that its interval is too narrow."""
    return any(result.n < COMFORTABLE_ITEMS for result in results)


def is_seen(task: str) -> bool:
    """Whether a question set asks about text that was trained on: memory of it, not held-out knowledge."""
    return task.endswith("_seen")


def was_quantized(report: BuildReport) -> bool:
    """Whether the parent was read from a quantized file, smaller than its weights as pruned and measured."""
    return "quant" in report.base_precision.lower()


def ratio(result: MetricResult | None, against: MetricResult | None) -> float | None:
    """`result / against`, or None where one of them is missing or the divisor is zero."""
    if result is None or against is None or against.value == 0:
        return None
    return result.value / against.value


def at_chance(result: MetricResult) -> bool:
    """Whether the interval of `result` holds the score of guessing: then the number says nothing about knowledge."""
    return result.chance is not None and result.low <= result.chance <= result.high


def task_order(report: BuildReport, task: str) -> tuple[int, str]:
    """Sort key of a task: the domain's text, its questions, the general text, its questions, then the rest."""
    ranks = {report.domain: 0, "general": 2}
    head, _, tail = task.partition("/")
    return ranks.get(head, 4) + bool(tail), task


def metric_keys(report: BuildReport, stages: Iterable[StageReport | None]) -> tuple[tuple[str, str], ...]:
    """Every (task, metric) measured in `stages`, in the order a reader wants them."""
    keys = {(result.task, result.metric) for stage in stages if stage for result in stage.metrics}
    rank = {name: position for position, name in enumerate(METRICS)}
    return tuple(sorted(keys, key=lambda key: (*task_order(report, key[0]), rank.get(key[1], len(rank)), key[1])))


def kept_per_layer(plan: PrunePlan, before: Shape) -> dict[str, tuple[int, ...]]:
    """`BuildReport.kept_per_layer` of a plan: FFN neurons and KV groups kept by each parent layer, 0 if it is gone."""
    kept = {layer: position for position, layer in enumerate(plan.layers)}

    def counts(per_layer: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        return tuple(len(per_layer[kept[layer]]) if layer in kept else 0 for layer in range(before.layers))

    return {"ffn": counts(plan.ffn), "kv_groups": counts(plan.kv_groups)}


def headline(report: BuildReport) -> dict[str, float]:
    """The few numbers that stand for a build: bits per byte of the domain, its ratios, the share of parameters kept."""
    final = final_stage(report)
    parent, tuned = report.stage("parent"), report.stage("parent_tuned")
    ours = metric_of(final, report.domain, HEADLINE)
    values = {
        HEADLINE: ours.value if ours else None,
        "ratio_to_parent": ratio(ours, metric_of(parent, report.domain, HEADLINE)),
        "ratio_to_tuned_parent": ratio(ours, metric_of(tuned, report.domain, HEADLINE)),
        "parameters_kept": final.parameters / parent.parameters if parent and parent.parameters else None,
    }
    return {name: value for name, value in values.items() if value is not None}
