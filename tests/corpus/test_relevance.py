"""Choosing documents in embedding space."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from minigpt.corpus.relevance import Embedded, SentenceEncoder, covering_order, embed, irrelevant, round_robin
from minigpt.types import Document


def embedded(vectors: list[list[float]], relevance: list[float] | None = None) -> Embedded:
    rows = np.array(vectors, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    near = np.array(relevance or [1.0] * len(rows), np.float32)
    return Embedded(sources=tuple("abcdefghijklmnop"[: len(rows)]), vectors=rows, relevance=near)


def test_irrelevant_drops_the_tail_but_never_more_than_its_cap() -> None:
    relevance = [0.5, 0.05, 0.3, 0.02, 0.4, 0.09, 0.2, 0.3]
    space = embedded([[1, 0]] * 8, relevance)
    assert irrelevant(space, floor=0.1, tail=1.0) == ("d", "b", "f")
    assert irrelevant(space, floor=0.1, tail=0.25) == ("d", "b")
    assert irrelevant(space, floor=-1) == ()


def test_covering_order_takes_one_of_each_cluster_first_the_largest_before() -> None:
    axes = np.eye(3)
    rows = [axes[0], axes[1], axes[1] + 0.05 * axes[0], axes[1] - 0.05 * axes[0], axes[2], axes[2] + 0.05 * axes[1]]
    space = embedded([row.tolist() for row in rows])
    order = covering_order(space, dict.fromkeys("abcdef", 1), wanted=3)
    assert sorted(order) == list("abcdef")
    assert order[0] in "bcd"
    assert {"a": 0, "b": 1, "c": 1, "d": 1, "e": 2, "f": 2}[order[1]] == 2
    assert order[2] == "a"
    assert covering_order(space, dict.fromkeys("abcdef", 1), wanted=0) == list("abcdef")


def test_covering_prefers_the_shorter_of_two_like_documents() -> None:
    space = embedded([[1, 0.01], [1, 0], [0, 1]])
    assert covering_order(space, {"a": 900, "b": 100, "c": 400}, wanted=101) == ["b", "c", "a"]


def test_covering_is_as_good_as_greedy_promises() -> None:
    """Greedy maximizes the coverage within 1 - 1/e of the best (Nemhauser 1978)."""
    rng = np.random.default_rng(0)
    space = embedded(rng.normal(size=(10, 3)).tolist())
    similar = np.clip(space.vectors @ space.vectors.T, 0, None)
    greedy = [space.sources.index(source) for source in covering_order(space, dict.fromkeys("abcdefghij", 1), wanted=3)]
    best = max(similar[list(choice)].max(axis=0).sum() for choice in combinations(range(10), 3))
    assert similar[greedy[:3]].max(axis=0).sum() >= (1 - 1 / np.e) * best


def test_embed_averages_passages_and_takes_the_nearest_seed() -> None:
    vectors = {"x": [1, 0], "y": [0, 1], "xy": [0.6, 0.8]}

    class Table:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([vectors[text] for text in texts], np.float32)

    documents = [Document(text=text, source=source) for text, source in (("x", "one"), ("y", "one"), ("xy", "two"))]
    space = embed(documents, ["x", "xy"], Table(), seed=0)  # type: ignore[arg-type]
    at = {source: index for index, source in enumerate(space.sources)}
    assert space.relevance[at["one"]] == pytest.approx((1.0 + 0.8) / 2)
    assert space.relevance[at["two"]] == pytest.approx(1.0)
    assert space.vectors[at["one"]] == pytest.approx([0.5**0.5, 0.5**0.5])
    assert space.vectors[at["two"]] == pytest.approx([0.6, 0.8])


def test_round_robin_covers_all_documents_before_it_repeats_one() -> None:
    documents = [Document(text=text, source=text[0]) for text in ("a1", "a2", "b1", "a3", "b2", "c1")]
    assert [d.text for d in round_robin(documents, ["b", "c", "a"])] == ["b1", "c1", "a1", "b2", "a2", "a3"]


@pytest.mark.slow
def test_the_packaged_encoder_knows_what_a_text_is_about() -> None:
    encoder = SentenceEncoder("cpu")
    vectors = encoder.encode(
        ["A fever is a sign of infection.", "The patient has an infectious disease.", "Bond yields."]
    )
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.3 > vectors[0] @ vectors[2]
