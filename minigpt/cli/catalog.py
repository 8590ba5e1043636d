"""Command `minigpt catalog`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, facts, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from minigpt.results import CatalogEntry

# Ratios of a model's bits per byte to its parent's, in the order of the columns.
RATIOS = ("ratio_to_parent", "other_ratio_to_parent", "general_ratio_to_parent")


@click.group(
    epilog=examples("minigpt catalog list", "minigpt catalog add runs/medical", "minigpt catalog verify --json")
)
def catalog() -> None:
    """Show finished models: where they are, and whether their files are still the ones that were measured."""


@catalog.command("list", epilog=examples("minigpt catalog list", "minigpt catalog list --domain law --json"))
@click.option("--domain", metavar="NAME", help="Domain whose models are listed [all].")
@standard
def list_entries(session: Session, *, domain: str | None) -> None:
    """List the models, oldest first."""
    from minigpt.models import catalog as library

    entries = library.entries(domain)
    session.show({"entries": entries}, lambda: overview(entries, domain))


@catalog.command(epilog=examples("minigpt catalog show medical"))
@click.argument("name")
@standard
def show(session: Session, *, name: str) -> None:
    """Show the report of NAME, which is an id, or a domain (its latest build)."""
    from minigpt import report
    from minigpt.models import find

    finished = find.find_report(name)
    session.show(finished, lambda: report.render(finished))


@catalog.command(epilog=examples("minigpt catalog add runs/medical"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@standard
def add(session: Session, *, folder: str) -> None:
    """Add the finished build in FOLDER, with hashes of its files."""
    from minigpt.models import catalog as library

    entry = library.add(Path(folder))
    session.show(entry, lambda: overview([entry]))


@catalog.command(
    epilog=examples("minigpt catalog remove medical-76-20260101-1a2b3c", "minigpt catalog remove ID --delete-files")
)
@click.argument("entry_id", metavar="ID")
@click.option("--delete-files", is_flag=True, help="Also delete the files that the entry recorded.")
@standard
def remove(session: Session, *, entry_id: str, delete_files: bool) -> None:
    """Remove the entry ID. Its files stay where they are unless --delete-files is given."""
    from minigpt.models import catalog as library

    entry = library.remove(entry_id, delete=delete_files)
    session.show(entry, lambda: f"Removed {entry.id}; files {'deleted' if delete_files else 'kept'}: {entry.path}")


@catalog.command(epilog=examples("minigpt catalog verify", "minigpt catalog verify medical-76-20260101-1a2b3c"))
@click.argument("entry_id", metavar="[ID]", required=False)
@standard
def verify(session: Session, *, entry_id: str | None) -> None:
    """Hash the files of ID, or of all entries, again. The exit code is 1 if one is missing, changed or new."""
    from minigpt.errors import AssetError
    from minigpt.models import catalog as library

    with session.reporter.stage("Hashing"):
        states = library.verify(entry_id)
    damaged = {key: {name: state for name, state in files.items() if state != "ok"} for key, files in states.items()}
    session.show(states, lambda: facts({key: verdict(files) for key, files in damaged.items()}))
    if bad := [key for key, files in damaged.items() if files]:
        raise AssetError(f"Files of {', '.join(bad)} are missing, changed or new: build again, or remove the entry.")


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


def verdict(damaged: Mapping[str, str]) -> str:
    """Format the line of an entry: `ok`, or the files that are not."""
    return ", ".join(f"{name} {state}" for name, state in damaged.items()) or "ok"


def overview(entries: Sequence[CatalogEntry], domain: str | None = None) -> RenderableType:
    """Draw one row for each model, or say that there is none (of `domain`)."""
    from rich.console import Group
    from rich.text import Text

    from minigpt.report.text import percent, size

    if not entries and domain is not None:
        return f"The catalog has no model of the domain {domain!r}: `minigpt catalog list` shows all."
    if not entries:
        return "The catalog is empty: `minigpt build --domain medical` makes the first entry."
    result = table("=id", ">kept", ">size", ">own field", ">other sources", ">general", "path")
    for entry in entries:
        figures = entry.headline
        ratios = (figures.get(name) for name in RATIOS)
        result.add_row(
            entry.id,
            percent(figures.get("parameters_kept")),
            size(entry.bytes),
            *("–" if ratio is None else f"{ratio:.3f}×" for ratio in ratios),
            entry.path,
        )
    return Group(
        result, *shared_parents(entries), Text("×: bits per byte of the parent's, below 1 is better", style="dim")
    )
