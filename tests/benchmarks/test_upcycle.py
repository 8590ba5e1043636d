"""The benchmark of experts: upcycling computes what the dense parent does, and every arm runs on a small world."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.files import read_jsonl
from minigpt.transformer.arch import decoder_layers, parameters_of, shape_of
from tests.support.archsuite import logits, model_of, random_batch
from tests.support.worlds import World

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = ("upcycle", "upcycle_model", "reading")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import upcycle

    yield upcycle
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("tied", [True, False])
def test_copies_compute_what_the_dense_model_does(module: Any, tied: bool) -> None:
    """Weights of a token's experts sum to 1, so that equal experts change nothing; noise makes them differ."""
    dense, ids = model_of("llama", tied=tied), random_batch(pad=0).input_ids
    same = module.upcycle(dense, experts=4, per_token=2, noise=0.0)
    torch.testing.assert_close(logits(same, ids), logits(dense, ids), rtol=1e-4, atol=1e-4)
    assert shape_of(same).experts == 4 and sum(p.numel() for p in same.parameters()) == parameters_of(same)
    noisy = module.upcycle(dense, experts=4, per_token=2, noise=0.1)
    stack = decoder_layers(noisy)[0].mlp.experts.down_proj
    gap = (stack - decoder_layers(dense)[0].mlp.down_proj.weight).std((1, 2)) / decoder_layers(dense)[
        0
    ].mlp.down_proj.weight.std()
    torch.testing.assert_close(gap, torch.full((4,), 0.1), rtol=0.1, atol=0.0)


def test_arms_are_healed_alike_and_made_once(
    module: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the experts go in every arm but the control; a second call makes nothing again."""
    out = tmp_path / "upcycle.jsonl"
    arguments = f"--json {out} --work {tmp_path / 'work'} --domains {world.domain} --base {world.base} --device cpu"
    options = "--experts 4 --kernel eager --make-steps 2 --heal-steps 2 --tokens 512 --limit 12000 --questions 2"
    options += " --arms tuned,reap-general,contextual-domain,hc-smoe-domain,random"
    small = '{"tokens_per_step": 256, "window": 64, "warmup": 1, "evaluate_every": 1}'
    monkeypatch.setattr(
        sys, "argv", ["upcycle.py", *arguments.split(), *options.split(), "--make", small, "--heal", small]
    )
    module.main()
    rows = read_jsonl(out)
    cut_arms = ["reap-general", "contextual-domain", "hc-smoe-domain", "random"]
    assert [row["arm"] for row in rows] == ["make", "mixture", "tuned", *cut_arms]
    arms = {row["arm"]: row for row in rows}
    whole, half = rows[0]["parameters"], arms["reap-general"]["parameters"]
    assert arms["tuned"]["parameters"] == whole > half
    cut = [row for row in rows[2:] if row["arm"] != "tuned"]
    assert {row["parameters"] for row in cut} == {half}
    assert all({len(kept) for kept in row["experts"]} == {2} for row in cut)
    measured = next(value for name, value in arms["random"]["measured"].items() if "bits_per_byte" in name)
    assert set(module.REFERENCES) <= set(measured) and measured["low"] <= measured["value"] <= measured["high"]
    own = next(value for name, value in arms["reap-general"]["measured"].items() if "bits_per_byte" in name)
    assert own["reap-general"]["ratio"] == 1.0
    module.main()
    assert read_jsonl(out) == rows
