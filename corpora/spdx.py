"""SPDX license list (`spdx/data/`): license texts as documents.

Versions of one license are nearly the same text, so a document is a family (all CC-*, all GPL with related licenses),
which goes to one split as a whole. A few families are so large that one would fill the held-out text;
:mod:`spdx_families` reads them as training text. Texts in languages other than English and files that explain the
format are left out. Template marks of the SPDX texts are replaced by the original wording.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.prose import MIN_CHARACTERS, documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

LICENSE = "license texts, verbatim copying permitted; the collection is CC0-1.0"
# Characters above which a family is large.
LARGE = 30_000
# Characters of a large family that are read: its versions say the same, and one family would outweigh all others.
MOST = 120_000
# Family of licenses whose text derives from that of another family.
KIN = {"AGPL": "GPL", "LGPL": "GPL", "GFDL": "GPL", "NPL": "MPL", "CPAL": "MPL", "CUA": "MPL", "SPL": "MPL"}
KIN |= {"Interbase": "MPL", "ErlPL": "MPL", "YPL": "MPL", "Zimbra": "MPL", "SugarCRM": "MPL", "Frameworx": "MPL"}
KIN |= {
    "RPSL": "APSL",
    "NPOSL": "OSL",
    "AFL": "OSL",
    "CDDL": "MPL",
    "CC0": "CC",
    "CPL": "EPL",
    "IPL": "EPL",
    "LPL": "EPL",
}
TEMPLATE = re.compile(r"<<var;.*?original=(.*?)(?:;match=.*?)?>>|<</?[a-zA-Z][^<>]*>>|<<[^<>]*>>", re.DOTALL)
# Words that are common in English legal prose.
ENGLISH = frozenset({"the", "of", "and", "to", "any", "or", "in", "this", "you", "is", "for", "that", "not"})


def family(name: str) -> str:
    """Return the family of a license id: `CC` for `CC-BY-NC-4.0`, `GPL` for `deprecated_LGPL-2.1+`."""
    head = name.removeprefix("deprecated_").split("-")[0].rstrip("0123456789.+")
    return KIN.get(head, head or name)


def is_english(text: str) -> bool:
    """Return True if at least a fifth of the words are common English ones, as in English legal prose."""
    words = re.findall(r"\w+", text.casefold())
    return bool(words) and sum(word in ENGLISH for word in words) >= 0.2 * len(words)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a license, each as one line without template marks, rulers and comment marks."""
    text = TEMPLATE.sub(lambda match: (match[1] or "").strip(), text)
    text = re.sub(r"(?m)^[ \t]*(?:/\*+|\*+/|\*|//|#|;;?)[ \t]*", "", text)
    text = text.replace("``", '"').replace("''", '"')
    blocks = re.split(r"\n[ \t]*\n", text.replace("\r", ""))
    joined = (re.sub(r"\s+", " ", re.sub(r"[=_*~-]{4,}", " ", block)).strip() for block in blocks)
    return [block for block in joined if len(block) > 1 and re.search(r"[A-Za-z]{2}", block)]


def families(path: Path) -> dict[str, list[str]]:
    """Read the English license texts of a folder, by family.

    Raises:
        CorpusError: The folder holds no license texts.
    """
    by_family: dict[str, list[str]] = defaultdict(list)
    for file in sorted(path.glob("*.txt")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if file.stem not in {"README", "diffmark"} and len(text) >= MIN_CHARACTERS and is_english(text):
            by_family[family(file.stem)].append(text)
    if not by_family:
        raise CorpusError(f"{path} holds no license texts (*.txt).")
    return dict(sorted(by_family.items()))


def family_documents(path: Path, *, large: bool) -> Iterator[Document]:
    """Yield the passages of large or of other families; a family is one source.

    Args:
        path: The folder of license texts.
        large: True for families of more than `LARGE` characters, False for the others.
    """
    for name, texts in families(path).items():
        if (sum(map(len, texts)) > LARGE) == large:
            for text in newest(texts):
                yield from documents_of(f"spdx:{name}", paragraphs(text), license=LICENSE)


def newest(texts: list[str]) -> list[str]:
    """Return the last license texts of a family, at least one and `MOST` characters at most."""
    kept: list[str] = []
    for text in reversed(texts):
        if kept and sum(map(len, kept)) + len(text) > MOST:
            break
        kept.append(text)
    return kept[::-1]


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of the families that are small enough to be held out."""
    yield from family_documents(path, large=False)
