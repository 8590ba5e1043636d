"""Command `minigpt merge`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.common import Session, examples, facts, standard

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.merging.run import MergeRecord


@click.command(
    epilog=examples(
        "minigpt merge runs/medical runs/law --output-dir runs/both",
        "minigpt merge runs/medical runs/law --heal 200 --output-dir runs/both",
        "minigpt merge runs/both/recipe.yaml --output-dir runs/again",
    )
)
@click.argument("builds", nargs=-1, required=True, metavar="A B [...] | RECIPE")
@click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write.")
@click.option("--heal", type=click.IntRange(min=0), metavar="STEPS", help="Training steps behind the merge [0].")
@click.option("--device", metavar="NAME", help="Device: auto, cpu, cuda, cuda:1 or mps [auto].")
@standard
def merge(session: Session, *, builds: tuple[str, ...], output_dir: Path, heal: int | None, device: str | None) -> None:
    """Merge delta tickets of one parent (builds or catalog ids) into one ticket.

    Dev text of all their domains decides how: by sum, mean or elected signs (TIES), and with which factor. With
    --heal the changed weights are trained then, and each ticket teaches the text of its own domain.

    RECIPE is a recipe.yaml that a merge left.
    """
    from minigpt.merging.recipe import MergeRecipe, read_merge_recipe
    from minigpt.merging.run import merge_tickets

    is_recipe = len(builds) == 1 and Path(builds[0]).suffix in (".yaml", ".yml")
    recipe = read_merge_recipe(Path(builds[0])) if is_recipe else MergeRecipe(tickets=builds)
    changes: dict[str, Any] = {"device": device, "heal": heal}
    recipe = replace(recipe, **{name: value for name, value in changes.items() if value is not None})
    record = merge_tickets(recipe, output_dir, reporter=session.reporter)
    session.show(record, lambda: outline(record, output_dir))


def outline(record: MergeRecord, folder: Path) -> RenderableType:
    """List the figures of a merge, and the command that measures it on held-out text."""
    from minigpt.report.text import percent, size

    rows: dict[str, object] = {
        "ticket": f"{folder / 'delta'} ({size(record.bytes)}, {percent(record.changed)} of the weights changed)",
        "rule": f"{record.rule}, differences times {record.scale:g}",
    }
    for part, ratio in zip(record.parts, record.dev, strict=True):
        rows[f"dev text of {Path(part).parent}"] = f"{ratio:.3f}× the bits of its own ticket"
    if record.healing is not None:
        worst = f"the worst domain had {max(record.unhealed):.3f}× before"
        kept = worst if record.is_healed else "the worst domain became no better, so that the untrained merge is kept"
        rows["healing"] = f"{record.healing.steps} steps; {kept}"
    if record.overlap is not None:
        rows["changed by both"] = f"{percent(record.overlap)} (by chance {percent(record.chance)})"
    rows["measure it"] = f"minigpt eval {folder} --domain {record.domains[0]}"
    return facts(rows)
