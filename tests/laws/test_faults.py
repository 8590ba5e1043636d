"""Nothing is lost and nothing is silently wrong: builds that are killed, or find the disk full or their files damaged.

The short form strikes a few times. The long form (`-m slow`) strikes as often as MINIGPT_FAULTS says, and appends every
fault that ended badly to faults.jsonl, which the short form repeats from then on.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.assets.test_gguf import write_gguf
from tests.support.faults import Fault, Ground, make_ground, try_fault
from tests.support.worlds import make_world

SEEDS = Path(__file__).with_name("faults.jsonl")
KINDS = ("kill", "full", "broken", "flip", "cut")
SETTINGS = {"heal.steps": "2", "heal.evaluate_every": "1", "repair.tokens": "0", "evaluation.sample_tokens": "0"}
LONG = int(os.environ.get("MINIGPT_FAULTS", "500"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A tiny build from a GGUF parent, so that a conversion is kept, too."""
    from minigpt.assets import load_model, load_tokenizer

    torch.set_num_threads(1)  # a forked process has no other thread
    root = tmp_path_factory.mktemp("faults")
    world = make_world(root / "world")
    tokenizer = load_tokenizer(world.base)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    values = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token.startswith("<|") else 1 for token in tokens],
        "tokenizer.ggml.merges": [part if isinstance(part, str) else " ".join(part) for part in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
    }
    path = write_gguf(root / "parent.gguf", load_model(world.base), values)
    before = os.environ["MINIGPT_HOME"]
    try:
        yield make_ground(world.options("unused", base=str(path), overrides=SETTINGS), root / "run")
    finally:
        os.environ["MINIGPT_HOME"] = before


def remembered() -> list[Fault]:
    """Faults that once ended badly."""
    lines = SEEDS.read_text("utf-8").splitlines() if SEEDS.exists() else []
    return [Fault(kind=row["kind"], seed=row["seed"]) for row in map(json.loads, lines)]


SHORT = [Fault(kind=kind, seed=seed) for seed, kind in enumerate(KINDS)]


@pytest.mark.parametrize("fault", [*SHORT, *remembered()], ids=lambda fault: f"{fault.kind}-{fault.seed}")
def test_the_same_command_ends_as_if_nothing_had_happened(ground: Ground, fault: Fault) -> None:
    row = try_fault(ground, fault, ground.whole.with_name("run"))
    assert row["end"] in ("same", "sentence"), row


@pytest.mark.slow
def test_hundreds_of_faults(ground: Ground) -> None:
    counts: Counter[str] = Counter()
    bad = []
    first = 1000 + len(remembered())
    for number in range(LONG):
        row = try_fault(ground, Fault(kind=KINDS[number % 5], seed=first + number), ground.whole.with_name("run"))
        counts[f"{row['kind']}: {row['end']}"] += 1
        print(json.dumps(row), flush=True)
        if row["end"] not in ("same", "sentence"):
            bad.append(row)
            with SEEDS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"kind": row["kind"], "seed": row["seed"]}) + "\n")
    print(json.dumps({"operations": ground.operations, **dict(sorted(counts.items()))}, indent=1))
    assert not bad, bad
