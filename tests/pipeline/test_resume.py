"""Builds that are killed, repeated, forced, or pointed at somebody else's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from minigpt import pipeline
from minigpt.errors import MiniGPTError
from minigpt.models import catalog
from minigpt.pipeline import BuildOptions
from minigpt.progress import Silent
from tests.support.building import FAST, build, folder_of
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")


T = TypeVar("T")


class Interrupting(Silent):
    """Interrupts the first stage it has not interrupted before; remembers which."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        title = title.rpartition(": ")[2]  # without its number
        if title not in self.seen:
            self.seen.append(title)
            raise KeyboardInterrupt
        yield

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        for place, item in enumerate(items):
            if place == 1 and title not in self.seen:
                self.seen.append(title)
                raise KeyboardInterrupt
            yield item


def test_a_build_killed_anywhere_loses_no_finished_stage(world: World, made: Counter[str]) -> None:
    options = world.options("killed", overrides={**CONTROL, "heal.steps": "3", "tune.steps": "1"})
    reporter = Interrupting()
    for _ in range(40):
        try:
            done = build(options, reporter)
            break
        except KeyboardInterrupt:
            assert not (folder_of(options) / "report.json").exists()
            assert not [path for path in (folder_of(options) / "work").iterdir() if path.name.startswith(".")]
    else:
        pytest.fail("the build never came to an end")
    assert {"Tuning the parent (the fair comparison)", "Pruning", "Healing", "Report, model card and catalog"} <= set(
        reporter.seen
    )
    assert set(made.values()) == {1}
    assert {"tuned", "plan", "pruned", "healed", "measured_parent", "measured_healed"} <= made.keys()
    assert [entry.domain for entry in catalog.entries()] == ["words"]
    undisturbed = build(replace(options, output_dir=world.root / "undisturbed"))
    for one, other in zip(done.stages, undisturbed.stages, strict=True):
        assert one.metrics == other.metrics


def test_a_build_killed_while_it_is_cataloged_is_cataloged_by_the_next_call(
    world: World, monkeypatch: pytest.MonkeyPatch, made: Counter[str]
) -> None:
    options = world.options("late", overrides=FAST)

    def interrupt(_folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(options)
    before = Counter(made)
    build(options)
    assert made == before
    assert [entry.path for entry in catalog.entries()] == [str(folder_of(options).resolve())]
    assert not list((folder_of(options) / "work" / "healed").rglob("*.safetensors"))


def test_force_builds_again_with_other_options_and_leaves_other_files(world: World) -> None:
    options = world.options("forced", overrides=FAST)
    build(options)
    kept = folder_of(options) / "notes.txt"
    kept.write_text("mine")
    changed = replace(options, seed=3, force=True)
    assert build(changed).seed == 3
    assert kept.read_text() == "mine"
    assert build(replace(changed, force=False)).seed == 3


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("job", [pipeline.build_specialists, pipeline.plan_specialists])
def test_a_folder_of_somebody_else_is_refused_and_left_alone(
    world: World, tmp_path: Path, force: bool, job: Callable[[BuildOptions], object]
) -> None:
    for name in ("model", "work"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "precious.bin").write_text("x")
    with pytest.raises(MiniGPTError, match=r"mine is not empty and holds no build. Choose another --output-dir\.$"):
        job(world.options("unused", output_dir=tmp_path / "mine", force=force))
    assert sorted(path.name for path in (tmp_path / "mine").rglob("*")) == [
        "model",
        "precious.bin",
        "precious.bin",
        "work",
    ]


def test_an_empty_folder_is_welcome_and_a_file_is_not(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MiniGPTError, match="Choose another"):
        build(world.options("unused", output_dir=tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    assert pipeline.plan_specialists(world.options("unused", output_dir=tmp_path / "empty", overrides=FAST))


@pytest.mark.slow
def test_another_plan_beside_a_finished_build(world: World) -> None:
    """The tuned parent's weights are gone by then: it is tuned again, and the build stays as it is."""
    options = world.options("beside", overrides={**CONTROL, **FAST, "tune.steps": "1"})
    done = build(options)
    (plan,) = pipeline.plan_specialists(replace(options, target_size=0.9))
    assert plan.parameters_after > done.stages[-1].parameters
    assert build(options) == done


def test_the_parent_s_bytes_follow_the_dtype_when_an_interrupted_build_changes_it(world: World) -> None:
    options = world.options("dtype", overrides=FAST)

    class AtPlan(Silent):
        @contextmanager
        def stage(self, title: str) -> Iterator[None]:
            if title.endswith("Activation statistics and plan"):
                raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        build(options, AtPlan())
    made = build(replace(options, dtype="float32"))
    assert made.stages[0].bytes == 4 * made.stages[0].parameters
