"""Command `minigpt families`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.exporting.support import Support

# How a state is drawn in the table.
MARKS = {"yes": "yes", "refused": "no", "none": "-"}


@click.command(epilog=examples("minigpt families", "minigpt families --json"))
@standard
def families(session: Session) -> None:
    """List the families of models: what can be pruned and exported, and what was measured on real weights."""
    from minigpt.exporting.paper_models import paper_models
    from minigpt.exporting.support import matrix
    from minigpt.transformer.families import UNDESCRIBED

    rows = matrix()
    document = {
        "families": [row.as_dict() for row in rows],
        "refused": dict(UNDESCRIBED),
        "papers": [row.as_dict() for row in paper_models()],
    }
    session.show(document, lambda: overview(rows))


def overview(rows: list[Support]) -> RenderableType:
    """Draw one row for each family."""
    from minigpt.exporting.support import COLUMNS

    result = table("=family", *COLUMNS, "measured on")
    for row in rows:
        marks = [MARKS[row.cells[name].state] for name in COLUMNS]
        result.add_row(row.family, *marks, row.real_weights or "tiny models")
    result.caption = (
        "--json holds the sentence for every `no`, the families that are refused altogether, and the papers' models."
    )
    return result
