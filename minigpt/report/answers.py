"""Verdict on tasks with free answers: what they score against the fairest control, and whether their form is kept."""

from __future__ import annotations

from collections.abc import Iterator

from minigpt.report.figures import final_stage, metric_of, verdict_vs_parent, verdict_vs_tuned
from minigpt.report.text import number, stage_title
from minigpt.results import BuildReport, Interval, MetricResult

# The metric that stands for a task: the first that it has.
MAIN = ("exact_match", "instructions_followed", "rouge_l", "token_f1", "label_f1")
FORM = "format_compliance"


def answer_sentence(report: BuildReport) -> str | None:
    """Write the main metric of every task beside that of the tuned parent, or of the parent where it was left out."""
    parts = [_part(report, result) for result in main_results(report)]
    if not parts:
        return None
    against = stage_title("parent_tuned" if report.stage("parent_tuned") else "parent")
    text = f"Free answers, specialist against {against}: {'; '.join(parts)}"
    if form := _form(report):
        text += f". {form}"
    return text + "."


def main_results(report: BuildReport) -> Iterator[MetricResult]:
    """Yield the final model's main result of every task with free answers."""
    final = final_stage(report)
    tasks = dict.fromkeys(result.task for result in final.metrics if result.metric in MAIN)
    for task in sorted(tasks, key=lambda name: (not name.startswith(f"{report.domain}/"), name)):
        yield next(result for name in MAIN if (result := metric_of(final, task, name)))


def _part(report: BuildReport, ours: MetricResult) -> str:
    """Write one task: both values, the interval of the paired difference, the verdict and the number of prompts."""
    tuned = report.stage("parent_tuned")
    other = metric_of(tuned or report.stage("parent"), ours.task, ours.metric)
    verdict = verdict_vs_tuned(report, ours) if tuned else verdict_vs_parent(report, ours)
    name = f"{ours.task} {ours.metric.replace('_', ' ')} {number(ours.value)}"
    if other is None:
        return f"{name} (n {ours.n})"
    paired = ours.paired_difference_vs_tuned if tuned else ours.paired_difference_vs_parent
    words = f", {verdict}" if verdict else ""
    return f"{name} against {number(other.value)} ({_difference(paired)}n {ours.n}{words})"


def _difference(paired: Interval | None) -> str:
    """Write a paired difference with its interval, before a comma; nothing where there is none."""
    if paired is None:
        return ""
    return f"{paired.value:+.3f}, 95 % {paired.low:+.3f} to {paired.high:+.3f}, ".replace("-", "−")


def _form(report: BuildReport) -> str:
    """Write how many answers have the form that was asked for, beside the parent's; empty where there is no form."""
    final, parent = final_stage(report), report.stage("parent")
    results = [result for result in final.metrics if result.metric == FORM]
    pairs = [(result, metric_of(parent, result.task, FORM)) for result in results]
    counted = [(ours, other) for ours, other in pairs if other is not None]
    if not counted:
        return ""
    items = sum(ours.n for ours, _ in counted)
    ours_right, parent_right = (round(sum(pair[place].value * pair[place].n for pair in counted)) for place in (0, 1))
    return f"{ours_right} of {items} answers have the form that was asked for, of the parent's {parent_right}"
