"""Conditional forms in reports: a view in which the conditional form is the model, and sentences about it."""

from __future__ import annotations

from dataclasses import replace

from minigpt.errors import MiniGPTError
from minigpt.forms import ConditionalForm
from minigpt.report.figures import HEADLINE, metric_of
from minigpt.report.text import number, percent
from minigpt.results import BuildReport

# Beginning of the notes about a conditional form, by which older ones are replaced.
START = "The conditional form"


def of_conditional(report: BuildReport) -> BuildReport:
    """Return a report in which the conditional form is the model that was built.

    Raises:
        MiniGPTError: the report has no conditional form.
    """
    stage = report.stage("conditional")
    if stage is None:
        raise MiniGPTError("The report beside this folder knows no conditional form. Build it with --conditional.")
    stages = tuple(stage for stage in report.stages if stage.stage not in ("pruned", "healed"))
    return replace(report, stages=stages)


def conditional_note(report: BuildReport) -> str:
    """Write what the conditional form of a report's model reads, and what it costs against the dense model."""
    stage, dense = report.stage("conditional"), report.stage("healed")
    if stage is None or stage.conditional is None:
        return ""
    form = stage.conditional
    text = (
        f"{START} ({form.kind}) visits {percent(form.visited_share)} of the specialist's feed-forward neurons for a "
        f"token; {_dense_layers(form)}"
    )
    ours, of_dense = (metric_of(one, report.domain, HEADLINE) for one in (stage, dense))
    if ours is None or of_dense is None:
        return f"{text}."
    return (
        f"{text}. It needs {number(ours.value)} bits per byte on {report.domain}, {ours.value / of_dense.value:.3f} of "
        "the dense specialist's. `minigpt bench` compares their speed on this machine."
    )


def _dense_layers(form: ConditionalForm) -> str:
    """Write which layers stayed dense, and why."""
    if not form.dense:
        return "no layer stayed dense"
    names = ", ".join(str(layer) for layer in form.dense)
    return f"{len(form.dense)} of {len(form.layers)} layers stayed dense: they save too little for their loss ({names})"
