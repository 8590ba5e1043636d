"""`minigpt build`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.common import Session, examples, facts, online, standard
from minigpt.cli.params import Amount, Fraction, Names, at_most_one, pairs

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.pipeline import PlanSummary


@click.command(
    epilog=examples(
        "minigpt build --domain medical --preset quick",
        "minigpt build --domain medical --domain law --target-params 100M --output-dir runs/two",
        "minigpt build --domain ./mine.yaml --base HuggingFaceTB/SmolLM2-360M --device cuda",
        "minigpt build --domain finance --target-size 0.6 --plan-only",
    )
)
@click.option("--domain", "domains", multiple=True, required=True, metavar="NAME|FILE|all", help="Specialty; repeats.")
@click.option("--base", metavar="REF", help="Parent: folder, Hub id, GGUF file or pypi: asset [SmolLM2-135M-Instruct].")
@click.option("--target-size", type=Fraction(), help="Fraction of the parameters to keep [0.75].")
@click.option("--target-params", type=Amount("count"), help="Parameters to keep, e.g. 100M.")
@click.option("--target-bytes", type=Amount("bytes", unit="B"), help="Size of model.safetensors, e.g. 150MB.")
@click.option("--method", metavar="NAME", help="How units are ranked, see `minigpt methods` [contextual].")
@click.option("--preset", type=click.Choice(["quick", "standard", "thorough"]), help="How much work [quick].")
@click.option(
    "--keep-general",
    type=click.FloatRange(min=1, min_open=True),
    metavar="X",
    help="General text may cost X times the parent's bits per byte; exit 3 beyond.",
)
@click.option(
    "--kinds",
    type=Names("linear", "activation", "embedding"),
    help="What may be removed [everything, whole layers too].",
)
@click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Where to write [runs/DOMAIN].")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps [auto].")
@click.option("--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), help="Saved weights [bfloat16].")
@click.option("--seed", type=click.IntRange(min=0), help="Of everything random [0].")
@click.option(
    "--set", "overrides", multiple=True, callback=pairs, metavar="KEY=VALUE", help="E.g. heal.steps=50; repeats."
)
@online
@click.option("--plan-only", is_flag=True, help="Show what would be removed and stop.")
@click.option("--masked", is_flag=True, help="Evaluate the method's own form in memory; a report and no model.")
@click.option("--force", is_flag=True, help="Start over instead of resuming.")
@standard
def build(session: Session, **options: Any) -> None:
    """Build a smaller specialist for one or more domains.

    Corpus, activation statistics, plan, pruning, healing, evaluation, report, catalog. The same command again
    resumes; with everything done it prints the report at once.
    """
    at_most_one(**{name: options[name] for name in ("target_size", "target_params", "target_bytes")})
    check_names(options["domains"], options["method"])
    from minigpt import pipeline
    from minigpt.report import check_gate, render

    if (kept := options.pop("keep_general")) is not None:
        options["overrides"] = {**options["overrides"], "keep_general": str(kept)}
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    chosen = pipeline.BuildOptions(**given)
    if chosen.plan_only and chosen.masked:
        raise click.UsageError("--plan-only and --masked exclude each other.")
    if chosen.plan_only:
        plans = pipeline.plan_only(chosen, session.reporter)
        session.show(alone(plans), lambda: stacked(outline(plan) for plan in plans))
        return
    reports = pipeline.build(chosen, session.reporter)
    session.show(alone(reports), lambda: stacked(render(report) for report in reports))
    if (bound := chosen.overrides.get("keep_general", "none")).casefold() not in {"none", "null"}:
        for made in reports:
            check_gate(f"bits_per_byte@general>{float(bound)}x", [(made.domain, made)])


def check_names(domains: Sequence[str], method: str | None) -> None:
    """Refuse a domain or a method that does not exist before the first domain has cost an hour.

    Raises:
        UnknownName: no such domain or method.
        ConfigError: a domain's file cannot be used.
    """
    from minigpt.domain.config import load_domain
    from minigpt.methods import method_named

    if method is not None:
        method_named(method)
    for name in domains:
        if name != "all":
            load_domain(name)


def outline(plan: PlanSummary) -> RenderableType:
    """What a plan would keep and remove, as name and value."""
    from minigpt.report.text import count, percent

    gone = ", ".join(str(layer) for layer in plan.removed_layers)
    rows: dict[str, object] = {
        "domain": plan.domain,
        "parent": plan.base_model,
        "method": plan.method,
        "parameters": f"{count(plan.parameters_before)} to {count(plan.parameters_after)}"
        f" ({percent(plan.parameters_after / plan.parameters_before)} kept)",
        "layers": f"{plan.layers} (without {gone})" if gone else plan.layers,
        "FFN width": f"{plan.intermediate_size:,}",
        "KV groups": plan.kv_groups,
        "vocabulary": "untouched" if plan.tokens is None else f"{plan.tokens:,}",
    }
    rows |= {f"removed by {kind}": count(removed) for kind, removed in plan.removed_parameters.items()}
    rows |= {f"predicted cost, {part}": f"{cost:.4f}" for part, cost in plan.predicted_cost.items()}
    return facts(rows)


def alone(results: Sequence[Any]) -> Any:
    """One result as itself, several as a list: what `--json` prints."""
    return results[0] if len(results) == 1 else results


def stacked(parts: Iterable[RenderableType]) -> RenderableType:
    """Several renderables below each other."""
    from rich.console import Group

    return Group(*parts)
