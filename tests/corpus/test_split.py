"""Splitting by document."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.corpus.split import Declared, Passage, Shares, by_draw, hold_out, on_side, take
from minigpt.errors import CorpusError
from minigpt.types import Document


def passage(source: str, declared: Declared = "auto", size: int = 100, text: str = "") -> Passage:
    return Passage(document=Document(text=text or "x" * size, source=source), origin="o", declared=declared)


def test_shares_are_met_in_bytes() -> None:
    rng = random.Random(0)
    passages = [passage(f"d{i % 300}", size=rng.randrange(50, 500)) for i in range(1500)]
    sides = hold_out(passages, seed=3, shares=Shares())
    total = sum(len(p.document.text) for p in passages)
    heldout, dev = (sum(len(d.text) for d in on_side(side, passages, sides)) / total for side in ("heldout", "dev"))
    assert 0.085 < heldout < 0.115
    assert 0.040 < dev < 0.060


def test_seed_changes_the_split_and_order_does_not() -> None:
    passages = [passage(f"d{i}") for i in range(100)]
    first = hold_out(passages, seed=0, shares=Shares())
    assert hold_out(passages[::-1], seed=0, shares=Shares()) == first
    assert hold_out(passages, seed=1, shares=Shares()) != first
    assert by_draw(["b", "a", "b"], 0) == by_draw(["a", "b"], 0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(["auto", "train", "heldout", "dev"]), st.integers(1, 5000)),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 99),
)
def test_every_split_is_filled_or_the_error_says_why(rows: list[tuple[int, Declared, int]], seed: int) -> None:
    passages = [passage(f"d{name}", declared, size) for name, declared, size in rows]
    try:
        sides = hold_out(passages, seed=seed, shares=Shares())
    except CorpusError as error:
        assert "documents" in str(error)
        return
    documents = {side: on_side(side, passages, sides) for side in ("heldout", "dev", "pool")}
    assert documents["heldout"] and documents["dev"]
    assert len({document.source for document in documents["pool"]}) >= 2
    for p in passages:
        if p.declared == "heldout":
            assert sides[p.document.source] == "heldout"
    assert {d.source for d in documents["heldout"]}.isdisjoint(
        d.source for side in ("dev", "pool") for d in documents[side]
    )


def test_one_document_declared_twice_stays_held_out() -> None:
    passages = [passage(f"d{i}", "train") for i in range(9)]
    leak = passage("book", "train", text="leak")
    passages += [passage("book", "heldout", text="kept"), leak]
    sides = hold_out(passages, seed=0, shares=Shares())
    assert [d.text for d in on_side("heldout", passages, sides)] == ["kept"]
    assert all("leak" not in d.text for side in ("dev", "pool") for d in on_side(side, passages, sides))


def test_declared_training_text_is_never_held_out() -> None:
    passages = [passage(f"a{i}") for i in range(20)] + [passage(f"t{i}", "train") for i in range(50)]
    sides = hold_out(passages, seed=0, shares=Shares())
    assert {source[0] for source, side in sides.items() if side == "heldout"} == {"a"}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (["auto"] * 3, "need 4 documents and 3 are left"),
        (["train"] * 9, "All 9 documents are declared for training"),
        (["heldout", "train", "train"], "need 3 documents and 2 are left"),
        (["heldout", "dev", "train"], "need 2 documents and 1 is left"),
    ],
)
def test_too_little_text_is_told_with_the_arithmetic(declared: list[Declared], message: str) -> None:
    passages = [passage(f"d{i}", where) for i, where in enumerate(declared)]
    with pytest.raises(CorpusError, match=message):
        hold_out(passages, seed=0, shares=Shares())


def test_take_passes_over_a_book_and_never_takes_all() -> None:
    sizes = {"book": 900, "a": 40, "b": 50, "c": 10}
    assert take(["book", "a", "b", "c"], sizes, share=0.1) == ["a", "b"]
    assert take(["book", "a"], {"book": 900, "a": 800}, share=0.1) == ["a"]
    assert take(["a"], sizes, share=0.1) == []
    assert take(["a", "b", "c", "book"], sizes, share=0.1, leave=3) == ["a"]
    assert take(["a", "b", "c", "book"], sizes, share=0.5, limit=40) == ["a"]
