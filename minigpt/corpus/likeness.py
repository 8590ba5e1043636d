"""Files of a user's folder that hold something else than text, recognized by their first rows, and names for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

from minigpt.corpus.rows import Row, files_in, read_rows
from minigpt.domain.checks import LONGEST_NAME, TEXT_TASKS
from minigpt.errors import CorpusError

# Rows that decide about a file; all of them must look alike.
LOOKED_AT = 32


def files_like(
    folder: Path, without: Collection[Path], looks: Callable[[Row], bool], prefix: str | None = None
) -> Iterator[Path]:
    """Yield the JSON Lines files of a folder and its subfolders whose first rows all look as they should.

    Args:
        folder: The folder; if it cannot be read, there are none.
        without: Files and folders that hold something else.
        looks: Decides about a row.
        prefix: Beginning of names that decide by themselves (None: rows alone do).
    """
    try:
        files = files_in(folder, suffixes=(".jsonl",))
    except CorpusError:
        return
    for path in files:
        if any(path == other or other in path.parents for other in without):
            continue
        if (prefix is not None and path.name.startswith(prefix)) or _all_look(path, looks):
            yield path


def _all_look(path: Path, looks: Callable[[Row], bool]) -> bool:
    """Return True if a file can be read and its first rows all look as they should."""
    try:
        rows = [row for _, row in islice(read_rows(path), LOOKED_AT)]
    except (CorpusError, OSError):
        return False
    return bool(rows) and all(map(looks, rows))


def free_name(name: str, taken: Collection[str], *, banned: str, default: str) -> str:
    """Return a name that nothing else and no text of a report has, with a number behind it where it is taken.

    Args:
        name: The wish.
        taken: Names that are in use.
        banned: Regular expression of what becomes a hyphen.
        default: The name where nothing of the wish is left.
    """
    plain = re.sub(banned, "-", name).strip("-_ ")[: LONGEST_NAME - 4] or default
    names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 4)))
    return next(one for one in names if one not in taken and one not in TEXT_TASKS)
