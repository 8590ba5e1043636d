"""The rounds over bands keep the passages that one process with all of them in memory keeps."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from minigpt.corpus import dedup
from minigpt.curation import near
from minigpt.curation.ranged import ENTRY, PAIR, hash_range
from tests.support.shelves import words


def in_rounds(texts: list[str], ranks: list[int]) -> tuple[list[int], int]:
    """Indices that are kept, and how many rounds that took."""
    shingles = [dedup.grams(dedup.words(text), dedup.SHINGLE) for text in texts]
    bands = dedup.band_hashes(shingles)
    entries = np.empty(bands.size, ENTRY)
    owners = np.arange(len(texts)).repeat(bands.shape[1])
    priorities = np.array([near.priority_of(rank, index << 20) for index, rank in enumerate(ranks)], np.uint64)
    entries["hash"], entries["place"], entries["priority"] = bands.ravel(), owners, priorities[owners]
    similar, gone, wanted = [np.empty(0, PAIR)], np.empty(0, np.uint64), None
    for number in range(10_000):
        parts, left = near.candidates(entries, gone, wanted, number)
        pairs = np.unique(np.concatenate([np.empty(0, PAIR), *parts]))
        verdicts = [dedup.jaccard(shingles[int(p["later"])], shingles[int(p["earlier"])]) >= dedup.NEAR for p in pairs]
        similar.append(pairs[np.array(verdicts, bool)])
        gone, wanted = near.decide(np.concatenate(similar), left)
        if not len(wanted):
            break
    return sorted(set(range(len(texts))) - {int(place) for place in gone}), number + 1


def chained(seed: int, count: int) -> list[str]:
    """Texts of which many are copies of others with a few words changed, so that similarity runs along chains."""
    draws = random.Random(seed)
    texts = [words(draws, 60)]
    while len(texts) < count:
        tokens = list(draws.choice(texts)) if draws.random() < 0.7 else words(draws, draws.randint(1, 80))
        for _ in range(draws.randint(0, 2)):
            tokens[draws.randrange(len(tokens))] = draws.choice(["x", "y", "z"])
        texts.append(tokens)
    return [" ".join(tokens) for tokens in texts]


@pytest.mark.parametrize(("first", "most"), [(1, 1), (1, 2), (3, 5), (16, 256)])
def test_what_is_kept_is_what_one_process_keeps(monkeypatch: pytest.MonkeyPatch, first: int, most: int) -> None:
    monkeypatch.setattr(near, "FIRST", first)
    monkeypatch.setattr(near, "MOST", most)
    most_rounds = 0
    for seed in range(6):
        texts = chained(seed, 90)
        protected = range(seed * 5)
        ranks = [0 if index in protected else 3 for index in range(len(texts))]
        kept, rounds = in_rounds(texts, ranks)
        assert kept == dedup.drop_near_duplicates(texts, protected=protected)
        most_rounds = max(most_rounds, rounds)
    assert len(kept) < 70
    assert most_rounds > 1 if first < 16 else True


def test_many_copies_need_one_round_and_few_pairs() -> None:
    draws = random.Random(0)
    text = words(draws, 100)
    texts = [" ".join([*text, f"copy{number}"]) for number in range(500)]
    assert in_rounds(texts, [3] * 500) == ([0], 1)


def test_nothing_is_compared_where_there_is_nothing() -> None:
    assert in_rounds([], []) == ([], 1)
    pairs, left = near.candidates(np.empty(0, ENTRY), np.empty(0, np.uint64), None, 0)
    assert sum(map(len, pairs)) == 0 and not len(left)


def test_windows_join_without_a_gap() -> None:
    bounds = [near.window(number) for number in range(6)]
    assert bounds[0][0] == 0 and all(left[1] == right[0] for left, right in pairwise(bounds))
    assert bounds[-1][1] - bounds[-1][0] == near.MOST


def test_every_hash_has_a_range() -> None:
    hashes = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert hash_range(hashes, 7).tolist() == [0, 0, 3, 6] and hash_range(hashes, 1).tolist() == [0] * 4
