"""`minigpt catalog`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, facts, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.types import CatalogEntry


@click.group(
    epilog=examples("minigpt catalog list", "minigpt catalog add runs/medical", "minigpt catalog verify --json")
)
def catalog() -> None:
    """Finished models: where they lie, and whether their files are still the ones that were measured."""


@catalog.command("list", epilog=examples("minigpt catalog list", "minigpt catalog list --domain law --json"))
@click.option("--domain", metavar="NAME", help="Only this domain.")
@standard
def list_entries(session: Session, *, domain: str | None) -> None:
    """All models, oldest first."""
    from minigpt.models import catalog as library

    found = library.entries(domain)
    session.show({"entries": found}, lambda: overview(found))


@catalog.command(epilog=examples("minigpt catalog show medical"))
@click.argument("name")
@standard
def show(session: Session, *, name: str) -> None:
    """The report of NAME: an id, or a domain (its latest build)."""
    from minigpt import report
    from minigpt.models import find

    found = find.report_of(name)
    session.show(found, lambda: report.render(found))


@catalog.command(epilog=examples("minigpt catalog add runs/medical"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@standard
def add(session: Session, *, folder: str) -> None:
    """Enter the finished build in FOLDER, with hashes of its files."""
    from pathlib import Path

    from minigpt.models import catalog as library

    entry = library.add(Path(folder))
    session.show(entry, lambda: overview([entry]))


@catalog.command(
    epilog=examples("minigpt catalog remove medical-76-20260101-1a2b3c", "minigpt catalog remove ID --delete-files")
)
@click.argument("entry_id", metavar="ID")
@click.option("--delete-files", is_flag=True, help="Delete the files the entry recorded, too.")
@standard
def remove(session: Session, *, entry_id: str, delete_files: bool) -> None:
    """Drop an entry; its files stay where they are unless asked otherwise."""
    from minigpt.models import catalog as library

    entry = library.remove(entry_id, delete=delete_files)
    session.show(entry, lambda: f"Removed {entry.id}; files {'deleted' if delete_files else 'kept'}: {entry.path}")


@catalog.command(epilog=examples("minigpt catalog verify", "minigpt catalog verify medical-76-20260101-1a2b3c"))
@click.argument("entry_id", metavar="[ID]", required=False)
@standard
def verify(session: Session, *, entry_id: str | None) -> None:
    """Hash the files of ID, or of all entries, again; exit 1 if one is missing, changed or was added."""
    from minigpt.errors import AssetError
    from minigpt.models import catalog as library

    with session.reporter.stage("Hashing"):
        states = library.verify(entry_id)
    damaged = {key: {name: state for name, state in files.items() if state != "ok"} for key, files in states.items()}
    session.show(states, lambda: facts({key: verdict(files) for key, files in damaged.items()}))
    if bad := [key for key, files in damaged.items() if files]:
        raise AssetError(f"Files of {', '.join(bad)} are missing, changed or new: build again, or remove the entry.")


def verdict(damaged: Mapping[str, str]) -> str:
    """One entry's line: `ok`, or the files that are not."""
    return ", ".join(f"{name} {state}" for name, state in damaged.items()) or "ok"


def overview(entries: Sequence[CatalogEntry]) -> RenderableType:
    """One row a model."""
    from minigpt.report.text import count, size

    if not entries:
        return "The catalog is empty: `minigpt build --domain medical` makes the first entry."
    result = table("=id", "domain", ">parameters", ">size", "headline", "path")
    for entry in entries:
        headline = ", ".join(f"{name} {value:.3f}" for name, value in entry.headline.items())
        result.add_row(entry.id, entry.domain, count(entry.parameters), size(entry.bytes), headline, entry.path)
    return result
