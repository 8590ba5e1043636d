"""Figures and verdicts that report, gate, catalog and model card share.

All functions are pure and work on the records of :mod:`minigpt.results`, so that a verdict is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from minigpt.metrics import ANSWER_METRICS, QUESTION_METRICS
from minigpt.report.tasks import GENERAL, OTHER, task_rank
from minigpt.results import BuildReport, Coverage, Interval, MetricResult, StageName, StageReport
from minigpt.types import PrunePlan, Shape

Verdict = Literal["better", "not distinguishable", "worse", "too few to tell", "repeated wording"]

ENOUGH_ITEMS = 10
"""Fewest documents or questions for a verdict; with fewer an interval says nothing."""
COMFORTABLE_ITEMS = 30
"""Fewest documents or questions for a verdict without a notice; with fewer, intervals may be too narrow."""
FEW = f"n or effective n < {COMFORTABLE_ITEMS}: the true uncertainty may be larger than the interval shown"
"""Notice below a table that holds results of too few documents or questions."""
SEEN = "definitions in training text"
"""Warning about question sets that ask for definitions from the training text."""

HEADLINE = "bits_per_byte"
RECITATION = "recitation"
METRICS = (HEADLINE, *QUESTION_METRICS, *ANSWER_METRICS, "word_perplexity", "token_perplexity", RECITATION)
"""Metrics of a report, in the order a reader wants them."""
REPEATED = 0.2
"""Share of a text's 8-word runs in the training text from which its figure comes with a warning."""
TOO_REPEATED = 0.35
"""Share above which no model is called better on the text."""
# Stages from the most to the least finished.
FINAL_STAGES: tuple[StageName, ...] = (
    "healed",
    "delta",
    "pruned",
    "exported",
    "conditional",
    "parent_tuned",
    "parent",
)


def metric_of(stage: StageReport | None, task: str, metric: str) -> MetricResult | None:
    """Find the result of `metric` on `task`; None where the stage was skipped or did not measure it."""
    results = stage.metrics if stage else ()
    return next((result for result in results if result.task == task and result.metric == metric), None)


def final_stage(report: BuildReport) -> StageReport:
    """Find the stage of the model that the build produced: the healed one, or the most finished stage there is."""
    return next(stage for name in FINAL_STAGES if (stage := report.stage(name)) is not None)


def same_vocabulary(report: BuildReport) -> bool:
    """Check that parent and specialist count the same tokens, so that their token perplexities can be compared."""
    return report.shape_before.vocab_size == report.shape_after.vocab_size


def verdict(result: MetricResult, against: MetricResult, paired: Interval | None = None) -> Verdict:
    """Judge `result` against `against` by their 95 % intervals.

    Better or worse needs a `paired` interval that excludes zero. Without a paired interval, the two intervals must not
    overlap, which is the more cautious test. Fewer than :data:`ENOUGH_ITEMS` items give no verdict, whatever the
    intervals are.

    Args:
        result: The result to judge.
        against: The result to compare it with.
        paired: Interval of result - against on the same documents or questions, in which most of the noise cancels.
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
    """Judge a final-stage result against the parent; None where there is nothing fair to compare with."""
    parent = metric_of(report.stage("parent"), result.task, result.metric)
    if parent is None or (result.metric == "token_perplexity" and not same_vocabulary(report)):
        return None
    return _capped(report, result, verdict(result, parent, result.paired_difference_vs_parent))


def verdict_vs_tuned(report: BuildReport, result: MetricResult) -> Verdict | None:
    """Judge a final-stage result against the tuned parent by pairs; None without pairs or a fair comparison."""
    return _vs_control(report, result, "parent_tuned", result.paired_difference_vs_tuned)


def verdict_vs_twin(report: BuildReport, result: MetricResult) -> Verdict | None:
    """Judge a final-stage result against the distilled twin by pairs; None without pairs or a fair comparison."""
    return _vs_control(report, result, "parent_distilled", result.paired_difference_vs_distilled)


def _vs_control(report: BuildReport, result: MetricResult, name: StageName, paired: Interval | None) -> Verdict | None:
    """Judge a result against a trained control, which counts the tokens of the parent's vocabulary."""
    control = metric_of(report.stage(name), result.task, result.metric)
    if control is None or paired is None or (result.metric == "token_perplexity" and not same_vocabulary(report)):
        return None
    return _capped(report, result, verdict(result, control, paired))


def _capped(report: BuildReport, result: MetricResult, judgement: Verdict) -> Verdict:
    """Withhold `better` on a text of which so much was trained on that the figure measures repeated wording."""
    coverage = coverage_of(report, result.task)
    too_repeated = coverage is not None and coverage.share > TOO_REPEATED
    return "repeated wording" if judgement == "better" and too_repeated else judgement


def coverage_of(report: BuildReport, task: str) -> Coverage | None:
    """Find how much of a text stands in the training text; None where it was not measured."""
    return next((coverage for coverage in report.coverage if coverage.task == task), None)


def few_items(results: Iterable[MetricResult]) -> bool:
    """Check whether any result rests on so few items that its interval is too narrow."""
    return any(min(result.n, result.effective_n or result.n) < COMFORTABLE_ITEMS for result in results)


def effective_documents(result: MetricResult | None) -> float | None:
    """Give the effective number of documents where it is small and below the number of documents; else None."""
    if result is None or result.effective_n is None or round(result.effective_n) >= min(result.n, COMFORTABLE_ITEMS):
        return None
    return result.effective_n


def was_quantized(report: BuildReport) -> bool:
    """Check whether the parent was read from a quantized file, which is smaller than the weights that were measured."""
    return "quant" in report.base_precision.lower()


def ratio(result: MetricResult | None, against: MetricResult | None) -> float | None:
    """Divide `result` by `against`; None where one of them is missing or the divisor is zero."""
    if result is None or against is None or against.value == 0:
        return None
    return result.value / against.value


def at_chance(result: MetricResult) -> bool:
    """Check whether the interval of `result` holds the score of guessing; then it says nothing about knowledge."""
    return result.chance is not None and result.low <= result.chance <= result.high


def metric_keys(report: BuildReport, stages: Iterable[StageReport | None]) -> tuple[tuple[str, str], ...]:
    """List every (task, metric) measured in `stages`, in the order a reader wants them."""
    keys = {(result.task, result.metric) for stage in stages if stage for result in stage.metrics}
    return tuple(sorted(keys, key=lambda key: reading_order(report.domain, *key)))


def reading_order(domain: str, task: str, metric: str) -> tuple[int, int, str, int, str]:
    """Give the sort key of a metric: bits per byte, then questions, answers, perplexities, the rest.

    Args:
        domain: Name of the domain, whose texts come first.
        task: Task that was measured.
        metric: Metric of the task.
    """
    position = METRICS.index(metric) if metric in METRICS else len(METRICS)
    section = 1 if metric in QUESTION_METRICS else 2 if metric in ANSWER_METRICS else position
    return section, task_rank(domain, task), task, position, metric


def kept_per_layer(plan: PrunePlan, before: Shape) -> dict[str, tuple[int, ...]]:
    """Count the FFN neurons, KV groups and experts that each layer of the parent keeps; 0 if the layer is removed.

    Args:
        plan: Plan of the build.
        before: Shape of the parent.

    Returns:
        The counts as in `BuildReport.kept_per_layer`, under `ffn` and `kv_groups`, and `experts` if some are removed.
    """
    position_of = {layer: position for position, layer in enumerate(plan.layers)}

    def counts(per_layer: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        return tuple(
            len(per_layer[position_of[layer]]) if layer in position_of else 0 for layer in range(before.layers)
        )

    experts = {"experts": counts(plan.experts)} if plan.experts else {}
    return {"ffn": counts(plan.ffn), "kv_groups": counts(plan.kv_groups)} | experts


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptUnits:
    """Units of one kind that every layer of the parent keeps.

    Attributes:
        name: what the units are called.
        kept: number for each layer; 0 if the layer is removed.
        full: number of a layer of the parent.
        words: numbers of a layer that is left and of the parent's, in words.
    """

    name: str
    kept: tuple[int, ...]
    full: int
    words: str


def kept_units(report: BuildReport) -> list[KeptUnits]:
    """List the kinds of units that layers can lose, with what is left; whole layers where they can lose nothing else.

    A layer with one unit of a kind cannot lose it: one KV group, or layers with a state in place of heads and FFN.
    """
    before, after = report.shape_before, report.shape_after
    kinds = (
        ("FFN neurons", "ffn", before.intermediate_size, after.intermediate_size),
        ("experts", "experts", before.experts, after.experts),
        ("KV groups", "kv_groups", before.kv_groups, after.kv_groups),
    )
    rows = [
        KeptUnits(name=name, kept=kept, full=full, words=f"{now:,} of {full:,}")
        for name, key, full, now in kinds
        if (kept := tuple(report.kept_per_layer.get(key, ()))) and full > 1
    ]
    if rows or not (layers := tuple(report.kept_per_layer.get("ffn", ()))):
        return rows
    return [KeptUnits(name="layers", kept=layers, full=1, words=f"{after.layers} of {before.layers}")]


def headline(report: BuildReport) -> dict[str, float]:
    """Collect the few numbers that stand for a build: its bits per byte, its ratios on every text, the size kept."""
    final = final_stage(report)
    parent, tuned = report.stage("parent"), report.stage("parent_tuned")
    ours = metric_of(final, report.domain, HEADLINE)

    def to_parent(task: str) -> float | None:
        return ratio(metric_of(final, task, HEADLINE), metric_of(parent, task, HEADLINE))

    values = {
        HEADLINE: ours.value if ours else None,
        "ratio_to_parent": to_parent(report.domain),
        "ratio_to_tuned_parent": ratio(ours, metric_of(tuned, report.domain, HEADLINE)),
        "other_ratio_to_parent": to_parent(f"{report.domain}/{OTHER}"),
        "general_ratio_to_parent": to_parent(GENERAL),
        "general_other_ratio_to_parent": to_parent(f"{GENERAL}/{OTHER}"),
        "parameters_kept": final.parameters / parent.parameters if parent and parent.parameters else None,
    }
    return {name: value for name, value in values.items() if value is not None}
