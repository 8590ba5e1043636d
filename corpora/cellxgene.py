"""Ontologies in cellxgene-ontology-guide (`data/*.json.gz`): definitions of diseases (MONDO) and of anatomy (UBERON).

A document is a run of terms with neighboring names. Terms without a definition of some length, and terms of other
species, are left out.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt.corpus.prose import clean, documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

from ._entries import NamedText, family_of, group_entries, select
from ._order import mixed

LICENSE = "CC BY 4.0 (MONDO); CC BY 3.0 (UBERON)"
# Characters of a definition that is kept, at least.
SHORTEST = 110
# Words of definitions that are not about people.
OTHER_SPECIES = re.compile(
    r"\b(?:insects?|larva\w*|drosophila|zebrafish|teleost\w*|fish(?:es)?|plants?|worms?|nematod\w*|arthropod\w*|"
    r"birds?|fins?|gills?|opercul\w*|opercles?|hypural\w*|squamates?|reptil\w*|lizards?|snakes?|frogs?|anura\w*|"
    r"amniotes?|mammals|vertebrates|organisms|swim bladder|dipnoi|cosmine|gastrali\w+|hemal|pterygi\w*|radials|"
    r"branchio\w*|ganoid|chondrichthy\w*|shells?|wings?|mouse|mice|murine|rodents?|avian|amphibia\w*|xenopus|"
    r"tetrapod\w*|squids?|cephalopod\w*|dogs?|canine|cats?|feline|cattle|bovine|horses?|equine|sheep|swine|pigs?|"
    r"annelid\w*|crustacean\w*|echinoderm\w*|mollus\w*|whales?)\b",
    re.IGNORECASE,
)
# Definitions that are made from a term's links to others.
MADE = re.compile(
    r"in which the cause of the (?:disease|condition)|^An? [^.]* (?:that|which) (?:involves|is part of|occurs)"
)
MARKS = re.compile(r"\[[^\]]{0,80}\]|\((?:[A-Z]+:\S+)[^)]*\)|\"|\\n")


def read_terms(path: Path) -> list[NamedText]:
    """Read the terms of an ontology that have a definition.

    Raises:
        CorpusError: The file is no such ontology.
    """
    try:
        terms: dict[str, dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
        rows = [(str(term["label"]), str(term.get("description") or "")) for term in terms.values() if is_alive(term)]
    except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorpusError(f"{path} is not a gzipped ontology of terms with label and description ({error}).") from None
    kept = []
    for name, description in rows:
        text = clean(MARKS.sub("", description))
        if len(text) >= SHORTEST and not MADE.search(text) and not OTHER_SPECIES.search(f"{name} {text}"):
            kept.append(NamedText(name=name, text=text, family=family_of(name)))
    return kept


def is_alive(term: dict[str, Any]) -> bool:
    """Return True if the ontology has not withdrawn the term."""
    return not term.get("deprecated") and not str(term["label"]).startswith("obsolete")


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of terms with neighboring names in mixed order."""
    prefix = path.name.split("-")[0].casefold()
    for source, items in mixed(group_entries(prefix, select(read_terms(path)))):
        yield from documents_of(source, [item.paragraph for item in items], license=LICENSE)
