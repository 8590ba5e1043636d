"""Answers of a streamed teacher are those of a resident one, and a sweep that is over is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from minigpt.healing.answers import likeliest
from minigpt.healing.data import pieces_of
from minigpt.healing.planes import Layout
from minigpt.healing.stored import Store, StoredTeacher, write_answers
from minigpt.healing.teacher import Teacher
from minigpt.streaming.answers import divided, write_streamed_answers
from tests.support.healing import Killed, Killer, patterned
from tests.support.streamed import saved, streamed, whole

PIECES = pieces_of(patterned(20).windows)
FEWER = torch.tensor([*range(10, 74), -1])


def planned(folder: Path, vocab: int) -> Store:
    return Store.planned(folder, "k", Layout(count=7, vocab=vocab), PIECES, 96)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
@pytest.mark.parametrize("ids", [None, FEWER], ids=["same", "fewer"])
def test_streamed_answers_are_the_resident_ones(tmp_path: Path, family: str, ids: Tensor | None) -> None:
    folder = saved(tmp_path / "parent", family)
    model = whole(folder)
    vocab = model.config.vocab_size if ids is None else len(ids)
    resident, lazy = planned(tmp_path / "resident", vocab), planned(tmp_path / "streamed", vocab)
    teacher = Teacher(model=model, parent_ids=ids)
    write_answers(resident, lambda batch: likeliest(teacher.logits(batch.ids, batch.places), 7, 2.0))
    write_streamed_answers(lazy, streamed(folder), ids, temperature=2.0, precision="fp32", tokens=150)
    assert lazy.missing() == []
    for part in resident.parts:
        expected, actual = (StoredTeacher(store.folder, "k").answers(part.batch) for store in (resident, lazy))
        assert torch.equal(actual.tokens, expected.tokens)
        torch.testing.assert_close(actual.logs, expected.logs, rtol=2e-3, atol=2e-3)


def test_a_sweep_that_is_over_is_kept(tmp_path: Path) -> None:
    folder = saved(tmp_path / "parent", "llama")
    store = planned(tmp_path / "answers", 512)
    groups = len(divided(list(store.parts), 150))
    assert groups > 1
    with pytest.raises(Killed):
        # The reporter counts layers, and starts anew with each sweep: this ends the first one in its middle.
        write_streamed_answers(
            store, streamed(folder), None, temperature=1.0, precision="fp32", tokens=150, reporter=Killer(2)
        )
    assert len(store.missing()) == len(store.parts)
    first = Store(folder=store.folder, key="k", layout=store.layout, parts=tuple(divided(list(store.parts), 150)[0]))
    write_streamed_answers(first, streamed(folder), None, temperature=1.0, precision="fp32", tokens=150)
    assert len(store.missing()) == len(store.parts) - len(first.parts)
