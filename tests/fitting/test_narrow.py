"""Rehearsals on a machine that swings: how near a fit comes to its limit, and which rehearsed model it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from minigpt.errors import PlanError
from minigpt.fitting import rehearse, turns
from minigpt.fitting.constraints import parse_constraints
from minigpt.fitting.costmodel import fit_costs
from minigpt.fitting.engines import engine_named
from minigpt.fitting.narrow import NEAR, ROUNDS, Narrowed, narrowed, space_after
from minigpt.fitting.profile import Profile, Work, covers, work_of
from minigpt.fitting.rehearse import WORKLOAD, Stage, profile_shapes
from minigpt.fitting.search import Space, rank
from minigpt.models.bench import LoadCost
from minigpt.planning.allocate import Limits
from minigpt.progress import Silent
from minigpt.types import Shape
from tests.fitting.test_search import PARENT, SENSITIVITY, config
from tests.support.machines import Machine, opened

LIMITS = Limits(
    layers=(15, 20, 24, 27, 30), kv_groups=(1, 3), neurons=(384, 1536), vocab=(4096, 49152), cut_vocab=49151
)
ENGINE = engine_named("llama.cpp")


class Notes(Silent):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


@dataclass
class Device:
    """A device whose true costs the fitted parts cannot hold exactly: small models are faster still, by caches."""

    machine: Machine
    stage: Stage
    notes: Notes = field(default_factory=Notes)
    profile: Profile = field(
        default_factory=lambda: Profile(machine="invented", threads=1, parent="p", workload=WORKLOAD)
    )

    def space(self, *constraints: str) -> Space:
        assert SENSITIVITY is not None
        parsed = parse_constraints(constraints)
        precisions = ENGINE.timed if any(item.kind == "ram" for item in parsed) else ENGINE.timed[:1]
        self.stage.memory = len(precisions) > 1
        for name in precisions:
            self.profile = self.profile.with_samples(*self.stage.time(name, profile_shapes(PARENT, LIMITS)))
        return Space(
            engine=ENGINE,
            sizes=self.stage.sizes,
            parent=PARENT,
            limits=LIMITS,
            parameters=self.stage.sizes.costs.total,
            sensitivity=SENSITIVITY,
            models={name: fit_costs(self.profile, "llama.cpp", name) for name in precisions},
            constraints=parsed,
        )

    def fit(self, *constraints: str) -> Narrowed:
        space = self.space(*constraints)
        return narrowed(self.stage, space, self.profile, self.notes)

    def speed(self, precision: str, shape: Shape) -> float:
        """The true tokens a second of a shape while the machine has its usual speed."""
        return 1 / true_seconds(work_of(self.stage.sizes, shape, ENGINE.layouts[precision]))

    def ratio(self, end: Narrowed) -> float:
        return self.speed(end.best.precision, end.best.shape) / self.speed("int4", PARENT)


def true_seconds(work: Work) -> float:
    weights = work.matrices + work.head
    return 3e-4 + 4e-5 * work.layers + 4e-11 * weights * (weights / 9e7) ** 0.35


def device(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> Device:
    from minigpt.fitting.filesize import of_config

    sizes = of_config(config(), [25 * rows for rows in range(49153)])
    parent: Any = None
    stage = Stage(parent=parent, sizes=sizes, engine=ENGINE, folder=Path())
    works: dict[str, Work] = {}

    def export(_self: Stage, precision: str, shape: Shape) -> Path:
        path = Path(f"{precision}-{shape.layers}-{shape.intermediate_size}-{shape.kv_groups}-{shape.vocab_size}")
        works[str(path)] = work_of(sizes, shape, ENGINE.layouts[precision])
        return path

    def load(ref: str, *_others: Any) -> LoadCost:
        return LoadCost(seconds=1.0, peak=round(60e6 + 1.9 * works[ref].file))

    monkeypatch.setattr(Stage, "export", export)
    monkeypatch.setattr(rehearse, "open_model", opened(machine, lambda ref: true_seconds(works[ref])))
    monkeypatch.setattr(rehearse, "load_in_fresh_process", load)
    monkeypatch.setattr(turns, "time", machine.clock())
    return Device(machine=machine, stage=stage)


@pytest.mark.parametrize("seed", range(10))
def test_a_multiple_of_the_parent_is_met_on_a_swinging_machine(seed: int, monkeypatch: pytest.MonkeyPatch):
    noisy = device(monkeypatch, Machine(seed=seed, drift=0.25, hiccups=0.1, luck=0.1))
    assert noisy.ratio(noisy.fit("2x parent tokens/s")) == pytest.approx(2.04, abs=0.16)


@pytest.mark.parametrize("seed", range(5))
def test_tokens_a_second_are_those_of_the_usual_speed(seed: int, monkeypatch: pytest.MonkeyPatch):
    noisy = device(monkeypatch, Machine(seed=seed, drift=0.05, hiccups=0.1, luck=0.1))
    limit = round(1.8 * noisy.speed("int4", PARENT))
    end = noisy.fit(f"{limit} tokens/s")
    assert 0.93 <= noisy.speed("int4", end.best.shape) / limit <= 1.15


@pytest.mark.parametrize("limit", [1.3, 1.7, 2.0, 2.6, 3.0])
def test_a_quiet_machine_needs_few_rehearsals(limit: float, monkeypatch: pytest.MonkeyPatch):
    quiet = device(monkeypatch, Machine())
    end = quiet.fit(f"{limit}x parent tokens/s")
    assert limit <= 1.002 * quiet.ratio(end) and quiet.ratio(end) <= (1 + NEAR) * limit and end.rehearsals <= 3


Shown = list[tuple[Shape, float]]


def biased(monkeypatch: pytest.MonkeyPatch, *factors: float) -> tuple[Device, Shown]:
    """A quiet device whose rehearsals are off by factors, in turn, and the list of their shapes and ratios."""
    quiet, queue = device(monkeypatch, Machine()), list(factors)
    shown: Shown = []
    real = Stage.time

    def time(self: Stage, precision: str, wanted: Sequence[Shape]) -> Any:
        if len(wanted) > 1:
            return real(self, precision, wanted)
        (item,) = real(self, precision, wanted)
        assert item.parent_decode is not None
        item = replace(item, decode=queue[len(shown)] * item.decode)
        shown.append((item.shape, item.decode / item.parent_decode))
        return (item,)

    monkeypatch.setattr(Stage, "time", time)
    return quiet, shown


@pytest.mark.parametrize("factors", [(1.3, 0.6, 0.75, 0.7, 0.75, 0.7), (0.6, 1.4, 0.6, 1.4, 0.8, 1.2)])
def test_rehearsals_on_both_sides_narrow_the_limit_and_none_leaves_them(
    factors: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
):
    uneven, shown = biased(monkeypatch, *factors)
    end = uneven.fit("2x parent tokens/s")
    assert 3 <= len(shown) == end.rehearsals <= ROUNDS
    for place, (shape, _) in enumerate(shown):
        for before, ratio in shown[:place]:
            assert covers(shape, before) if ratio >= 2 else not covers(shape, before)


def test_takes_what_removes_least_of_all_that_keep_the_limit(monkeypatch: pytest.MonkeyPatch):
    uneven, shown = biased(monkeypatch, 1.6, 2.2, 0.7, 0.7, 0.7, 0.7)
    end = uneven.fit("2x parent tokens/s")
    assert [ratio >= 2 for _, ratio in shown][:3] == [True, True, False]
    assert end.fits and end.best.shape == shown[1][0]  # the first fits, too, and is the fastest, but removes more
    reasons = [reason for _, reason in end.others if reason.startswith("rehearsed")]
    assert "removes more" in reasons[0] and all("does not fit" in reason for reason in reasons[1:])
    assert all(rank(point) > rank(end.best) for point, reason in end.others if "removes more" in reason)
    (parent,) = (point for point, _ in end.others if point.shape == PARENT)
    assert parent.speed == pytest.approx(uneven.speed("int4", PARENT), rel=0.05)  # however far the costs are bent
    assert len(uneven.notes.lines) == end.rehearsals and "x parent (" in uneven.notes.lines[0]


def test_takes_the_nearest_if_nothing_keeps_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minigpt.fitting.narrow.ROUNDS", 3)
    lying, shown = biased(monkeypatch, 0.8, 0.7, 0.6)
    end = lying.fit("2x parent tokens/s")
    assert end.rehearsals == 3 and all(ratio < 2 for _, ratio in shown)
    assert end.best.shape == max(shown, key=lambda item: item[1])[0] and not end.fits
    assert "does not fit" in end.others[0][1]


def test_says_so_if_nothing_can_be_fast_enough(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(PlanError, match="Nothing fits 40x parent tokens/s"):
        device(monkeypatch, Machine()).fit("40x parent tokens/s")


def test_memory_and_speed_are_kept_together(monkeypatch: pytest.MonkeyPatch):
    noisy = device(monkeypatch, Machine(seed=4, drift=0.2, hiccups=0.05))
    end = noisy.fit("150MB ram", "1.5x parent tokens/s")
    assert end.best.ram is not None and end.best.ram <= 150e6 and noisy.ratio(end) >= 1.5 * 0.97
    tight = max(end.best.ram / 150e6, 1.5 / noisy.ratio(end))
    assert tight >= 1 / (1 + NEAR) - 0.03


def test_takes_the_parent_where_it_is_fast_enough(monkeypatch: pytest.MonkeyPatch):
    end = device(monkeypatch, Machine()).fit("0.5x parent tokens/s")
    assert end.best.shape == PARENT and end.rehearsals == 1


def test_limits_follow_the_usual_speed_of_the_parent(monkeypatch: pytest.MonkeyPatch):
    quiet = device(monkeypatch, Machine())
    space = quiet.space("2x parent tokens/s")
    (sample,) = quiet.stage.time("int4", (replace(PARENT, layers=15),))
    tried = [replace(sample, parent_decode=speed) for speed in (100.0, 140.0, 110.0)]
    after = space_after(space, quiet.profile, tried)
    assert after.constraints[0].amount == 220.0 and not after.constraints[0].relative
    parent = work_of(space.sizes, PARENT, ENGINE.layouts["int4"])
    assert after.models["int4"].parent == 110.0 and after.models["int4"].speed(parent) == pytest.approx(110.0)
