"""Pages of finished builds: of one, found by any of its names, and of all models of the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigpt import report
from minigpt.costs import Price
from minigpt.errors import AssetError, MiniGPTError
from minigpt.files import path_of
from minigpt.models import catalog
from minigpt.report.decision import Decision, decide
from minigpt.report.page import FILE_NAME, Finished, write_catalog_page, write_page
from minigpt.results import CatalogEntry


def refresh_page(name: str, gates: Sequence[str] = (), *, price: Price | None = None) -> tuple[Path, Decision]:
    """Write the page of a build anew from its report, and return its path and the decision on it.

    Args:
        name: A build folder, a catalog id, or a domain (its latest build).
        gates: What the decision rests on, see :func:`minigpt.report.decision.decide`.
        price: Price of an hour of the machine; None takes that of the report.

    Raises:
        AssetError: There is no build of that name.
    """
    path = path_of(name)
    folder = path if path.is_dir() else catalog.resolve(name)
    if not (folder / "report.json").is_file():
        raise AssetError(f"{folder} holds no report.json; give the folder of a build, or a name of `minigpt catalog`.")
    finished = report.load(folder)
    write_page(finished, folder / FILE_NAME, gates, price=price)
    return folder / FILE_NAME, decide(finished, gates)


def write_catalog(path: Path, domain: str | None = None, gates: Sequence[str] = ()) -> None:
    """Write the page of the models in the catalog. A model whose report cannot be read stands there with the reason.

    Args:
        path: The file to write.
        domain: Domain whose models are shown; None for all.
        gates: What the decisions rest on, see :func:`minigpt.report.decision.decide`.

    Raises:
        ConfigError: A gate cannot be read.
    """
    write_catalog_page([finished(entry) for entry in catalog.entries(domain)], path, gates)


def finished(entry: CatalogEntry) -> Finished:
    """Return a model of the catalog with its report, or with the reason why that cannot be read."""
    try:
        return Finished(entry=entry, report=report.load(Path(entry.path)))
    except MiniGPTError as error:
        return Finished(entry=entry, report=None, problem=str(error))
