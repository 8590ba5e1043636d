"""`minigpt eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, online, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.results import StageReport


@click.command(
    "eval",
    epilog=examples(
        "minigpt eval runs/medical --domain medical",
        "minigpt eval HuggingFaceTB/SmolLM2-135M-Instruct --domain law --limit 50",
        "minigpt eval model.gguf --domain finance --json > finance.json",
    ),
)
@click.argument("model")
@click.option("--domain", metavar="NAME|FILE", help="Domain to measure on [that of a build].")
@click.option(
    "--limit", type=click.IntRange(min=1), help="At most this many documents and questions of each set [all]."
)
@click.option(
    "--device", metavar="NAME", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1 or mps."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the splits [the build's, else 0].")
@online
@standard
def evaluate(
    session: Session,
    *,
    model: str,
    domain: str | None,
    limit: int | None,
    device: str,
    seed: int | None,
    online: bool,
) -> None:
    """Measure MODEL on a domain: bits per byte, perplexity and multiple choice, with 95 % intervals.

    MODEL is a folder, a build folder, an export folder, a catalog id, a Hub id, a GGUF file or a pypi: asset. Texts
    stand behind the token that suits the model best on the domain's dev text: bos, eos, the separator of pre-training
    or a line end.
    """
    import minigpt
    from minigpt.domain import config
    from minigpt.models import find

    domain = domain or find.domain_file(model)
    if domain is None:
        raise click.UsageError("Give --domain NAME: MODEL is no build, so it has no domain of its own.")
    config.load_domain(domain)
    with session.reporter.stage(f"Finding {model}"):
        if find.export_folder(model) is None:
            find.find_model(model, reporter=session.reporter)
    stage = minigpt.evaluate(
        model, domain, device=device, seed=seed, limit=limit, online=online, reporter=session.reporter
    )
    session.show(stage, lambda: metrics(stage))


def metrics(stage: StageReport) -> RenderableType:
    """One row a number."""
    from rich.markup import escape

    from minigpt.report.text import count, interval, number, opening, size

    result = table("task", "metric", ">value", ">95 % interval", ">n", ">chance")
    for item in stage.metrics:
        chance = "" if item.chance is None else number(item.chance)
        result.add_row(item.task, item.metric, number(item.value), interval(item.low, item.high), f"{item.n:,}", chance)
    behind = escape(f", texts behind {opening(stage.opening)}")
    result.caption = f"{count(stage.parameters)} parameters, {size(stage.bytes)}{behind}"
    return result
