"""British House of Commons speeches (a zipped CSV sample of ParlSpeech V2): general English text.

A document is all speeches of one day under one heading. The chair's procedural remarks and very short speeches are left
out. Some debates are about law or money, so a few passages are near those domains.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.prose import MIN_CHARACTERS, documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

LICENSE = "CC0-1.0 (ParlSpeech V2); Open Parliament Licence v3.0 (UK Parliament)"
COLUMNS = {"date", "agenda", "chair", "text"}


def rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of the CSV file inside the archive.

    Raises:
        CorpusError: The file is no such archive, or columns are missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".csv"))
            speeches = list(csv.DictReader(io.StringIO(archive.read(name).decode("utf-8"))))
    except (zipfile.BadZipFile, StopIteration, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} is not a zip file with one UTF-8 CSV file in it ({error}).") from None
    if not speeches or not set(speeches[0]) >= COLUMNS:
        raise CorpusError(f"{path} has no speeches with the columns {', '.join(sorted(COLUMNS))}.")
    return speeches


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of speeches. Speeches of one day and heading share a source."""
    debates: dict[str, list[str]] = defaultdict(list)
    for row in rows(path):
        text = re.sub(r"\s+", " ", row["text"]).strip()
        if row["chair"] != "TRUE" and len(text) >= MIN_CHARACTERS:
            topic = re.sub(r"\W+", "-", re.split(r"\s\[", row["agenda"])[0]).strip("-").casefold()
            debates[f"hansard:{row['date']}/{topic}"].append(text)
    for source, speeches in sorted(debates.items()):
        yield from documents_of(source, speeches, license=LICENSE)
