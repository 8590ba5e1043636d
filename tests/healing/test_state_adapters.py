"""Adapters and 4 bits in families with a state: layers whose matrix is taken by itself stay plain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minigpt.errors import ConfigError
from minigpt.exporting import torch_nf4
from minigpt.healing import train
from minigpt.healing.adapters import trainable
from minigpt.progress import SILENT
from minigpt.runtimes.pytorch import load_quantized
from minigpt.transformer.families import ARCHITECTURES
from tests.support.archsuite import STATES
from tests.support.healing import VOCABULARY, patterned, recipe
from tests.support.tiny import tiny_model, tiny_tokenizer

LORA = {"adapter": "lora", "rank": 4, "learning_rate": 1e-2}
EXPERTS = tuple(name for name, spec in ARCHITECTURES.items() if spec.experts is not None)[:1]


@pytest.mark.parametrize("family", STATES)
def test_adapters_heal_where_layers_are_called(family: str) -> None:
    """Adapters on all linear layers train every family with a state, and leave out what no adapter can stand in for."""
    model = tiny_model(family, vocab_size=VOCABULARY, layers=2)
    state: Any = ARCHITECTURES[family].state
    with trainable(model, recipe(**LORA)) as adapted:
        names = {name.partition(".lora_A")[0].rpartition(".")[2] for name, _ in adapted.named_parameters()}
        assert (names and not names & {*state.bare, *state.in_kernels} and "in_proj" in names) or "mamba" not in family
    training = train(model, patterned(8), patterned(4, seed=1), recipe(**LORA, steps=2, evaluate_every=2))
    losses = [loss for _, loss in training.dev_losses]
    assert losses[-1] != losses[0]


@pytest.mark.parametrize("family", ["mamba", "rwkv", *EXPERTS])
def test_adapters_of_an_ffn_that_is_not_there_are_refused(family: str) -> None:
    model = tiny_model(family, vocab_size=VOCABULARY, layers=2)
    with pytest.raises(ConfigError, match=r"have no such FFN; set heal.targets=all-linear"):
        train(model, patterned(4), patterned(4, seed=1), recipe(**LORA, targets="ffn"))


@pytest.mark.parametrize("family", STATES)
def test_four_bits_run(family: str, tmp_path: Path) -> None:
    """A 4-bit folder of every family with a state reads a text as it reads it token by token."""
    pytest.importorskip("bitsandbytes")
    source, target = tmp_path / "model", tmp_path / "out"
    tiny_model(family, layers=2).save_pretrained(source)
    tiny_tokenizer().save_pretrained(source)
    target.mkdir()
    request: Any = SimpleNamespace(source=SimpleNamespace(path=source), device="cpu")
    torch_nf4.write(request, target, SILENT)
    worker = load_quantized(target, "cpu")
    row = [7, 9, 11, 13, 300, 301]
    whole = worker.logits(np.array([row]), np.ones((1, 6), dtype=np.int64))[0]
    steps = np.stack([worker.begin(row[:2]), *(worker.step(token) for token in row[2:])])
    assert np.isfinite(whole).all() and np.abs(whole[1:] - steps).max() < 1.0
