"""Text of builds that are merged: what any of them measures is neither trained on nor chooses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minigpt.errors import CorpusError
from minigpt.merging.parts import PartText, keep_apart, with_equal_dev
from minigpt.pipeline.read import Corpora
from minigpt.types import Corpus, Document


def passage(number: int, name: str = "") -> Document:
    """Forty words that no other number shares."""
    return Document(text=" ".join(f"w{number}x{place}" for place in range(40)), source=name or f"d{number}")


def corpora(name: str, first: int) -> Corpora:
    """Two documents to train on, one to calibrate with, one of dev and one of held-out text; general text, too."""

    def corpus(title: str, begin: int) -> Corpus:
        train, more, calibration, dev, heldout = (passage(begin + at) for at in range(5))
        return Corpus(domain=title, train=(train, more), calibration=(calibration,), dev=(dev,), heldout=(heldout,))

    return Corpora(domain=corpus(name, first), general=corpus("plain", 100 + first))


def with_train(one: Corpora, *more: Document) -> Corpora:
    return replace(one, domain=replace(one.domain, train=(*one.domain.train, *more)))


def test_text_of_builds_that_share_nothing_stays() -> None:
    one, two = corpora("one", 0), corpora("two", 10)
    assert [text.domain for text in keep_apart([one, two])] == ["one", "two"]
    assert [text.train for text in keep_apart([one, two])] == [one.domain.train, two.domain.train]
    assert [text.dev for text in keep_apart([one, two])] == [one.domain.dev, two.domain.dev]


@pytest.mark.parametrize("taken", ["heldout", "dev", "general", "source"])
def test_what_another_build_measures_or_chooses_by_is_not_trained_on(taken: str) -> None:
    one, two = corpora("one", 0), corpora("two", 10)
    assert two.general is not None
    leak = {
        "heldout": Document(text=two.domain.heldout[0].text, source="copy"),
        "dev": Document(text=two.domain.dev[0].text, source="copy"),
        "general": Document(text=two.general.heldout[0].text, source="copy"),
        "source": passage(90, two.domain.heldout[0].source),
    }[taken]
    assert keep_apart([with_train(one, leak), two])[0].train == one.domain.train


def test_dev_text_that_another_build_measures_does_not_choose() -> None:
    one, two = corpora("one", 0), corpora("two", 10)
    copied = replace(one, domain=replace(one.domain, dev=(*one.domain.dev, two.domain.heldout[0])))
    assert keep_apart([copied, two])[0].dev == one.domain.dev


def test_nothing_left_is_an_error() -> None:
    one, two = corpora("one", 0), corpora("two", 10)
    same = replace(two, domain=replace(two.domain, train=one.domain.heldout))
    with pytest.raises(CorpusError, match="All training text of two"):
        keep_apart([one, same])
    same = replace(two, domain=replace(two.domain, dev=one.domain.heldout))
    with pytest.raises(CorpusError, match="All dev text of two"):
        keep_apart([one, same])


def test_every_domain_has_as_much_dev_text() -> None:
    size = len(passage(1).text.encode())
    long, short = (
        PartText(domain="d", train=(), dev=tuple(passage(number) for number in range(1, count))) for count in (6, 3)
    )
    assert [len(text.dev) for text in with_equal_dev([long, short], 10 * size)] == [2, 2]
    assert [len(text.dev) for text in with_equal_dev([long, short], size)] == [1, 1]


def test_the_strictest_overlap_of_the_builds_holds_for_all() -> None:
    one, two = corpora("one", 0), corpora("two", 10)
    near = Document(text=" ".join([*two.domain.heldout[0].text.split()[:16], *passage(99).text.split()]), source="near")
    trained, choosing = with_train(one, near), replace(one, domain=replace(one.domain, dev=(*one.domain.dev, near)))
    strict = replace(two, overlap=0.2)
    assert near in keep_apart([trained, two])[0].train and near in keep_apart([choosing, two])[0].dev
    assert keep_apart([trained, strict])[0].train == one.domain.train
    assert keep_apart([choosing, strict])[0].dev == one.domain.dev
