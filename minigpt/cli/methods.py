"""`minigpt methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.methods import Method


@click.command(epilog=examples("minigpt methods", "minigpt methods --json", "minigpt build --domain law --method flap"))
@standard
def methods(session: Session) -> None:
    """The pruning methods there are: what each prunes, its paper, what its results load in."""
    from minigpt.methods import METHODS

    session.show({"methods": [row(method) for method in METHODS.values()]}, lambda: overview(list(METHODS.values())))


def row(method: Method) -> dict[str, object]:
    """What `--json` tells of a method; its options say what `--masked` evaluates."""
    told = {name: getattr(method, name) for name in ("name", "prunes", "paper", "loads")}
    return {**told, "options": {**method.options, "--masked": method.paper_form_summary}}


def overview(known: list[Method]) -> RenderableType:
    """One row a method."""
    result = table("=method", "prunes", "paper", "loads in", "--masked evaluates")
    for method in known:
        result.add_row(method.name, ", ".join(method.prunes), method.paper, method.loads, method.paper_form_summary)
    result.caption = (
        "The plan cuts only what a method prunes: ffn (neurons), kv_groups, layers, embedding (tokens, ranked by the "
        "domain's counts). Widths are uniform over the layers, the choice is per layer."
    )
    return result
