"""Conversations: the turns that the model sees, and what is dropped when the window is full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minigpt.errors import ConfigError
from minigpt.models.generate import Sampling
from minigpt.serving.dialog import Dialog
from minigpt.serving.engine import Engine
from tests.support.commands import model_folder
from tests.support.serving import engine_of


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engine_of(model_folder(tmp_path_factory.mktemp("tiny") / "model"))


def prompts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of every prompt that the model sees from now on."""
    seen: list[str] = []
    original = engine.answer

    def answer(job: Any, *rest: Any) -> Any:
        seen.append(engine.runtime.tokenizer.decode(job.tokens))
        return original(job, *rest)

    monkeypatch.setattr(engine, "answer", answer)
    return seen


def test_each_turn_sees_those_before_and_a_reset_forgets_all_but_the_system(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, pieces = prompts(engine, monkeypatch), list[str]()
    dialog = Dialog(engine, Sampling(max_new_tokens=4), system="Be short.")
    answer = dialog.ask("A fever?", pieces.append)
    assert answer is not None
    assert answer.text == "".join(pieces) == dialog.turns[1].content
    dialog.ask("And now?", pieces.append)
    start = "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\n"
    assert seen[0] == f"{start}A fever?<|im_end|>\n"
    assert seen[1].startswith(f"{start}A fever?<|im_end|>\n<|im_start|>assistant\n{answer.text}")
    assert seen[1].endswith("<|im_start|>user\nAnd now?<|im_end|>\n")
    dialog.reset()
    dialog.ask("Again?", pieces.append)
    assert seen[2] == f"{start}Again?<|im_end|>\n"


def test_the_oldest_turns_are_dropped_when_the_window_is_full(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = prompts(engine, monkeypatch)
    dialog = Dialog(engine, Sampling(max_new_tokens=40))
    for number in range(6):
        dialog.ask(f"Number {number}: " + "heart " * 20, lambda _piece: None)
    assert dialog.dropped > 0
    assert "Number 0" not in seen[-1] and "Number 5" in seen[-1]
    assert dialog.dropped + len(dialog.turns) == 12
    with pytest.raises(ConfigError, match="write less"):
        dialog.ask("heart " * 400, lambda _piece: None)
    assert dialog.turns[-1].role == "assistant", "a turn that was refused is not remembered"


def test_an_interrupt_ends_the_answer_and_keeps_what_was_said(engine: Engine) -> None:
    dialog = Dialog(engine, Sampling(max_new_tokens=40))

    def stop(_piece: str) -> None:
        raise KeyboardInterrupt

    assert dialog.ask("A fever?", stop) is None
    assert [turn.role for turn in dialog.turns] == ["user", "assistant"]
    assert dialog.turns[1].content


def test_a_model_without_a_template_is_refused(tmp_path: Path) -> None:
    engine = engine_of(model_folder(tmp_path / "model"))
    engine.runtime.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        Dialog(engine, Sampling())


def test_a_template_cannot_reach_outside_of_its_sandbox(tmp_path: Path) -> None:
    from minigpt.errors import AssetError

    engine = engine_of(model_folder(tmp_path / "model"))
    engine.runtime.tokenizer.chat_template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(AssetError, match="template"):
        Dialog(engine, Sampling()).ask("x", lambda _piece: None)
