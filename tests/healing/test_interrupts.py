"""Tests of interrupts that wait for the end of a step."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from minigpt.healing import run, train
from minigpt.healing.interrupts import deferred_interrupts
from tests.healing.test_train import DEV, TEXT, essence, fresh, recipe, same, weights


def test_an_interrupt_waits_until_it_is_delivered() -> None:
    with deferred_interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.pending == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            interrupts.deliver()
        assert interrupts.pending is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_acts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_that_nobody_asked_for_acts_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_leave_the_handlers_alone() -> None:
    seen: list[Any] = []

    def work() -> None:
        with deferred_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_an_interrupted_run_writes_what_it_has_and_goes_on_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fresh()
    expected = train(whole, TEXT, DEV, recipe())
    path, advance = tmp_path / "healing.safetensors", run.Run.advance

    def interrupted(self: run.Run, batch: Any) -> None:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of the fourth step
        advance(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(), TEXT, DEV, recipe(), checkpoint=path)
    assert path.is_file()
    model, steps = fresh(), []
    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "advance", lambda self, batch: (steps.append(self.step), advance(self, batch)))
        result = train(model, TEXT, DEV, recipe(), checkpoint=path)
    assert steps[0] == 4
    assert essence(result) == essence(expected) and same(weights(model), weights(whole))
