"""UniProt disease descriptions (`protein_diseases.xml` of gnuhealth-genetics-uniprot): inherited diseases in prose.

Each entry names a disease and tells its signs, course and cause in two to six sentences. Diseases of one name ("Aortic
aneurysm, familial thoracic 4") are in one document.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.prose import clean, documents_of
from minigpt.corpus.questions import Entry, definition_questions
from minigpt.errors import CorpusError
from minigpt.types import Document, Question

from ._entries import NamedText, family_of, group_entries, select
from ._order import mixed

LICENSE = "CC BY 4.0 (UniProt)"
MODEL = "gnuhealth.protein.disease"
# Characters of a definition that a question asks for, at least and at most.
SHORTEST, LONGEST = 120, 400
# Largest share of a question's words that may be blanked.
MAX_BLANK = 0.2


def read_diseases(path: Path) -> list[NamedText]:
    """Read the diseases that have a description; their kind is their first keyword.

    Raises:
        CorpusError: The file holds no disease records.
    """
    try:
        records = ElementTree.parse(path).getroot().iter("record")
    except (ElementTree.ParseError, OSError) as error:
        raise CorpusError(f"{path} is not readable as XML ({error}).") from None
    diseases = []
    for record in records:
        values = {item.get("name"): (item.text or "").strip() for item in record.iter("field")}
        name, text = values.get("disease_name", ""), clean(values.get("description", ""))
        if record.get("model") == MODEL and name and text:
            group = (values.get("keywords") or "").split(",")[0].strip()
            diseases.append(NamedText(name=name, text=text, family=family_of(name), group=group))
    if not diseases:
        raise CorpusError(f"{path} holds no records of {MODEL} with a description.")
    return diseases


def groups(path: Path) -> list[tuple[str, list[NamedText]]]:
    """Return the documents as pairs (name, diseases)."""
    plain = [NamedText(name=item.name, text=item.text, family=item.family) for item in select(read_diseases(path))]
    return group_entries("uniprot", plain)


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of neighboring diseases in mixed order."""
    for source, items in mixed(groups(path)):
        yield from documents_of(source, [item.paragraph for item in items], license=LICENSE)


def questions(path: Path, *, seed: int = 0) -> list[Question]:
    """Make questions that ask for the disease of a description, among diseases of the same keyword."""
    kinds = {item.name: item.group for item in read_diseases(path)}
    entries = [
        Entry(
            term=item.name,
            definition=shown(item.text),
            family=f"uniprot/{kinds[item.name] or 'other'}",
            wider="uniprot",
            source=source,
            subject=kinds[item.name] or "disease",
        )
        for source, items in groups(path)
        for item in items
        if len(item.text) >= SHORTEST and not re.search(r"\d", item.name)
    ]
    template = 'Which disease is described as follows: "{definition}"?'
    return definition_questions(entries, seed=seed, template=template, blank=True, max_blank=MAX_BLANK, license=LICENSE)


def shown(text: str) -> str:
    """Return the first whole words of a description."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rsplit(' ', 1)[0]} ..."
