"""Rounds of training and pruning: the order of events, rewinding, and a kill at any point."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import ConfigError
from minigpt.healing import Teacher
from minigpt.tickets.language import Lesson, early_point, put, reinitialised, take
from minigpt.tickets.masks import density, prunable
from minigpt.tickets.rounds import (
    MASKS,
    WEIGHTS,
    Schedule,
    Ticket,
    Trained,
    even_levels,
    load_masks,
    run_rounds,
    save_masks,
)
from tests.support.healing import VOCABULARY, Killed, Killer, patterned, recipe
from tests.support.tiny import tiny_model

START = {"a": torch.tensor([[4.0, -3.0, 2.0, 1.0]]), "bias": torch.tensor([1.0])}


class Doubling:
    """A training that doubles what it is given, adds a tenth to the bias, and may be killed in one round."""

    def __init__(self, killed_in: int | None = None) -> None:
        self.killed_in, self.seen = killed_in, list[dict[str, Any]]()

    def __call__(self, weights: Any, masks: Any, number: int, checkpoint: Path) -> Trained:
        if number == self.killed_in:
            raise Killed
        self.seen.append({name: value.clone() for name, value in weights.items()})
        return Trained(
            weights={"a": 2 * weights["a"], "bias": weights["bias"] + 0.1}, facts={"loss": 1.0 / (number + 1)}
        )


def rounds(folder: Path, train: Any, **changes: Any) -> Ticket:
    schedule = Schedule(**({"levels": (0.75, 0.5)} | changes))
    return run_rounds(folder, START, ("a",), train, schedule, key="k")


def test_survivors_are_rewound_to_the_start_and_the_weakest_go(tmp_path: Path) -> None:
    train = Doubling()
    ticket = rounds(tmp_path, train)
    assert [seen["a"].tolist() for seen in train.seen] == [[[4, -3, 2, 1]], [[4, -3, 2, 0]], [[4, -3, 0, 0]]]
    assert [float(seen["bias"]) for seen in train.seen] == [1.0, 1.0, 1.0]
    assert ticket.weights["a"].tolist() == [[8, -6, 0, 0]]
    assert ticket.masks["a"].tolist() == [[True, True, False, False]]
    assert [record.remaining for record in ticket.records] == [1.0, 0.75, 0.5]
    assert [record.distance for record in ticket.records] == [0.0, 0.25, 0.25]
    assert ticket.records[2].facts == {"loss": 1 / 3}


def test_rate_rewinding_goes_on_from_trained_values(tmp_path: Path) -> None:
    train = Doubling()
    ticket = rounds(tmp_path, train, rewinding="rate")
    assert [seen["a"].tolist() for seen in train.seen] == [[[4, -3, 2, 1]], [[8, -6, 4, 0]], [[16, -12, 0, 0]]]
    assert ticket.weights["a"].tolist() == [[32, -24, 0, 0]]
    assert float(ticket.weights["bias"]) == pytest.approx(1.3)


@pytest.mark.parametrize("rewinding", ["weights", "rate"])
@pytest.mark.parametrize("killed_in", [0, 1, 2])
def test_killed_rounds_go_on_as_if_nothing_had_happened(tmp_path: Path, killed_in: int, rewinding: str) -> None:
    expected = rounds(tmp_path / "whole", Doubling(), rewinding=rewinding)
    with pytest.raises(Killed):
        rounds(tmp_path / "cut", Doubling(killed_in), rewinding=rewinding)
    again = Doubling()
    ticket = rounds(tmp_path / "cut", again, rewinding=rewinding)
    assert len(again.seen) == 3 - killed_in
    assert torch.equal(ticket.weights["a"], expected.weights["a"])
    assert torch.equal(ticket.masks["a"], expected.masks["a"])
    once_more = Doubling()
    assert torch.equal(rounds(tmp_path / "cut", once_more, rewinding=rewinding).weights["a"], expected.weights["a"])
    assert once_more.seen == []


def test_more_rounds_go_on_and_other_settings_start_over(tmp_path: Path) -> None:
    rounds(tmp_path, Doubling())
    more = Doubling()
    ticket = rounds(tmp_path, more, levels=(0.75, 0.5, 0.25))
    assert len(more.seen) == 1 and len(ticket.records) == 4
    other = Doubling()
    rounds(tmp_path, other, levels=(0.5, 0.25))
    assert len(other.seen) == 3


def test_fewer_rounds_than_are_finished_start_over_where_their_weights_are_gone(tmp_path: Path) -> None:
    rounds(tmp_path, Doubling())
    fewer, alone = Doubling(), Doubling()
    assert torch.equal(
        rounds(tmp_path, fewer, levels=(0.75,)).weights["a"], rounds(tmp_path / "x", alone, levels=(0.75,)).weights["a"]
    )
    assert len(fewer.seen) == 2


def test_levels_that_fall_evenly_reach_the_target() -> None:
    levels = even_levels(0.3, 4)
    assert levels[-1] == pytest.approx(0.3)
    assert [later / earlier for earlier, later in pairwise(levels)] == pytest.approx([0.3**0.25] * 3)


def test_only_the_last_round_keeps_its_weights(tmp_path: Path) -> None:
    rounds(tmp_path, Doubling())
    assert [path.parent.name for path in sorted(tmp_path.rglob(WEIGHTS))] == ["round-02"]
    assert len(list(tmp_path.rglob(MASKS))) == 3


def test_masks_are_stored_as_bits(tmp_path: Path) -> None:
    masks = {"a": torch.rand(33, 70) < 0.3}
    save_masks(masks, tmp_path / "m.safetensors")
    assert torch.equal(load_masks(tmp_path / "m.safetensors")["a"], masks["a"])
    assert (tmp_path / "m.safetensors").stat().st_size < 33 * 70 // 8 + 300


def test_a_schedule_out_of_range_is_refused() -> None:
    for changes in ({"levels": (1.0,)}, {"levels": (0.5, 0.6)}, {"levels": (-0.1,)}, {"pattern": "rows"}):
        with pytest.raises(ConfigError):
            Schedule(**({"levels": (0.5,)} | changes))


def lesson(**changes: Any) -> Lesson:
    model = tiny_model(vocab_size=VOCABULARY, layers=2)
    return Lesson(model=model, text=patterned(80), dev=patterned(12, seed=1), recipe=recipe(**changes))


@pytest.mark.parametrize("pattern", ["global", "2:4"])
def test_a_language_model_learns_under_its_ticket_and_a_killed_one_resumes(tmp_path: Path, pattern: str) -> None:
    teacher = Teacher(model=tiny_model(vocab_size=VOCABULARY, layers=2, seed=5))
    plan = Schedule(levels=(0.75, 0.5), pattern=pattern)

    def run(folder: Path, steps: int | None = None) -> Ticket:
        reporter = {} if steps is None else {"reporter": Killer(steps)}
        taught = lesson(distill=0.5)
        school = Lesson(
            model=taught.model, text=taught.text, dev=taught.dev, recipe=taught.recipe, teacher=teacher, **reporter
        )
        return run_rounds(folder, take(taught.model), prunable(taught.model), school, plan, key=school.key)

    ticket = run(tmp_path / "whole")
    for name, mask in ticket.masks.items():
        assert not ticket.weights[name][~mask].any()
    assert density(ticket.masks) == pytest.approx(0.5, abs=0.001)
    first, last = ticket.records[0].facts, ticket.records[-1].facts
    assert last["best_step"] > 0 and first["steps"] == last["steps"] == 12
    with pytest.raises(Killed):
        run(tmp_path / "cut", 7)
    again = run(tmp_path / "cut")
    assert all(torch.equal(ticket.weights[name], again.weights[name]) for name in ticket.weights)


def test_the_early_point_is_the_start_of_the_lesson() -> None:
    """With warm-up over two steps, the first two steps of a short run are those of the whole run."""
    school = lesson(steps=12, warmup=4, average=0.0, final=1.0)
    start = take(school.model)
    assert all(torch.equal(early_point(school, start, 0)[name], start[name]) for name in start)
    point = early_point(school, start, 2)
    model = tiny_model(vocab_size=VOCABULARY, layers=2)
    from minigpt.healing.run import Run

    whole = Run(put(model, start), school.dev, school.recipe, None, 0)
    batches = whole.batches(school.text)
    for _ in range(2):
        whole.advance(next(batches))
    moved = take(model)
    assert all(torch.allclose(point[name], moved[name], atol=1e-6) for name in start)
    assert any(not torch.equal(point[name], start[name]) for name in start)


def test_the_early_point_is_kept_and_is_never_the_start_where_training_does_harm(tmp_path: Path) -> None:
    """A rate that does harm gives the point, too: rounds train at this rate, and neither the best nor a lower one."""
    school = replace(lesson(steps=12, warmup=4, learning_rate=30.0), backs_off=True)
    start = take(school.model)
    point = early_point(school, start, 3, tmp_path / "early.safetensors")
    assert any(float((point[name] - start[name]).abs().max()) > 1 for name in start)
    killed = replace(school, reporter=Killer(0))
    again = early_point(killed, start, 3, tmp_path / "early.safetensors")
    assert all(torch.equal(again[name], point[name]) for name in point)
    with pytest.raises(Killed):
        early_point(killed, start, 2, tmp_path / "early.safetensors")


def test_rounds_that_start_over_do_not_take_up_rounds_of_the_start_before(tmp_path: Path) -> None:
    """The last round is damaged, and no other has weights; the next run is killed, and the one after goes on there."""
    rounds(tmp_path, Doubling())
    path = tmp_path / "round-02" / WEIGHTS
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(bytes(damaged))
    cut, again = Doubling(killed_in=1), Doubling()
    with pytest.raises(Killed):
        rounds(tmp_path, cut)
    rounds(tmp_path, again)
    assert (len(cut.seen), len(again.seen)) == (1, 2)


def test_reinitialised_survivors_have_the_width_of_the_family_and_the_rest_stays() -> None:
    model = tiny_model(layers=2)
    masks = {
        name: torch.rand(weight.shape) < 0.5 for name, weight in model.named_parameters() if name in prunable(model)
    }
    drawn, before = reinitialised(model, masks, 3), take(model)
    values = torch.cat([drawn[name][mask] for name, mask in masks.items()])
    assert float(values.std()) == pytest.approx(model.config.initializer_range, rel=0.05)
    for name in drawn:
        if name in masks:
            assert not drawn[name][~masks[name]].any()
        else:
            assert torch.equal(drawn[name], before[name])
    assert torch.equal(reinitialised(model, masks, 3)[next(iter(masks))], drawn[next(iter(masks))])
