"""Rules that make prompts with right answers from passages: the same passage always gives the same prompt.

Every rule shows a part of the passage, so that a model can find the answer by reading; only `define` asks from memory.
The patterns are English; text in another language yields prompts of the rules `kind`, `heading`, `missing_word` and
`quote`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from minigpt.corpus.definitions import definitions
from minigpt.corpus.questions import STOPWORDS, WORD
from minigpt.files import fingerprint
from minigpt.types import Document, Prompt

# Characters of a passage that a prompt shows at most, and that a passage must have at least.
SHOWN, SHORTEST = 400, 120
# Words of a term or a heading at most, and of a meaning that a prompt quotes.
TERM_WORDS, HEADING_WORDS, MEANING_WORDS = 6, 14, 14
# Characters of a definition, at least and at most.
DEFINITION = (30, 240)
# Letters of a word that is left out, at least.
LETTERS = 5
# Words that a prompt quotes, and words that follow.
QUOTED, FOLLOWING = 5, 3
BLANK = "___"

_ENTRY = re.compile(r"^(?P<term>[A-Z][^:.;?!\n]{2,80}): (?P<meaning>[A-Z][^\n]{20,})$", re.MULTILINE)
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|$)", re.DOTALL)
_NUMBERED = re.compile(r"^(?:Article|Section|Sec\.|§|Chapter|Title)\s*[\w.–-]+\s*[.:–—-]?\s+")

Labels = Mapping[str, str]


def kind(document: Document, labels: Labels) -> Prompt | None:
    """Ask which kind of text a passage is, of the labels of all sources (classification)."""
    label = _label(document.source, labels)
    shown = excerpt(document.text)
    if label is None or not shown:
        return None
    choices = tuple(dict.fromkeys(labels.values()))
    question = f"Which kind of text is this: {', '.join(choices[:-1])} or {choices[-1]}?"
    return _prompt(document, f"Text: {shown}\nQuestion: {question}", label, choices=choices)


def find_term(document: Document, _labels: Labels) -> Prompt | None:
    """Ask for the term that a passage explains by some words, which the prompt quotes (extraction)."""
    shown = excerpt(document.text)
    quotes = [(term, " ".join(meaning.split()[:MEANING_WORDS]).rstrip(".,;:")) for term, meaning in _entries(document)]
    # A meaning that names its term would be the answer.
    entries = [
        (term, quoted)
        for term, quoted in quotes
        if term in shown and quoted in shown and term.casefold() not in quoted.casefold()
    ]
    if not entries:
        return None
    term, quoted = entries[_draw(document, len(entries))]
    return _prompt(document, f'Text: {shown}\nQuestion: Which term does the text explain as "{quoted}"?', term)


def define(document: Document, _labels: Labels) -> Prompt | None:
    """Ask what a term is, without the passage that says so (short question answering from memory)."""
    entries = [(term, _first_sentence(meaning)) for term, meaning in _entries(document)]
    usable = [(term, meaning) for term, meaning in entries if DEFINITION[0] <= len(meaning) <= DEFINITION[1]]
    if not usable:
        return None
    term, meaning = usable[_draw(document, len(usable))]
    return _prompt(document, f"Question: What is meant by {term}?", meaning)


def heading(document: Document, _labels: Labels) -> Prompt | None:
    """Ask for the heading of a passage that begins with one (summary in a line)."""
    first, _, body = document.text.partition("\n")
    title = _NUMBERED.sub("", first.strip()).rstrip(". ")
    shown = excerpt(body)
    if not shown or not 2 <= len(title.split()) <= HEADING_WORDS or ":" in title or title in shown:
        return None
    return _prompt(document, f"Text: {shown}\nQuestion: Which heading fits this text?", title)


def missing_word(document: Document, _labels: Labels) -> Prompt | None:
    """Leave out the last word of a passage that it also has earlier, and ask for the word (fill in)."""
    shown = excerpt(document.text)
    seen: set[str] = set()
    last: re.Match[str] | None = None
    for match in re.finditer(WORD, shown):
        word = match[0].casefold()
        if word in seen and len(word) >= LETTERS and word.isalpha() and word not in STOPWORDS:
            last = match
        seen.add(word)
    if last is None:
        return None
    blanked = f"{shown[: last.start()]}{BLANK}{shown[last.end() :]}"
    return _prompt(document, f"Text: {blanked}\nQuestion: Which word fits the blank?", last[0], regex=r"[\w'’-]+")


def quote(document: Document, _labels: Labels) -> Prompt | None:
    """Quote some words of a passage, and ask for the words that follow them there (extraction)."""
    shown = excerpt(document.text)
    words = shown.split()
    starts = range(len(words) - QUOTED - FOLLOWING)
    # Words that stand twice would have two right answers.
    usable = [place for place in starts if shown.count(" ".join(words[place : place + QUOTED])) == 1]
    if not usable:
        return None
    place = usable[_draw(document, len(usable))]
    end = place + QUOTED
    quoted, answer = " ".join(words[place:end]), " ".join(words[end : end + FOLLOWING])
    question = f'Which {FOLLOWING} words follow "{quoted}" in the text?'
    return _prompt(document, f"Text: {shown}\nQuestion: {question}", answer.strip(".,;:"))


RULES: Mapping[str, Callable[[Document, Labels], Prompt | None]] = {
    "kind": kind,
    "find_term": find_term,
    "define": define,
    "heading": heading,
    "missing_word": missing_word,
    "quote": quote,
}
"""The rules by the names that a domain file gives them; each makes one prompt of a passage, or none."""


def excerpt(text: str) -> str:
    """Take whole sentences from the beginning of a text, in one line; empty for a text that is too short."""
    line = " ".join(text.split())
    if len(line) < SHORTEST:
        return ""
    shown = ""
    for match in _SENTENCE.finditer(line):
        # A number or a heading is no sentence to stop after.
        if len(shown) >= SHORTEST and len(shown) + len(match[0]) > SHOWN:
            break
        shown += match[0]
    if len(shown) > SHOWN:
        cut = shown[: SHOWN + 1]
        shown = cut[: cut.rfind(" ")] if " " in cut else cut
    return shown.strip()


def _prompt(document: Document, text: str, answer: str, **form: object) -> Prompt:
    """Put question and answer together, in the form in which questions are scored."""
    values = {"prompt": f"{text}\nAnswer:", "answers": (answer,), "source": document.source}
    return Prompt(**values, license=document.license, **form)  # type: ignore[arg-type]


def _entries(document: Document) -> list[tuple[str, str]]:
    """List the terms of a passage with their meanings: lines such as `Term: meaning.`, or else defining sentences."""
    lines = [(match["term"].strip(), match["meaning"].strip()) for match in _ENTRY.finditer(document.text)]
    pairs = lines or [(entry.term, entry.meaning) for entry in definitions([document])]
    terms = [term for term, _ in pairs]
    return [(term, text) for term, text in pairs if len(term.split()) <= TERM_WORDS and terms.count(term) == 1]


def _first_sentence(text: str) -> str:
    """Take the first sentence of a text."""
    match = _SENTENCE.match(text)
    return match[0].strip() if match else ""


def _label(source: str, labels: Labels) -> str | None:
    """Find the label whose key is the longest beginning of a document's name; None if there is none."""
    keys = [key for key in labels if source.startswith(key)]
    return labels[max(keys, key=len)] if keys else None


def _draw(document: Document, number: int) -> int:
    """Draw one of some entries, by the passage alone."""
    return int(fingerprint(document.source, document.text)[:8], 16) % number
