"""The large presets as they are, all their stages together, with small numbers in place of large ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minigpt.pipeline import sampling
from minigpt.pipeline.settings import PRESETS
from tests.support.building import build
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")

SMALL = {
    "corpus.relevance": "false",
    "evaluation.sample_tokens": "0",
    "evaluation.questions": "4",
    "plan.tokens": "512",
    "plan.probe_tokens": "256",
    "plan.sensitivity": "measure",
    "repair.tokens": "512",
    "text.sampled": "6",
    "tune.steps": "2",
    "tune.tokens_per_step": "256",
    "tune.window": "64",
    "heal.steps": "3",
    "heal.tokens_per_step": "512",
    "heal.window": "64",
    "heal.warmup": "1",
}


@pytest.mark.parametrize("preset", ["standard", "thorough"])
def test_a_large_preset_runs_from_end_to_end(preset: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tuned parent read at least what healing read, the rate grows where it should, the size is as asked for."""
    written: list[int] = []
    real = sampling.write_passages

    def counted(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        written.append(len(found))
        return found

    monkeypatch.setattr(sampling, "LENGTH", 40)
    monkeypatch.setattr(sampling, "write_passages", counted)
    options = world.options(f"preset-{preset}", overrides=None, preset=preset, target_size=0.8)
    report = build(replace(options, overrides=SMALL))
    healed, tuned = report.stage("healed"), report.stage("parent_tuned")
    assert healed is not None and tuned is not None and healed.training is not None and tuned.training is not None
    assert tuned.training.tokens >= healed.training.tokens > 0
    rate = PRESETS[preset].heal.learning_rate
    grown = PRESETS[preset].heal.growth > 1
    assert (healed.training.learning_rate > rate) is grown
    assert len(written) == 1 and 0 < written[0] <= 6
    assert report.preset == preset and 0.75 < healed.parameters / report.stages[0].parameters <= 0.81
