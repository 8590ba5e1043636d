"""Domain and general are kept apart, seen questions stay seen, and changed files are noticed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minigpt.domain.config import DomainConfig, SourceConfig, load_domain
from minigpt.errors import CorpusError
from minigpt.pipeline.read import Corpora, clear_of_tests, read_corpora, separate, source_state
from minigpt.pipeline.settings import CorpusSettings
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import SILENT
from minigpt.types import Corpus, Document, Question, QuestionSet
from tests.support.worlds import World, make_world


def passage(number: int, source: str = "") -> Document:
    """Forty words that no other number shares."""
    return Document(text=" ".join(f"w{number}x{place}" for place in range(40)), source=source or f"d{number}")


def corpus(name: str, numbers: range, *, questions: tuple[QuestionSet, ...] = ()) -> Corpus:
    """Six documents: two to train on and calibrate with, one each for dev and held-out."""
    train, more, calibration, dev, heldout = (passage(number) for number in numbers)
    return Corpus(
        domain=name,
        train=(train, more),
        calibration=(calibration,),
        dev=(dev,),
        heldout=(heldout,),
        questions=questions,
    )


def asking(document: Document, *, seen: bool) -> QuestionSet:
    """One question that quotes a document."""
    question = Question(question=document.text, choices=("a", "b"), answer=0)
    return QuestionSet(name="terms_seen" if seen else "terms", questions=(question,), derived=True, seen=seen)


def test_general_text_that_holds_the_domain_s_held_out_text_is_not_trained_on() -> None:
    own, general = corpus("own", range(5)), corpus("general", range(10, 15))
    copied = Document(text=own.heldout[0].text, source="another name")
    general = Corpus(**{**fields(general), "train": (*general.train, copied)})
    left = separate(own, general)
    assert copied not in left[1].train and len(left[1].train) == 2
    assert left[0].train == own.train
    assert left[0].counts["control_overlaps_heldout"] == 1


def test_domain_text_that_holds_the_general_corpus_s_held_out_text_is_not_trained_on() -> None:
    own, general = corpus("own", range(5)), corpus("general", range(10, 15))
    own = Corpus(**{**fields(own), "train": (*own.train, Document(text=general.heldout[0].text, source="mine"))})
    assert len(separate(own, general)[0].train) == 2


@pytest.mark.parametrize("split", ["calibration", "dev"])
def test_general_text_that_decides_holds_no_held_out_text_of_the_domain(split: str) -> None:
    """With `--keep-general` the repair reads the general's calibration text and its dev text chooses weights."""
    own, general = corpus("own", range(5)), corpus("general", range(10, 15))
    before = getattr(general, split)
    copied = Document(text=own.heldout[0].text, source="another name")
    general = Corpus(**{**fields(general), split: (*before, copied)})
    assert getattr(separate(own, general)[1], split) == before


def test_definitions_of_seen_questions_stay_in_the_training_text() -> None:
    seen, unseen = asking(passage(0), seen=True), asking(passage(1), seen=False)
    left = separate(corpus("own", range(5), questions=(seen, unseen)), corpus("general", range(10, 15)))[0]
    assert [document.source for document in left.train] == ["d0"]


def test_nothing_left_to_train_on_is_said() -> None:
    own = corpus("own", range(5))
    general = Corpus(**{**fields(corpus("general", range(10, 15))), "heldout": (*own.train, passage(14))})
    with pytest.raises(CorpusError, match="All training text of own overlaps"):
        separate(own, general)
    general = Corpus(**{**fields(corpus("general", range(10, 15))), "heldout": (*own.dev, passage(14))})
    with pytest.raises(CorpusError, match="All dev text of own overlaps"):
        separate(own, general)


def test_a_changed_file_is_another_state(tmp_path: Path) -> None:
    world: World = make_world(tmp_path)
    domain = load_domain(str(world.domain))
    general = load_domain(domain.general)
    before = source_state(domain, general, str(world.base))
    assert source_state(domain, general, str(world.base)) == before
    text = next(path for path in sorted((tmp_path / "docs").rglob("*")) if path.is_file())
    os.utime(text, ns=(1, 1))
    assert source_state(domain, general, str(world.base)) != before


def fields(record: Corpus) -> dict[str, object]:
    """The fields of a corpus by name."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def test_the_overlap_of_the_definitions_holds_for_general_and_generated_text() -> None:
    own, general = corpus("own", range(5)), corpus("general", range(10, 15))
    third = " ".join([*own.heldout[0].text.split()[:16], *(f"z{place}" for place in range(60))])
    near = Document(text=third, source="near")
    for split in ("train", "dev"):
        mixed = Corpus(**{**fields(general), split: (*getattr(general, split), near)})
        assert near in getattr(separate(own, mixed)[1], split)
        assert getattr(separate(own, mixed, overlap=0.2)[1], split) == getattr(general, split)
    assert clear_of_tests([near], Corpora(domain=own, general=general)) == [near]
    assert clear_of_tests([near], Corpora(domain=own, general=general, overlap=0.2)) == []


@pytest.mark.parametrize(("shares", "overlap"), [((0.2, 0.5), 0.2), ((0.5, 0.3), 0.3), ((0.2, None), 0.2)])
def test_the_stricter_overlap_of_both_definitions_is_read(
    tmp_path: Path, shares: tuple[float, float | None], overlap: float
) -> None:
    definitions = []
    for name, share in zip("ab", shares, strict=True):
        rows = [json.dumps({"text": passage(number).text + name, "source": f"{name}{number}"}) for number in range(30)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(row.replace("w", name) for row in rows))
        source = SourceConfig(name=name, file=str(tmp_path / f"{name}.jsonl"))
        definitions.append(DomainConfig(name=name, corpus=(source,), overlap=share) if share else None)
    domain, general = definitions
    assert domain is not None
    corpora = read_corpora(
        domain, general, CorpusSettings(), seed=0, workspace=Workspace(root=tmp_path / "w"), state="s", reporter=SILENT
    )
    assert corpora.overlap == overlap and (corpora.general is None) == (general is None)
