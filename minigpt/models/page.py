"""Page of a finished build, found by any name of the build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigpt import report
from minigpt.errors import AssetError
from minigpt.files import path_of
from minigpt.models import catalog
from minigpt.report.decision import Decision, decide
from minigpt.report.page import FILE_NAME, write_page


def refresh_page(name: str, gates: Sequence[str] = ()) -> tuple[Path, Decision]:
    """Write the page of a build anew from its report, and return its path and the decision on it.

    Args:
        name: A build folder, a catalog id, or a domain (its latest build).
        gates: What the decision rests on, see :func:`minigpt.report.decision.decide`.

    Raises:
        AssetError: There is no build of that name.
    """
    path = path_of(name)
    folder = path if path.is_dir() else catalog.resolve(name)
    if not (folder / "report.json").is_file():
        raise AssetError(f"{folder} holds no report.json; give the folder of a build, or a name of `minigpt catalog`.")
    finished = report.load(folder)
    write_page(finished, folder / FILE_NAME, gates)
    return folder / FILE_NAME, decide(finished, gates)
