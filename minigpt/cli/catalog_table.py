"""Table of the models in the catalog, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minigpt.cli.common import table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from minigpt.results import CatalogEntry

# What stands behind a folder that was moved or deleted.
GONE = " (not there)"
# Ratios of a model's bits per byte to its parent's, in the order of the columns. Of general text the one that nothing
# was trained on is shown, as in the gates and on the page; where it was not measured, the other one stands with a mark.
RATIOS = ("ratio_to_parent", "other_ratio_to_parent", "general_other_ratio_to_parent")
TRAINED_ON, MARK = "general_ratio_to_parent", "†"
LEGEND = (
    "×: bits per byte of the parent's on text of its own sources, of other sources of the field, and on general text; "
    "below 1 is better. A folder elsewhere is named by its last part: catalog list --json has whole paths."
)
MARKED = f" {MARK}: general text of a kind that training may have seen."


def overview(entries: Sequence[CatalogEntry], domain: str | None = None) -> RenderableType:
    """Draw one row for each model, or say that there is none (of `domain`)."""
    from rich.console import Group
    from rich.text import Text

    from minigpt.report.text import percent, size

    if not entries and domain is not None:
        return f"The catalog has no model of the domain {domain!r}: `minigpt catalog list` shows all."
    if not entries:
        return "The catalog is empty: `minigpt build --domain medical` makes the first entry."
    result = table("=id", ">=kept", ">=size", ">=own", ">=other", ">=general", "folder", padding=0)
    marked = False
    for entry in entries:
        figures = entry.headline
        ratios = [_times(figures.get(name)) for name in RATIOS]
        if RATIOS[-1] not in figures and TRAINED_ON in figures:
            ratios[-1], marked = f"{_times(figures[TRAINED_ON])}{MARK}", True
        result.add_row(
            entry.id,
            percent(figures.get("parameters_kept")),
            size(entry.bytes),
            *ratios,
            folder_name(entry.path) + GONE * (not Path(entry.path).is_dir()),
        )
    return Group(result, *shared_parents(entries), Text(LEGEND + MARKED * marked, style="dim"))


def folder_name(path: str) -> str:
    """Return a folder's path inside the current folder, or else its name: whole paths break where a table is narrow."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else Path(path).name


def _times(ratio: float | None) -> str:
    """Format a ratio; a dash stands for one that was not measured."""
    return "–" if ratio is None else f"{ratio:.3f}×"


def shared_parents(entries: Sequence[CatalogEntry]) -> Iterator[Text]:
    """Yield a line for each parent that delta tickets need: their bytes, and those of the parent in 16 bits."""
    from rich.text import Text

    from minigpt.report.text import short_reference, size

    tickets = [entry for entry in entries if "delta/delta.safetensors" in entry.hashes]
    for base in dict.fromkeys(entry.base_model for entry in tickets):
        same = [entry for entry in tickets if entry.base_model == base]
        words = f"{len(same)} delta ticket{'s' if len(same) > 1 else ''}: {size(sum(entry.bytes for entry in same))}"
        parent = size(2 * same[0].parameters)
        yield Text(f"{words} beside one parent, {short_reference(base)} ({parent} in 16 bits)", style="dim")
