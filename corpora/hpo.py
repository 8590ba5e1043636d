"""Human Phenotype Ontology (`hp.obo`): clinical definitions and comments as documents, and questions for their terms.

Sibling terms resemble each other, so a document is a part of the tree with enough text, not a single term, and goes to
one split as a whole. A term is in one document only, under the first of its parents. Of definitions with one sentence
pattern ("Any abnormality of the ...") only a few are kept: more would teach the pattern and make held-out text easy.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.corpus.prose import clean, documents_of
from minigpt.corpus.questions import Entry, definition_questions, main_words
from minigpt.errors import CorpusError
from minigpt.types import Document, Question

from ._order import mixed

LICENSE = "HPO license (free use with attribution, unaltered content)"
# Characters from which a document is complete.
ENOUGH = 1500
# Definitions of one sentence pattern that are kept.
PATTERN_REPEATS = 3
# Largest share of a question's words that may be blanked.
MAX_BLANK = 0.15
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(slots=True, kw_only=True)
class Term:
    """One term of the ontology.

    Attributes:
        id: Identifier, e.g. `HP:0000118`.
        name: Name of the term.
        definition: Text that defines it.
        comment: Further remarks.
        synonyms: Exact synonyms.
        parents: Identifiers of its parents, in the order of the file.
        obsolete: True if the ontology has withdrawn the term.
    """

    id: str
    name: str = ""
    definition: str = ""
    comment: str = ""
    synonyms: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    obsolete: bool = False


def read_terms(path: Path) -> dict[str, Term]:
    """Read the terms of an OBO file that are not obsolete, by id.

    Raises:
        CorpusError: The file has no terms.
    """
    terms: dict[str, Term] = {}
    for stanza in path.read_text(encoding="utf-8").split("\n[Term]\n")[1:]:
        term = Term(id="")
        for line in stanza.split("\n\n", 1)[0].splitlines():
            key, _, value = line.partition(": ")
            read_line(term, key, value)
        if term.id and not term.obsolete:
            terms[term.id] = term
    if not terms:
        raise CorpusError(f"{path} holds no ontology terms; expected an OBO file with [Term] entries.")
    return terms


def read_line(term: Term, key: str, value: str) -> None:
    """Add one `key: value` line of the file to `term`; ignore unknown keys."""
    quoted = QUOTED.match(value)
    text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    match key:
        case "id":
            term.id = value.strip()
        case "name":
            term.name = value.strip()
        case "def":
            term.definition = clean(text)
        case "comment":
            term.comment = clean(value)
        case "synonym" if " EXACT " in value and not re.search(r"obsolete|plural|uk_spelling|allelic", value):
            term.synonyms.append(text)
        case "is_a":
            term.parents.append(value.split(" ", 1)[0])
        case "is_obsolete":
            term.obsolete = True


def paragraph(term: Term) -> str:
    """Return the paragraph of a term: name, definition, comment and synonyms."""
    parts = [term.definition]
    if term.comment and term.comment not in term.definition:
        parts.append(term.comment)
    plain = [name for name in term.synonyms if not name.casefold().startswith("abnormal")]
    other = [name for name in plain if name.casefold() != term.name.casefold()][:3]
    if other:
        parts.append(f"Also called {' or '.join(other)}.")
    return f"{term.name}: {' '.join(part for part in parts if part)}"


def pattern(term: Term) -> str:
    """Return the definition with the words of the term's name blanked: equal for definitions of one pattern."""
    name_parts = {word[:4] for word in main_words(term.name)}
    shown = ((word, {part[:4] for part in main_words(word)}) for word in term.definition.casefold().split())
    return " ".join("_" if parts & name_parts else word for word, parts in shown)


def select_terms(terms: dict[str, Term]) -> list[Term]:
    """Select the terms with a definition or comment, `PATTERN_REPEATS` of each pattern, in the order of their ids."""
    repeats: Counter[str] = Counter()
    kept = []
    for term in sorted(terms.values(), key=lambda term: term.id):
        if not (term.definition or term.comment):
            continue
        shape = pattern(term)
        repeats[shape] += 1
        if term.comment or repeats[shape] <= PATTERN_REPEATS:
            kept.append(term)
    return kept


def group_terms(path: Path) -> list[tuple[str, list[Term]]]:
    """Divide the tree into documents of at least `ENOUGH` characters where possible, as (document name, terms)."""
    terms = read_terms(path)
    selected = {term.id for term in select_terms(terms)}
    children: dict[str, list[str]] = defaultdict(list)
    for term in sorted(terms.values(), key=lambda term: term.name.casefold()):
        known = [parent for parent in term.parents if parent in terms]
        children[known[0] if known else ""].append(term.id)
    groups: list[tuple[str, list[Term]]] = []

    def gather(node: str) -> list[Term]:
        """Add the complete documents of the subtree of `node`, and return its terms that are in none."""
        open_terms: list[Term] = [terms[node]] if node in selected else []
        for child in children[node]:
            open_terms += gather(child)
        if sum(len(paragraph(term)) for term in open_terms) < ENOUGH:
            return open_terms
        groups.append((f"hpo:{node}", open_terms))
        return []

    for root in children[""]:
        if rest := gather(root):
            groups.append((f"hpo:{root}", rest))
    return groups


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of neighboring terms in mixed order. All passages of one part of the tree share a source."""
    for source, terms in mixed(group_terms(path)):
        yield from documents_of(source, [paragraph(term) for term in terms], license=LICENSE)


def questions(path: Path, *, seed: int = 0) -> list[Question]:
    """Make questions that ask for the term of a definition, among its siblings or, if these are few, its cousins."""
    terms = read_terms(path)
    entries = []
    for source, group in group_terms(path):
        for term in group:
            parent = next((name for name in term.parents if name in terms), "")
            grandparent = next((name for name in terms[parent].parents if name in terms), "") if parent else ""
            if len(term.definition) >= 40:
                entries.append(
                    Entry(
                        term=term.name,
                        definition=term.definition,
                        family=f"{parent}/children",
                        wider=f"{grandparent}/grandchildren",
                        source=source,
                        subject=terms[parent].name if parent else "",
                    )
                )
    return definition_questions(entries, seed=seed, blank=True, max_blank=MAX_BLANK, license=LICENSE)
