"""Stored teachers train as resident ones do; writing resumes, and damaged parts are written again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.healing import Recipe, Teacher, run, train
from minigpt.healing.answers import Answers, likeliest
from minigpt.healing.data import PaddedBatch, pad_pieces, pieces_of, pieces_read
from minigpt.healing.planes import Layout
from minigpt.healing.stored import Store, StoredTeacher, write_answers
from tests.support.healing import VOCABULARY, Killed, Killer, Notes, patterned, recipe
from tests.support.tiny import tiny_model

TEXT, DEV = patterned(60), patterned(8, seed=1)
PIECES = pieces_of(TEXT.windows)


def parent() -> Any:
    return tiny_model(vocab_size=VOCABULARY, layers=2, seed=5)


def planned(folder: Path, *, count: int = VOCABULARY, key: str = "k") -> Store:
    return Store.planned(folder, key, Layout(count=count, vocab=VOCABULARY), PIECES, 96)


def answering(model: Any, count: int = VOCABULARY) -> Callable[[PaddedBatch], Answers]:
    teacher = Teacher(model=model)
    return lambda batch: likeliest(teacher.logits(batch.ids, batch.places), count)


def trained(teacher: Teacher | StoredTeacher | None, settings: Recipe, **options: Any) -> torch.Tensor:
    model = tiny_model(vocab_size=VOCABULARY, layers=2)
    start = torch.cat([value.flatten().clone() for value in model.state_dict().values()])
    train(model, TEXT, DEV, settings, teacher=teacher, **options)
    return torch.cat([value.flatten() for value in model.state_dict().values()]) - start


@pytest.mark.parametrize("distill", [1.0, 0.5])
def test_all_tokens_train_as_a_resident_teacher_does(tmp_path: Path, distill: float) -> None:
    settings = recipe(distill=distill, bare=0.0, steps=6)
    expected = trained(Teacher(model=parent()), settings)
    write_answers(planned(tmp_path), answering(parent()))
    actual = trained(StoredTeacher(tmp_path, "k"), settings)
    # Logarithms are stored in 16 bits.
    assert 0 < (actual - expected).norm() < 0.01 * expected.norm()


def test_more_tokens_train_more_alike_and_portions_do_not_matter(tmp_path: Path) -> None:
    settings = recipe(distill=1.0, bare=0.0, steps=6)
    expected = trained(Teacher(model=parent()), settings)
    changes = []
    for count in (2, 48):
        write_answers(planned(tmp_path, count=count, key=str(count)), answering(parent(), count))
        changes.append(trained(StoredTeacher(tmp_path, str(count)), settings))
    few, many = ((change - expected).norm() for change in changes)
    assert 0 < many < few
    divided = trained(StoredTeacher(tmp_path, "48"), settings, portions=3)
    assert (divided - changes[1]).norm() < 0.01 * changes[1].norm()


def test_windows_without_their_opening_token_get_the_answers_behind_it(tmp_path: Path) -> None:
    write_answers(planned(tmp_path), answering(parent()))
    teacher = StoredTeacher(tmp_path, "k")
    pieces = [PIECES[4], PIECES[9]]
    whole = teacher.answers(pad_pieces(pieces))
    bare = teacher.answers(pad_pieces([piece.bare() for piece in pieces]))
    first = len(pieces[0]) - 1
    behind = torch.cat([whole.logs[1:first], whole.logs[first + 1 :]])
    assert torch.equal(bare.logs, behind)
    expected = answering(parent())(pad_pieces(pieces))
    torch.testing.assert_close(whole.logs, expected.logs, rtol=1e-3, atol=1e-3)


def test_a_window_that_was_not_stored_is_refused(tmp_path: Path) -> None:
    store = Store.planned(tmp_path, "k", Layout(count=4, vocab=VOCABULARY), PIECES[2:5], 96)
    write_answers(store, answering(parent(), 4))
    for piece in (PIECES[0], PIECES[5]):
        with pytest.raises(ValueError, match="no answers to the window"):
            StoredTeacher(tmp_path, "k").answers(pad_pieces([piece]))
    with pytest.raises(MiniGPTError, match="holds no answers"):
        StoredTeacher(tmp_path, "other")


def test_a_killed_writer_goes_on_and_damage_is_repaired(tmp_path: Path) -> None:
    store, calls = planned(tmp_path), list[int]()

    def answer(batch: PaddedBatch) -> Answers:
        calls.append(len(batch.ids))
        return answering(parent())(batch)

    with pytest.raises(Killed):
        write_answers(store, answer, Killer(3))
    assert len(calls) == 3
    write_answers(store, answer)
    assert len(calls) == len(store.parts) > 4
    path, notes = store.parts[1].path, Notes()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    (tmp_path / "part-09999.safetensors").touch()
    write_answers(store, answer, notes)
    assert len(calls) == len(store.parts) + 1
    assert store.missing() == []
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1 and not (tmp_path / "part-09999.safetensors").exists()


@pytest.mark.parametrize("words", [b"6x", b"60"])
def test_damaged_words_of_a_part_are_never_used(tmp_path: Path, words: bytes) -> None:
    store, notes = planned(tmp_path), Notes()
    write_answers(store, answering(parent()))
    path = store.parts[1].path
    whole = path.read_bytes()
    assert whole.count(b'"count":"64"') == 1
    path.write_bytes(whole.replace(b'"count":"64"', b'"count":"' + words + b'"'))
    if words == b"6x":
        with pytest.raises(MiniGPTError, match="cannot be read"):
            StoredTeacher(tmp_path, "k")
    assert store.missing(notes) == [store.parts[1]]
    assert len(notes.notes) == 1 and "it is not what was written" in notes.notes[0]
    write_answers(store, answering(parent()))
    assert store.missing() == []


def test_parts_of_another_key_are_written_anew(tmp_path: Path) -> None:
    write_answers(planned(tmp_path), answering(parent()))
    assert len(planned(tmp_path, key="other").missing()) == len(planned(tmp_path).parts)


def test_only_the_windows_of_the_steps_are_read() -> None:
    some = pieces_read(TEXT.windows, 2, 96, 0, bare=0.5)
    every = pieces_read(TEXT.windows, 100, 96, 0, bare=0.5)
    assert 0 < len(some) < len(every) == len(PIECES)
    assert {piece.origin for piece in some} <= {piece.origin for piece in PIECES}


def test_a_run_over_stored_answers_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    settings = recipe(distill=1.0)
    read = pieces_read(TEXT.windows, settings.steps, settings.tokens_per_step, 0, bare=settings.bare)
    store = Store.planned(tmp_path / "answers", "k", Layout(count=8, vocab=VOCABULARY), read, 96)
    write_answers(store, answering(parent(), 8))
    teacher = StoredTeacher(tmp_path / "answers", "k")
    expected = trained(teacher, settings)
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        trained(teacher, settings, checkpoint=path, reporter=Killer(7))
    assert path.exists()
    assert torch.equal(trained(teacher, settings, checkpoint=path), expected)
