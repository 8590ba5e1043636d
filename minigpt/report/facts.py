"""Facts that terminal and model card tell in the same words: preset, openings, coverage of the measured text."""

from __future__ import annotations

from minigpt.report.text import opening, percent, stage_title
from minigpt.results import BuildReport


def preset(report: BuildReport) -> str:
    """Write the preset and the settings that were changed, e.g. `quick, changed: heal.steps=24`."""
    changes = ", ".join(f"{name}={value}" for name, value in report.overrides.items())
    return f"{report.preset}, changed: {changes}" if changes else report.preset


def openings(report: BuildReport) -> str:
    """Write the token that opened every text measured on a model, for each model; empty where it is not known."""
    models: dict[str, list[str]] = {}
    for stage in report.stages:
        if stage.opening:
            models.setdefault(opening(stage.opening), []).append(stage_title(stage.stage))
    return ", ".join(f"{text} ({', '.join(names)})" for text, names in models.items())


def time_of_steps(report: BuildReport) -> float:
    """Return the seconds of all steps of a build; in reports of older versions those of making its stages."""
    return (report.cost.seconds if report.cost is not None else 0.0) or report.seconds


def coverage_sentence(report: BuildReport) -> str:
    """Write how much of the measured text stands in the training text; empty where it was not measured."""
    parts = [
        f"{percent(coverage.share)} of {coverage.task} ({coverage.unseen} of {coverage.documents} documents below 2 %)"
        for coverage in report.coverage
    ]
    return f"8-word runs of measured text that stand in the training text: {', '.join(parts)}" if parts else ""
