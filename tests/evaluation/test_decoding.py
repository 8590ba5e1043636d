"""Greedy answers in batches: each prompt gets the answer that it has alone, in every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minigpt.evaluation.decoding import decode
from minigpt.models.chat_probe import probe_chat
from minigpt.runtimes.pytorch import TorchRuntime
from minigpt.transformer.families import ARCHITECTURES
from tests.support.archsuite import STATES, model_of
from tests.support.tiny import tiny_tokenizer

# Of different lengths, so that a batch of them has padding.
PROMPTS = ([7, 9, 11, 13, 300, 301, 302, 17], [250, 8, 9], [40, 41, 42, 43, 44], [99, 98, 97])
# Every family; in the fast tests those with a state, and one of each kind of positions and of experts.
FAMILIES = [
    name if name in (*STATES, "llama", "opt", "gpt_oss") else pytest.param(name, marks=pytest.mark.slow)
    for name in ARCHITECTURES
]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_has_the_answers_of_its_prompts_alone(family: str) -> None:
    model, tokenizer = model_of(family, layers=2), tiny_tokenizer()
    together = decode(model, tokenizer, PROMPTS, max_tokens=6, one_line=False)
    alone = [decode(model, tokenizer, [prompt], max_tokens=6, one_line=False)[0] for prompt in PROMPTS]
    assert together == alone and any(together)


@pytest.mark.parametrize("family", STATES)
def test_padding_is_no_text_for_the_runtime(family: str, tmp_path: Path) -> None:
    """A model that reads padding as text gets every row by itself."""
    runtime = TorchRuntime(model_of(family, layers=2), tiny_tokenizer(), folder=tmp_path)
    length = max(map(len, PROMPTS))
    ids = np.array([[0] * (length - len(row)) + list(row) for row in PROMPTS])
    mask = np.array([[0] * (length - len(row)) + [1] * len(row) for row in PROMPTS])
    logits = runtime.logits(ids, mask)
    for row, rows in zip(PROMPTS, logits, strict=True):
        single = runtime.logits(np.array([row]), np.ones((1, len(row)), dtype=np.int64))[0]
        assert np.abs(rows[length - len(row) :] - single).max() < 1e-3


def test_the_probe_of_chats_gives_prompts_of_such_a_model_alone() -> None:
    probe = probe_chat(model_of("rwkv", layers=2), tiny_tokenizer(), tokens=4)
    assert probe.prompts == 4 and 0 <= probe.ended <= 4
