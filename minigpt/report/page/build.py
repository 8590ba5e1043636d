"""Values that the template of a build's page shows; all of them come from the report alone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from minigpt.costs import Price
from minigpt.files import write_text
from minigpt.report.decision import decide
from minigpt.report.facts import coverage_sentence, openings, preset
from minigpt.report.figures import HEADLINE, final_stage, kept_units, was_quantized
from minigpt.report.fit import HEADS, fit_rows
from minigpt.report.page.charts import curve, kept_columns
from minigpt.report.page.cost import cost_values
from minigpt.report.page.rows import ratio_rows, value_rows
from minigpt.report.page.written import continued, won_and_lost
from minigpt.report.passages import passages_sentence
from minigpt.report.pictures import by_kind, kinds_of
from minigpt.report.text import clean, count, duration, percent, short_reference, size, stage_title
from minigpt.report.verdicts import sentences
from minigpt.results import BuildReport, StageReport

FILE_NAME = "report.html"
# Models that the final one is compared with.
CONTROLS = ("parent", "parent_tuned", "parent_distilled")
# Longest sample that is shown, in characters.
SAMPLE_LIMIT = 1200


def write_page(report: BuildReport, path: Path, gates: Sequence[str] = (), *, price: Price | None = None) -> None:
    """Write the page of a build atomically.

    Args:
        report: Report of the build.
        path: The file, or a folder in which `report.html` is written.
        gates: What the decision rests on, see :func:`minigpt.report.decision.decide`.
        price: Price of an hour of the machine; None takes that of the report.
    """
    write_text(path / FILE_NAME if path.is_dir() else path, render_page(report, gates, price=price))


def render_page(report: BuildReport, gates: Sequence[str] = (), *, price: Price | None = None) -> str:
    """Render the page of a build as HTML.

    Args:
        report: Report of the build.
        gates: What the decision rests on, see :func:`minigpt.report.decision.decide`.
        price: Price of an hour of the machine; None takes that of the report.
    """
    return filled("page.html.j2", **_values(report, gates), **cost_values(report, price))


def filled(template: str, **values: Any) -> str:
    """Fill a template, with numbers and their percent signs in one line."""
    return re.sub(r"(?<=\d) %", "\u00a0%", environment().get_template(template).render(values))


@cache
def environment() -> Environment:
    """Make the environment of the templates, which escape all text of the reports."""
    environment = Environment(
        loader=PackageLoader("minigpt.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": clean, "count": count, "duration": duration, "percent": percent, "size": size}
    environment.filters["prose"] = prose
    return environment


def prose(sentence: str) -> Markup:
    """Return a sentence as HTML, with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(clean(sentence)))))


def _values(report: BuildReport, gates: Sequence[str]) -> dict[str, Any]:
    """Compute the values that the template shows."""
    final, parent = final_stage(report), report.stage("parent")
    controls = [stage for stage in report.stages if stage.stage in CONTROLS or stage is final]
    return {
        "report": report,
        "decision": decide(report, gates),
        "verdict": sentences(report),
        "base": short_reference(report.base_model),
        "preset": preset(report),
        "openings": openings(report),
        "final": final,
        "parent": parent,
        "kept": final.parameters / parent.parameters if parent and parent.parameters else None,
        "stages": [(stage, stage_title(stage.stage)) for stage in report.stages],
        "quantized": was_quantized(report),
        "ratios": ratio_rows(report),
        "headline": HEADLINE,
        "columns": [stage_title(stage.stage) for stage in controls],
        "rows": value_rows(report, controls),
        "kinds": sorted(kinds_of(report.removed_parameters).items(), key=lambda item: -item[1]),
        "by_kind": by_kind(report.removed_parameters),
        "layers": _layers(report),
        "training": [_training(stage) for stage in report.stages if stage.training],
        "samples": [
            (stage_title(stage.stage), clean(stage.sample.strip(), SAMPLE_LIMIT)) for stage in controls if stage.sample
        ],
        "continued": continued(report),
        "won_and_lost": won_and_lost(report),
        "passages": passages_sentence(report.corpus_counts),
        "coverage": coverage_sentence(report),
        "fit_heads": HEADS,
        "fit_rows": [astuple(row) for row in fit_rows(report.fit.outcomes)] if report.fit else [],
        "command": _command(report),
    }


def _layers(report: BuildReport) -> list[tuple[str, str, Markup]]:
    """Draw the units that each layer keeps: name, numbers and picture of each kind."""
    pictures = []
    for units in kept_units(report):
        title = f"{units.name} kept in each layer of the parent"
        place = "" if units.name == "layers" else " in a layer"
        pictures.append((units.name, units.words + place, kept_columns(units.kept, units.full, title)))
    return pictures


def _training(stage: StageReport) -> dict[str, Any]:
    """Describe the training of a stage, with the curve of its dev losses."""
    training, name = stage.training, stage_title(stage.stage)
    assert training is not None
    return {
        "name": name,
        "training": training,
        "curve": curve(training.dev_losses, f"Dev loss of the {name} in bits per byte over its steps"),
    }


def _command(report: BuildReport) -> str:
    """Write the command that repeats the build from the file that lies beside its report."""
    return shlex.join(["minigpt", "build", "recipe.yaml", "--output-dir", f"runs/{report.domain}-again"])
