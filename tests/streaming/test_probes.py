"""Streamed probes measure the costs that probes of a whole model do, to the bit, and lead to the same plan."""

from __future__ import annotations

import weakref
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from minigpt import assets
from minigpt.errors import CorpusError
from minigpt.methods.cut import repair_of
from minigpt.methods.material import Material, gather
from minigpt.methods.ranking import rank
from minigpt.methods.table import method_named
from minigpt.planning import probes as planning_probes
from minigpt.planning.budget import allowed_axes
from minigpt.planning.planner import measure_curves
from minigpt.pruning.settings import RepairSettings
from minigpt.pruning.waiting import PROCESSOR, Home, OnDisk
from minigpt.streaming import probes as streamed_probes
from minigpt.streaming.statistics import collect
from minigpt.transformer.arch import arch_of
from minigpt.types import Document
from tests.support.archsuite import random_batch
from tests.support.streamed import saved, streamed, whole
from tests.support.tiny import SENTENCES

BATCHES = [random_batch(seed=seed, rows=2, length=24) for seed in range(2)]
DOCUMENTS = [Document(text=text, source=str(number)) for number, text in enumerate(SENTENCES)]


def curves(folder: Path, name: str, documents: list[Document], home: Home = PROCESSOR) -> tuple[Any, Any]:
    """Measure the curves of a method in memory and streamed, with text that waits at `home`."""
    tokenizer, method, model = assets.load_tokenizer(folder), method_named(name), whole(folder)
    settings = {
        "axes": allowed_axes(method, None, arch_of(model)),
        "repair": repair_of(method, RepairSettings()),
        "probe_tokens": 1000,
        "window": 16,
    }
    material = gather(model, BATCHES)
    expected = measure_curves(method, material, tokenizer, rank(method, material), documents, **settings)
    parent = streamed(folder, home)
    statistics, norms = collect(parent, BATCHES)
    lazy = Material(model=parent.model, batches=BATCHES, statistics=statistics, norms=norms)
    scores = rank(method, lazy)
    actual = streamed_probes.measure_curves(parent, method, lazy, tokenizer, scores, documents, together=5, **settings)
    return expected, actual


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", "contextual"),
        ("llama", "wanda"),
        ("phi3", "contextual"),
        ("gpt2", "linear"),
        ("gemma3_text", "contextual"),
        ("olmo2", "wanda"),
        ("gpt_oss", "contextual"),
        ("gpt_oss", "reap"),
        ("qwen3_moe", "contextual"),
        ("qwen3_moe", "reap"),
        ("qwen2", "shortgpt"),
    ],
)
def test_curves_are_those_of_the_whole_model(tmp_path: Path, family: str, method: str) -> None:
    saved(tmp_path, family)
    expected, actual = curves(tmp_path, method, DOCUMENTS)
    assert actual == expected
    assert actual


def test_a_smaller_vocabulary_is_probed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, "llama", tied=False)
    monkeypatch.setattr(planning_probes, "FEWEST_TOKENS", 320)
    expected, actual = curves(tmp_path, "contextual", DOCUMENTS)
    assert actual == expected
    assert "vocab" in actual


def test_text_that_waits_on_the_disk_changes_no_curve(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    home = OnDisk(tmp_path / "work")
    expected, actual = curves(tmp_path, "contextual", DOCUMENTS, home)
    assert actual == expected
    assert home.size > 0


def test_copies_of_layers_go_when_they_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, "llama")
    copies: list[weakref.ref[Any]] = []

    def watched(layer: Any) -> Any:
        if hasattr(layer, "vocab_size") or hasattr(layer, "lm_head"):
            return deepcopy(layer)
        assert not any(copy() is not None for copy in copies)
        copies.append(weakref.ref(copy := deepcopy(layer)))
        return copy

    monkeypatch.setattr(streamed_probes, "deepcopy", watched)
    expected, actual = curves(tmp_path, "contextual", DOCUMENTS)
    assert actual == expected
    assert len(copies) > 4


def test_dev_text_is_needed(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no dev text"):
        curves(saved(tmp_path, "llama"), "wanda", [])
