"""Costs of a token and of memory, fitted to machines whose costs are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from minigpt.errors import ConfigError
from minigpt.fitting.costmodel import corrected, fit_costs, largest_error, nonnegative
from minigpt.fitting.profile import Profile, Sample, Work, read_profile, write_profile
from minigpt.models.bench import Workload
from minigpt.types import Shape

SHAPE = Shape(layers=1, intermediate_size=1, kv_groups=1, vocab_size=1)
WORKS = [
    Work(layers=layers, matrices=matrices, head=head, cache=cache, file=matrices + head + 1e6, rows=int(head / 576))
    for layers, matrices, head, cache in (
        (30, 60e6, 30e6, 100e3), (15, 30e6, 15e6, 50e3), (30, 30e6, 8e6, 100e3), (30, 25e6, 30e6, 33e3),
        (15, 10e6, 8e6, 17e3), (24, 40e6, 20e6, 80e3), (20, 22e6, 12e6, 44e3),
    )
]  # fmt: skip


def machine(work: Work) -> tuple[float, float]:
    """Speed and memory on an invented machine: 1 ms a token, 20 us a layer, 20 and 10 GB/s, and attention."""
    seconds = 1e-3 + 2e-5 * work.layers + work.matrices / 20e9 + work.head / 10e9 + 1e-8 * work.cache
    return 1 / seconds, 50e6 + 1.6 * work.file + 500 * work.cache


def profile(works: list[Work], **others: str) -> Profile:
    samples = tuple(
        Sample(runtime="llama.cpp", precision="int4", shape=SHAPE, work=work, decode=speed, memory=memory)
        for work in works
        for speed, memory in [machine(work)]
    )
    return Profile(machine="invented", threads=1, parent="p", workload=Workload(), samples=samples, **others)


def test_recovers_a_known_machine_on_shapes_that_it_has_not_seen():
    model = fit_costs(profile(WORKS[:5]), "llama.cpp", "int4")
    for work in WORKS[5:]:
        speed, memory = machine(work)
        assert model.speed(work) == pytest.approx(speed, rel=1e-3)
        assert model.peak(work) == pytest.approx(memory, rel=1e-3)
    assert model.parent == pytest.approx(machine(WORKS[0])[0])
    assert largest_error(model, profile(WORKS).samples) < 1e-3


def test_never_says_that_more_weights_are_faster():
    noisy = profile(WORKS[:5])
    slow = replace(noisy.samples[2], decode=noisy.samples[2].decode / 3)  # other work slowed one of them down
    model = fit_costs(replace(noisy, samples=(*noisy.samples[:2], slow, *noisy.samples[3:])), "llama.cpp", "int4")
    assert min(model.seconds) >= 0 and min(model.memory) >= 0
    for grown in (replace(WORKS[1], matrices=9e7), replace(WORKS[1], head=9e7), replace(WORKS[1], layers=60)):
        assert model.speed(grown) <= model.speed(WORKS[1])


def test_least_squares_of_relative_errors_by_hand():
    # x to 1 and to 3 with relative errors: minimize (x - 1)^2 + (x / 3 - 1)^2, so x = (1 + 1/3) / (1 + 1/9) = 1.2
    assert nonnegative([(1.0,), (1.0,)], [1.0, 3.0]) == pytest.approx((1.2,))


def shown(work: Work, decode: float, layers: int, memory: float | None = None) -> Sample:
    shape = replace(SHAPE, layers=layers)
    return Sample(runtime="llama.cpp", precision="int4", shape=shape, work=work, decode=decode, memory=memory)


def test_rehearsals_on_both_sides_of_a_limit_are_met_exactly():
    model = fit_costs(profile(WORKS[:5]), "llama.cpp", "int4")
    both = corrected(model, [shown(WORKS[0], 60.0, 9), shown(WORKS[5], 90.0, 4, 2e8)], 80.0)
    assert both.speed(WORKS[5]) == pytest.approx(90.0) and both.speed(WORKS[0]) == pytest.approx(60.0)
    assert both.peak(WORKS[5]) == pytest.approx(2e8)
    between = both.speed(replace(WORKS[0], matrices=50e6))
    assert 60 < between < 90 and both.speed(WORKS[4]) > 90  # a smaller one is still faster
    nearer = [shown(WORKS[0], 60.0, 9), shown(WORKS[5], 90.0, 4), shown(WORKS[6], 150.0, 2), shown(WORKS[4], 200.0, 1)]
    assert corrected(model, nearer, 80.0) == replace(both, memory_scale=1.0)  # those beyond do not matter


def test_a_slow_shape_that_does_not_cover_the_fast_one_is_no_side_of_it():
    model = fit_costs(profile(WORKS[:5]), "llama.cpp", "int4")
    narrow, other = shown(WORKS[5], 90.0, 4), shown(WORKS[3], 70.0, 3)
    bent = corrected(model, [shown(WORKS[0], 60.0, 9), other, narrow], 80.0)
    assert bent.speed(WORKS[0]) == pytest.approx(60.0) and bent.speed(WORKS[5]) == pytest.approx(90.0)


def test_rehearsals_on_one_side_move_all_speeds_by_one_factor():
    model = fit_costs(profile(WORKS[:5]), "llama.cpp", "int4")
    slow = corrected(model, [shown(WORKS[0], 60.0, 9), shown(WORKS[5], 90.0, 4)], 120.0)
    assert slow.speed(WORKS[5]) == pytest.approx(90.0)
    assert slow.speed(WORKS[4]) / model.speed(WORKS[4]) == pytest.approx(90.0 / model.speed(WORKS[5]))
    assert corrected(model, [], 120.0) == model
    assert corrected(model, [shown(WORKS[5], 90.0, 4)], None).speed(WORKS[5]) == pytest.approx(90.0)


def test_sessions_at_other_speeds_of_the_machine_fit_as_one():
    steady = profile(WORKS[:5])
    parent = machine(WORKS[0])[0]
    swung = tuple(
        replace(item, decode=item.decode * swing, parent_decode=parent * swing)
        for item, swing in zip(steady.samples, (1.0, 0.5, 1.0, 1.4, 0.8), strict=True)
    )
    model = fit_costs(replace(steady, samples=swung), "llama.cpp", "int4")
    assert model.parent == pytest.approx(parent)
    for work in WORKS:
        assert model.speed(work) == pytest.approx(machine(work)[0], rel=1e-3)


def test_refuses_too_few_models():
    with pytest.raises(ConfigError, match=r"2 models of llama\.cpp in int4, and 3 are needed"):
        fit_costs(profile(WORKS[:2]), "llama.cpp", "int4")


def test_a_profile_survives_its_file_and_newer_ones_are_refused(tmp_path: Path):
    original = profile(WORKS)
    write_profile(tmp_path / "deep" / "p.json", original)
    assert read_profile(tmp_path / "deep" / "p.json") == original
    write_profile(tmp_path / "new.json", replace(original, schema_version=99))
    with pytest.raises(ConfigError, match="newer"):
        read_profile(tmp_path / "new.json")
    write_profile(tmp_path / "empty.json", replace(original, samples=()))
    with pytest.raises(ConfigError, match="no measured model"):
        read_profile(tmp_path / "empty.json")
