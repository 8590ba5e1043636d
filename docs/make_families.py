"""Write docs/reference/families.md from the tables of families: `make docs`. A test checks that it is current."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

from minigpt.exporting.paper_models import paper_models
from minigpt.exporting.support import COLUMNS, Cell, matrix
from minigpt.files import write_text
from minigpt.transformer.families import UNDESCRIBED

PAGE = Path(__file__).with_name("reference") / "families.md"
HEADER = """# Families of models

Written by `make docs` from the tables that the program works by; `minigpt families --json` gives the same as data.

A parent must be of one of these families (`model_type` in its `config.json`). The tests prune a tiny random model of
every family: cutting equals masking, keeping everything changes no byte, stock classes load the result with the same
logits and the same greedy text, the repair lowers the error, and healing trains it. The last column says where builds
were measured with real weights ([results](../results/quality.md); [experts](../results/experts.md)).

**yes**: works. **no**: the program refuses, and the sentence is below. **-**: the family has nothing of the kind.
"""
MARKS = {"yes": "yes", "refused": "no", "none": "-"}


def content() -> str:
    """Return the page: the matrix, its sentences, and the families that are refused."""
    rows = matrix()
    head = ["| family | " + " | ".join(COLUMNS) + " | real weights |", "|" + "---|" * (len(COLUMNS) + 2)]
    body = [
        f"| `{row.family}` | "
        + " | ".join(MARKS[row.cells[name].state] for name in COLUMNS)
        + f" | {row.real_weights or 'not measured'} |"
        for row in rows
    ]
    sentences: dict[tuple[str, Cell], list[str]] = {}
    for row in rows:
        for name in COLUMNS:
            if row.cells[name].note:
                sentences.setdefault((name, row.cells[name]), []).append(f"`{row.family}`")
    lines = [
        wrapped(f"- **{name}**, {MARKS[cell.state]}: {cell.note}. {_listed(families, len(rows))}")
        for (name, cell), families in sorted(sentences.items(), key=lambda item: COLUMNS.index(item[0][0]))
    ]
    variants = [wrapped(f"- `{row.family}`: {row.variants}") for row in rows if row.variants]
    refused = [wrapped(f"- `{name}`: {reason}.") for name, reason in UNDESCRIBED.items()]
    return "\n".join(
        [
            HEADER,
            *head,
            *body,
            "\n## What the cells say\n",
            *lines,
            "\n## Variants\n\nOf these families only configs with the following values are described; others are "
            "refused.\n",
            *variants,
            "\n## Not supported\n",
            *refused,
            "\n## The models of the papers\n\nWhich models that the papers measured `--base` takes.\n",
            *_papers(),
            "",
        ]
    )


def _papers() -> list[str]:
    """Return the table of the papers' models, and the sentence of each that is special or refused."""
    rows = paper_models()
    table = [f"| {row.paper} | {row.model} | `{row.family}` | {'yes' if row.works else 'no'} |" for row in rows]
    notes = [wrapped(f"- **{row.model}**: {row.note}.") for row in rows if row.note]
    return ["| paper | model | family | taken |", "|---|---|---|---|", *table, "", *notes]


def wrapped(item: str) -> str:
    """Wrap an item of a list."""
    return fill(item, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _listed(families: list[str], everything: int) -> str:
    """Name families, or say that it is all of them."""
    return "All families." if len(families) == everything else f"{', '.join(families)}."


if __name__ == "__main__":
    write_text(PAGE, content())
