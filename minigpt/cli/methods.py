"""Command `minigpt methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.conditional.kinds import Kind
    from minigpt.methods import Method


@click.command(epilog=examples("minigpt methods", "minigpt methods --json", "minigpt build --domain law --method flap"))
@standard
def methods(session: Session) -> None:
    """List the pruning methods: what each prunes, its paper, and what loads its results.

    Below them stand the kinds of conditional layers that `build --conditional` makes.
    """
    from rich.console import Group

    from minigpt.conditional.kinds import KINDS
    from minigpt.methods import METHODS

    facts = {"methods": [row(method) for method in METHODS.values()], "conditional": [*map(kind_row, KINDS.values())]}
    session.show(facts, lambda: Group(overview(list(METHODS.values())), "", conditional_kinds(list(KINDS.values()))))


def kind_row(kind: Kind) -> dict[str, object]:
    """Describe a kind of conditional layers for `--json`."""
    return {name: getattr(kind, name) for name in ("name", "reads", "paper", "trained")}


def conditional_kinds(known: list[Kind]) -> RenderableType:
    """Draw one row for each kind of conditional layers."""
    result = table("=conditional", "a token reads", "paper")
    for kind in known:
        result.add_row(kind.name, kind.reads, kind.paper)
    result.caption = "`minigpt build --conditional KIND` makes a conditional form of the model, in `conditional`."
    return result


def row(method: Method) -> dict[str, object]:
    """Describe a method for `--json`: facts, options, and under `--paper-form` what that evaluates."""
    facts = {name: getattr(method, name) for name in ("name", "prunes", "paper", "loads")}
    return {**facts, "options": {**method.options, "--paper-form": method.paper_form_summary}}


def overview(known: list[Method]) -> RenderableType:
    """Draw one row for each method."""
    result = table("=method", "prunes", "paper", "loads in", "--paper-form evaluates")
    for method in known:
        result.add_row(method.name, ", ".join(method.prunes), method.paper, method.loads, method.paper_form_summary)
    result.caption = (
        "The plan removes only what a method prunes: ffn (neurons), kv_groups, layers, embedding (tokens, ranked by "
        "how often the domain uses them). All layers get the same width; each layer keeps its own units. Take "
        "contextual, the default, unless you study pruning: docs/results/methods.md has all methods side by side."
    )
    return result
