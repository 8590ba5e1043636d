"""Kinds of files that are read: one row a kind, with the module that reads it and the packages that this takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePosixPath

from minigpt.errors import ConfigError

INSTALL = 'pip install "minigpt[documents]"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file.

    Attributes:
        name: Name of the kind, as users call it.
        suffixes: Ends of the names of its files.
        read: "module:function" that reads it. It takes a :class:`minigpt.documents.base.Source` and yields rows with a
            `text` (`document`), tables (`table`), or the members of an archive (`archive`).
        gives: Form of what the function yields.
        needs: Modules that reading takes beside minigpt's own requirements.
        parts: "module:function" that yields the files inside a file that is read itself, such as attachments.
    """

    name: str
    suffixes: tuple[str, ...]
    read: str
    gives: str = "document"
    needs: tuple[str, ...] = ()
    parts: str = ""


KINDS = (
    Kind(name="text", suffixes=(".txt", ".md"), read="minigpt.documents.plain:read"),
    Kind(name="HTML", suffixes=(".html", ".htm"), read="minigpt.documents.html:read", needs=("resiliparse",)),
    Kind(name="PDF", suffixes=(".pdf",), read="minigpt.documents.pdf:read", needs=("pypdf", "cryptography")),
    Kind(name="Word", suffixes=(".docx",), read="minigpt.documents.word:read", needs=("docx",)),
    Kind(name="PowerPoint", suffixes=(".pptx",), read="minigpt.documents.slides:read", needs=("pptx",)),
    Kind(
        name="mail", suffixes=(".eml",), read="minigpt.documents.mail:read", needs=("resiliparse",),
        parts="minigpt.documents.mail:attachments",
    ),
    Kind(name="EPUB", suffixes=(".epub",), read="minigpt.documents.book:read", needs=("resiliparse", "lxml")),
    Kind(
        name="Excel", suffixes=(".xlsx",), read="minigpt.documents.sheets:read", gives="table",
        needs=("openpyxl", "defusedxml"),
    ),
    Kind(name="CSV", suffixes=(".csv", ".tsv"), read="minigpt.documents.delimited:read", gives="table"),
    Kind(name="JSON", suffixes=(".json",), read="minigpt.documents.jsons:read", gives="table"),
    Kind(
        name="JSON Lines", suffixes=(".jsonl", ".jsonl.gz"), read="minigpt.documents.jsons:read_lines", gives="table"
    ),
    Kind(name="Parquet", suffixes=(".parquet",), read="minigpt.documents.parquet:read", gives="table"),
    Kind(name="zip", suffixes=(".zip",), read="minigpt.documents.archives:read_zip", gives="archive"),
    Kind(
        name="tar", suffixes=(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
        read="minigpt.documents.archives:read_tar", gives="archive",
    ),
)  # fmt: skip


# What to do with files of other kinds, by the end of their names.
WAYS = {
    **dict.fromkeys((".doc", ".dot", ".rtf", ".odt", ".pages"), "save it as .docx"),
    **dict.fromkeys((".xls", ".ods", ".numbers"), "save it as .xlsx"),
    **dict.fromkeys((".ppt", ".pps", ".odp"), "save it as .pptx"),
    **dict.fromkeys((".msg", ".mbox", ".pst"), "save the mails as .eml"),
    **dict.fromkeys((".rar", ".7z"), "pack it as .zip"),
    **dict.fromkeys((".xml", ".log", ".text", ".tex", ".rst"), "save its text as .txt"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"), "text in pictures needs character recognition"),
}


def unread_reason(name: str) -> str:
    """Say that a file is of no kind that is read, and what to do where that is known."""
    way = WAYS.get(PurePosixPath(name.lower()).suffix)
    return f"not a kind of file that is read{f'; {way}' if way else ''}"


def kind_of(name: str) -> Kind | None:
    """Return the kind of a file by the end of its name; None if it is not read."""
    lower = name.lower()
    return next((kind for kind in KINDS if lower.endswith(kind.suffixes)), None)


def check_packages(kinds: Iterable[Kind]) -> None:
    """Refuse kinds whose packages are not installed.

    Raises:
        ConfigError: A package is missing.
    """
    missing = sorted({kind.name for kind in kinds if any(find_spec(module) is None for module in kind.needs)})
    if missing:
        raise ConfigError(
            f"Reading {', '.join(missing)} takes packages that are not installed. Install them: {INSTALL} "
            "(or take these files out of the folder)."
        )
