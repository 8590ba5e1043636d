"""Multiple-choice questions made from definitions, and their division by whether the definition was trained on.

A derived question shows a definition and asks for its term among terms of the same family. The definition holds no
word of any option, so that it does not give the answer away. Each position is right equally often, and the seed fixes
everything.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from minigpt.errors import CorpusError
from minigpt.types import Question, QuestionSet

# Options of a question.
OPTIONS = 4
WORD = r"[^\W\d_]+|\d+"
# Words that carry no meaning of their own.
STOPWORDS = frozenset(
    """
    all an and any are as at be but by can do due for from had has her his how if in is it its may nor not of off on
    one or our out per so the to two up use was we who why you about above after against also among another been
    before being below between both cannot does done down during each either else even every from have having here
    into itself less like more most much must neither only other over same shall should since some such than that
    their them then there these they this those through thus under until upon very were what when where whether
    which while whose will with within without would your
    """.split()  # noqa: SIM905 (a wall of quotes is harder to read)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A term with its definition.

    Attributes:
        term: The term.
        definition: The text that defines it.
        family: Name of the group of sibling terms.
        source: Name of the document that holds the definition; empty if there is none.
        wider: Name of a wider group, for terms with few siblings.
        subject: Subject of the question; the family if empty.
    """

    term: str
    definition: str
    family: str
    source: str
    wider: str = ""
    subject: str = ""


def main_words(text: str) -> frozenset[str]:
    """Return the words of a text that carry meaning, in lower case: numbers, but no stopwords and single letters."""
    words = re.findall(WORD, text.casefold())
    return frozenset(word for word in words if word.isdigit() or (len(word) > 1 and word not in STOPWORDS))


def gives_away(word: str, terms: Collection[str]) -> bool:
    """Return True if a word is an inflection, a part or a compound of one of the main words `terms`."""
    for term in terms:
        if word[:4] == term[:4] or (len(word) > 2 and (term.startswith(word) or term.endswith(word))):
            return True
        if (len(word) > 4 and word[:6] in term) or (len(term) > 4 and term[:6] in word):
            return True
    return False


def leaks(term: str, definition: str) -> bool:
    """Return True if a definition gives away a main word of its term."""
    term_words = main_words(term)
    return any(gives_away(word, term_words) for word in main_words(definition))


def blank_terms(text: str, terms: Iterable[str]) -> tuple[str, float]:
    """Blank every word of a text that gives away one of `terms`.

    The words of wrong options are blanked too, so that a blank does not tell which option is right.

    Returns:
        The text with blanks, and the share of its words that were blanked.
    """
    hidden = frozenset().union(*(main_words(term) for term in terms))
    total = hits = 0

    def blank(match: re.Match[str]) -> str:
        nonlocal total, hits
        total += 1
        if any(gives_away(word, hidden) for word in main_words(match[0])):
            hits += 1
            return "___"
        return match[0]

    result = re.sub(WORD, blank, text)
    return re.sub(r"___(?:[ -]___)+", "___", result), hits / max(total, 1)


def definition_questions(
    entries: Iterable[Entry],
    *,
    seed: int,
    template: str = 'Which term is defined as follows: "{definition}"?',
    blank: bool = False,
    max_blank: float = 0.2,
    license: str = "unknown",
) -> list[Question]:
    """Make a question for each entry that has three terms of its family, or of its wider group, as wrong options.

    Args:
        entries: Terms with their definitions.
        seed: Seed of the wrong options, of the order and of the positions.
        template: Text of a question, with `{definition}`.
        blank: True to blank words that give an option away. False to leave out entries whose definition gives their
            term away, and wrong options that it gives away.
        max_blank: With `blank`, the largest share of blanked words. Questions with more are left out.
        license: License of the questions.

    Returns:
        The questions. None has the text of another.
    """
    items = drop_ambiguous_entries(entries)
    pools: dict[str, list[Entry]] = defaultdict(list)
    for entry in items:
        for key in {entry.family, entry.wider} - {""}:
            pools[key].append(entry)
    questions: list[Question] = []
    for entry in items:
        if not blank and leaks(entry.term, entry.definition):
            continue
        wrong = distractors(entry, pools, seed=seed, strict=not blank)
        if len(wrong) < OPTIONS - 1:
            continue
        definition, share = blank_terms(entry.definition, (entry.term, *wrong)) if blank else (entry.definition, 0.0)
        if share <= max_blank:
            text = template.format(definition=definition.rstrip("."))
            questions.append(
                Question(
                    question=text,
                    choices=(entry.term, *wrong),
                    answer=0,
                    source=entry.source,
                    subject=entry.subject or entry.family,
                    license=license,
                )
            )
    texts = Counter(question.question for question in questions)
    return balance([question for question in questions if texts[question.question] == 1], seed=seed)


def drop_ambiguous_entries(entries: Iterable[Entry]) -> list[Entry]:
    """Keep the entries whose term and whose definition each occur once: others have no single right answer."""
    items = list(entries)
    terms = Counter(entry.term.casefold() for entry in items)
    texts = Counter(entry.definition.casefold() for entry in items)
    return [entry for entry in items if terms[entry.term.casefold()] == texts[entry.definition.casefold()] == 1]


def distractors(entry: Entry, pools: Mapping[str, Sequence[Entry]], *, seed: int, strict: bool) -> tuple[str, ...]:
    """Draw up to three other terms as wrong options, siblings first.

    The seed and the term fix the draw; the order of the entries has no influence.

    Args:
        entry: The entry to ask for.
        pools: Entries of each family and wider group.
        seed: Seed of the draw.
        strict: True to leave out terms that the definition gives away.
    """
    rng = random.Random(f"{seed}/{entry.source}/{entry.term}")
    picked: list[str] = []
    for key in (entry.family, entry.wider):
        pool = sorted({other.term for other in pools.get(key, ())} - {entry.term, *picked})
        rng.shuffle(pool)
        for term in pool:
            if len(picked) == OPTIONS - 1:
                break
            if not (strict and leaks(term, entry.definition)):
                picked.append(term)
    return tuple(picked)


def balance(questions: Sequence[Question], *, seed: int) -> list[Question]:
    """Shuffle the questions, and their options so that each position is right equally often."""
    order = list(range(len(questions)))
    rng = random.Random(seed)
    rng.shuffle(order)
    shuffled: list[Question] = []
    for position, index in enumerate(order):
        question = questions[index]
        answer = position % len(question.choices)
        wrong = [choice for number, choice in enumerate(question.choices) if number != question.answer]
        rng.shuffle(wrong)
        choices = (*wrong[:answer], question.choices[question.answer], *wrong[answer:])
        shuffled.append(replace(question, choices=choices, answer=answer))
    return shuffled


def check_answers(name: str, questions: Iterable[Question]) -> None:
    """Refuse questions that measure nothing: options that are all alike, or one question with several right answers.

    Args:
        name: Name of the set.
        questions: Its questions.

    Raises:
        CorpusError: There is such a question; the message quotes it.
    """
    right: dict[tuple[str, frozenset[str]], str] = {}
    for question in questions:
        answer, options = question.choices[question.answer], frozenset(question.choices)
        if len(options) < 2:
            raise CorpusError(f"{name}: all options of {question.question[:60]!r} are alike. Correct or remove it.")
        if right.setdefault((question.question, options), answer) != answer:
            raise CorpusError(
                f"{name}: {question.question[:60]!r} is asked twice with different right answers. Remove one."
            )


def sample(questions: Sequence[Question], limit: int | None, *, seed: int = 0) -> tuple[Question, ...]:
    """Draw at most `limit` questions at random and keep their order; None draws all."""
    if limit is None or limit >= len(questions):
        return tuple(questions)
    drawn = sorted(random.Random(seed).sample(range(len(questions)), limit))
    return tuple(questions[index] for index in drawn)


def split_by_seen(
    questions: QuestionSet,
    train_sources: Collection[str],
    heldout_sources: Collection[str],
    *,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[QuestionSet, QuestionSet]:
    """Divide derived questions into those whose definition was trained on and those whose definition was held out.

    The first part measures memory of the text, the second knowledge of the domain, so they never share a number.

    Args:
        questions: Questions that name the document of their definition.
        train_sources: Names of training documents.
        heldout_sources: Names of held-out documents. Questions on documents in neither are left out.
        limit: Number of questions to draw for each part; None for all.
        seed: Seed of the draw.

    Returns:
        The seen and the unseen part.

    Raises:
        CorpusError: A document is both a training and a held-out document.
    """
    train, heldout = frozenset(train_sources), frozenset(heldout_sources)
    if both := sorted(train & heldout):
        raise CorpusError(f"Document {both[0]!r} is in the training and the held-out text; split by document first.")
    parts = []
    for name, sources, seen in (("seen", train, True), ("unseen", heldout, False)):
        kept = sample([item for item in questions.questions if item.source in sources], limit, seed=seed)
        parts.append(replace(questions, name=f"{questions.name}_{name}", questions=kept, seen=seen))
    return parts[0], parts[1]
