"""Training curves for other programs: they get the numbers of the record, and cannot stop a training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minigpt.errors import ConfigError, UnknownName
from minigpt.healing import train
from minigpt.healing.tracking import TrackingReporter, open_tracker, tracked
from minigpt.progress import SILENT
from minigpt.results import Training
from tests.support.commands import run
from tests.support.healing import VOCABULARY, Notes, patterned, recipe
from tests.support.tiny import tiny_model

TEXT, DEV = patterned(80), patterned(12, seed=1)


def trained(reporter: Any) -> Training:
    return train(tiny_model(vocab_size=VOCABULARY, layers=2), TEXT, DEV, recipe(), title="Healing", reporter=reporter)


def test_tensorboard_reads_the_dev_losses_of_the_record(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tracked(SILENT, "tensorboard", "medical", tmp_path) as reporter:
        record = trained(reporter)
    events = accumulator.EventAccumulator(str(tmp_path / "medical"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("Healing/dev_bits_per_byte")]
    assert [step for step, _ in losses] == [step for step, _ in record.dev_losses]
    assert [value for _, value in losses] == pytest.approx([loss for _, loss in record.dev_losses])
    rates = {event.step: event.value for event in events.Scalars("Healing/learning_rate")}
    # Linear warm-up over two steps, then a cosine to a tenth of the peak at step 12.
    assert rates[0] == pytest.approx(3e-3 / 2)
    assert rates[12] == pytest.approx(3e-4)
    assert events.Scalars("Healing/tokens")[-1].value == record.tokens


class Library(ModuleType):
    """Stands for trackio and wandb, with the calls that both have."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls: list[tuple[str, Any]] = []

    def init(self, **options: Any) -> Library:
        self.calls.append(("init", options))
        return self

    def define_metric(self, name: str, **options: Any) -> None:
        self.calls.append(("define_metric", name))

    def log(self, values: Mapping[str, float]) -> None:
        self.calls.append(("log", dict(values)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_the_other_programs_get_the_same_numbers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(kind)
    monkeypatch.setitem(sys.modules, kind, library)
    with tracked(SILENT, kind, "medical", tmp_path) as reporter:
        record = trained(reporter)
    assert library.calls[0][0] == "init" and library.calls[0][1]["name"] == "medical"
    logged = [values for call, values in library.calls if call == "log"]
    losses = [(values["Healing/step"], values["Healing/dev_bits_per_byte"]) for values in logged]
    assert losses == list(record.dev_losses)
    assert library.calls[-1] == ("finish", None)


def test_a_tracker_that_fails_is_given_up_once_and_the_training_goes_on() -> None:
    class Broken:
        calls = 0

        def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
            self.calls += 1
            raise OSError("disk full")

        def close(self) -> None:
            raise OSError("disk full")

    notes, broken = Notes(), Broken()
    reporter = TrackingReporter(notes, broken)
    record = trained(reporter)
    reporter.close()
    assert record.steps == 12
    assert record.dev_losses == trained(SILENT).dev_losses, "what is logged changes nothing"
    assert broken.calls == 1
    assert sum("given up" in note for note in notes.notes) == 1


def test_a_missing_package_is_named_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'minigpt\[wandb\]'"):
        open_tracker("wandb", "x", tmp_path)
    with pytest.raises(UnknownName):
        open_tracker("paper", "x", tmp_path)
    result = run("build", "--domain", "medical", "--log", "wandb", "--output-dir", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "minigpt[wandb]" in result.stderr
    assert not (tmp_path / "out").exists()
