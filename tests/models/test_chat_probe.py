"""The chat probe: answers that end are counted, whichever end token they end with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minigpt.models.chat_probe import PROMPTS, ChatProbe, probe_chat
from minigpt.pipeline.chat import chat_sentence
from tests.support.tiny import tiny_model, tiny_tokenizer


@pytest.mark.parametrize(("end", "ended"), [(2, 4), (0, 4), (7, 0)], ids=["end token", "separator", "plain token"])
def test_answers_that_end_are_counted(end: int, ended: int) -> None:
    """A model that always gives one token ends its answers if that token is an end."""
    model = tiny_model(layers=1, tied=False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.model.norm.weight.zero_()
    head = torch.nn.Linear(32, 512)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.nn.functional.one_hot(torch.tensor(end), 512).float())
    model.lm_head = head
    assert probe_chat(model, tiny_tokenizer(), tokens=3) == ChatProbe(ended=ended, prompts=4)


def test_padding_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of different lengths are answered together as they are alone."""
    model, tokenizer, outputs = tiny_model(layers=2), tiny_tokenizer(), list[Any]()
    real = model.generate

    def noted(**options: Any) -> Any:
        outputs.append(real(**options)[:, options["input_ids"].shape[1] :])
        return real(**options)

    monkeypatch.setattr(model, "generate", noted)
    probe_chat(model, tokenizer, tokens=5)
    for prompt, answer in zip(PROMPTS, outputs[0], strict=True):
        turn = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        alone = real(**ids, max_new_tokens=5, do_sample=False, eos_token_id=[0, 2], pad_token_id=0)
        alone = alone[0, ids["input_ids"].shape[1] :]
        assert answer[: len(alone)].tolist() == alone.tolist()


def test_without_a_template_nothing_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert probe_chat(None, tokenizer, tokens=3).prompts == 0


@pytest.mark.parametrize(("ended", "warns"), [(1, True), (2, False), (4, False)])
def test_less_than_half_of_the_parent_s_ends_is_said_plainly(ended: int, warns: bool) -> None:
    line = chat_sentence(ChatProbe(ended=4, prompts=4), ChatProbe(ended=ended, prompts=4), 48)
    assert line.startswith(f"Chat: {ended} of 4 answers") and "(parent: 4 of 4)" in line
    assert ("not trained for chat" in line) is warns
