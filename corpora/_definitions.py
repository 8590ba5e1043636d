"""Documents and questions from documented classes, shared by the readers of the finance packages.

In generated code one sentence documents many members. Only its first copy is kept, so that the training text does not
hold a held-out definition. Neighboring classes of a folder form a document together and stay together in any split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from minigpt.corpus.prose import MIN_CHARACTERS, clean, documents_of, words_of
from minigpt.corpus.questions import Entry, definition_questions
from minigpt.types import Document, Question

from ._docstrings import DocumentedClass

# Characters from which a document is complete.
ENOUGH = 800
# Words of a sentence that is kept, at least.
MIN_WORDS = 5
# Characters of a definition that a question asks for, at least.
MIN_DEFINITION = 50
# Largest share of a question's words that may be blanked.
MAX_BLANK = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A class in words.

    Attributes:
        name: Name of the class.
        doc: Definition of the class; empty if there is none.
        members: Pairs (name, definition) of its members.
        folder: Folder of its file.
    """

    name: str
    doc: str
    members: tuple[tuple[str, str], ...]
    folder: str

    @property
    def paragraphs(self) -> list[str]:
        """Paragraphs of the class: one for itself and one for each member, each starting with the name."""
        head = [f"{self.name}: {self.doc}"] if self.doc else []
        return head + [f"{name}: {text}" for name, text in self.members]


def is_prose(text: str) -> bool:
    """Return True if a doc string is a text in words: no bare name, code, list of arguments or capitals."""
    letters = [char for char in text if char.isalpha()]
    return (
        len(text.split()) >= MIN_WORDS
        and sum(char.isupper() for char in letters) < 0.3 * len(letters)
        and not re.search(r"[{}<>=|]|::|-{3,}", text)
    )


def concepts(classes: Iterable[DocumentedClass], *, tidy: Callable[[str], str]) -> Iterator[Concept]:
    """Turn documented classes into concepts and leave out definitions that repeat an earlier one.

    Args:
        classes: The classes.
        tidy: Function that removes a package's own marks from a doc string.
    """
    known: set[str] = set()

    def new_definition(doc: str) -> str:
        text = clean(tidy(doc))
        key = re.sub(r"\W+", " ", text).casefold().strip()
        if not is_prose(text) or key in known:
            return ""
        known.add(key)
        return text

    for item in classes:
        doc = new_definition(item.doc)
        members = ((name_in_words(name), new_definition(text)) for name, text in item.members)
        kept = tuple((name, text) for name, text in members if text and name)
        if doc or kept:
            yield Concept(name=name_in_words(item.name), doc=doc, members=kept, folder=item.path.rpartition("/")[0])


def name_in_words(identifier: str) -> str:
    """Turn an identifier into words: `SETTLEMENT_AGENT` and `SettlementAgentEnum` become `Settlement agent`."""
    words = re.sub(r" (?:Enum|Def)$", "", words_of(identifier)).split()
    all_capitals = identifier.isupper() and (len(words) > 1 or len(identifier) > 5)
    plain = [word.lower() if all_capitals or not word.isupper() else word for word in words]
    text = " ".join(plain)
    return text[:1].upper() + text[1:]


def group_concepts(prefix: str, items: Iterable[Concept]) -> list[tuple[str, list[Concept]]]:
    """Group neighboring concepts into documents of at least `ENOUGH` characters.

    A new folder also ends a document, if it has `MIN_CHARACTERS`.

    Args:
        prefix: Beginning of the documents' names.
        items: Concepts in the order of their folders.

    Returns:
        Pairs (document name, concepts).
    """
    groups: list[tuple[str, list[Concept]]] = []
    current: list[Concept] = []
    for item in items:
        if current and item.folder != current[0].folder and length(current) >= MIN_CHARACTERS:
            groups.append((f"{prefix}:{current[0].folder}/{current[0].name}", current))
            current = []
        current.append(item)
        if length(current) >= ENOUGH:
            groups.append((f"{prefix}:{current[0].folder}/{current[0].name}", current))
            current = []
    if current:
        groups.append((f"{prefix}:{current[0].folder}/{current[0].name}", current))
    return groups


def length(items: Iterable[Concept]) -> int:
    """Count the characters of the concepts' text."""
    return sum(len(line) for item in items for line in item.paragraphs)


def documents_from(groups: list[tuple[str, list[Concept]]], *, license: str) -> Iterator[Document]:
    """Yield the passages of grouped concepts.

    Args:
        groups: Pairs (document name, concepts).
        license: License of the text.
    """
    for source, items in groups:
        yield from documents_of(source, [line for item in items for line in item.paragraphs], license=license)


def questions_from(groups: list[tuple[str, list[Concept]]], *, seed: int, license: str) -> list[Question]:
    """Make questions that ask for the name that a definition defines.

    The wrong options of a member are members of its class, or else of its folder; those of a class are classes of its
    folder.

    Args:
        groups: Pairs (document name, concepts).
        seed: Seed of the questions.
        license: License of the questions.
    """
    entries = []
    for source, items in groups:
        for item in items:
            if item.doc:
                entries.append(make_entry(item.name, item.doc, family=item.folder, source=source))
            for name, text in item.members:
                family = f"{item.folder}/{item.name}"
                member = make_entry(name, text, family=family, source=source)
                entries.append(replace(member, wider=f"{item.folder}/members"))
    return definition_questions(
        [item for item in entries if is_askable(item)],
        seed=seed,
        template='Which name is defined as follows: "{definition}"?',
        blank=True,
        max_blank=MAX_BLANK,
        license=license,
    )


def is_askable(item: Entry) -> bool:
    """Return True if the definition is long enough and the term is no code such as `VEF01` or `IMMNZD`."""
    words = item.term.split()
    coded = any(char.isdigit() for char in item.term) or any(len(word) > 3 and word.isupper() for word in words)
    cited = re.match(r"(?:Per|As (?:specified|defined) (?:by|in)|Refer to) ", item.definition)
    return len(item.definition) >= MIN_DEFINITION and len(item.term) > 4 and not coded and not cited


def make_entry(name: str, text: str, *, family: str, source: str) -> Entry:
    """Turn a definition into an entry; of a long definition only the beginning is shown."""
    shown = text if len(text) <= 400 else f"{text[:400].rsplit(' ', 1)[0]} ..."
    return Entry(term=name, definition=shown, family=family, source=source, subject=family.split("/")[-1])
