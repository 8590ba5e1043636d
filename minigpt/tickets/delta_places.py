"""Places of a delta ticket's files, which are looked for without torch."""

from __future__ import annotations

from pathlib import Path

# Files of a ticket.
WEIGHTS = "delta.safetensors"
RECORD = "delta.json"
# Folder of the ticket in the folder of a build.
FOLDER = "delta"


def is_ticket(folder: Path) -> bool:
    """Check whether a folder holds the files of a ticket."""
    return (folder / WEIGHTS).is_file()


def ticket_folder(path: Path) -> Path | None:
    """Return the ticket's folder at a path: the path itself, or `delta/` below it; None where there is no ticket."""
    return next((folder for folder in (path, path / FOLDER) if is_ticket(folder)), None)
