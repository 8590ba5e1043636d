"""Recipes of sweeps: what they say, and that the sweep of a recipe is the one that wrote it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from minigpt import sweep as package
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.files import read_jsonl
from minigpt.sweep import SweepOptions, sweep
from minigpt.sweep.recipe import read_sweep_recipe
from tests.support.commands import run
from tests.support.worlds import SMALL, World

pytestmark = pytest.mark.usefixtures("home")
FAST = {**SMALL, "repair.tokens": "0", "evaluation.sample_tokens": "0"}


def test_a_recipe_says_what_options_say(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "domain: [law, tax]\nmethods: [flap]\nsizes: [90%, 0.5]\nseeds: 2\nhealing: preset\n"
        "pictures: false\nsettings: {heal: {steps: 5}}\n"
    )
    assert read_sweep_recipe(tmp_path / "recipe.yaml") == SweepOptions(
        domains=("law", "tax"),
        methods=("flap",),
        sizes=(0.9, 0.5),
        seeds=2,
        healing="preset",
        pictures=False,
        overrides={"heal.steps": "5"},
    )
    (tmp_path / "recipe.yaml").write_text("domain: law\nmethods: [flap]\nsizes: [90%]\nhealing: all\n")
    with pytest.raises(ConfigError, match="healing"):
        read_sweep_recipe(tmp_path / "recipe.yaml")


def test_a_sweep_leaves_the_recipe_that_repeats_it(world: World, tmp_path: Path, made: Counter[str]) -> None:
    options = SweepOptions(
        domains=(str(world.domain),),
        methods=("random",),
        sizes=(0.9,),
        base=str(world.base),
        device="cpu",
        output_dir=tmp_path / "sweep",
        overrides=FAST,
        pictures=False,
    )
    first = sweep(options)
    again = read_sweep_recipe(tmp_path / "sweep" / "recipe.yaml")
    assert again.pictures is False and again.sizes == (0.9,) and Path(again.domains[0]).name == "domain.yaml"
    made.clear()
    assert sweep(replace(again, output_dir=options.output_dir)) == first
    assert not made, "the same folder: nothing is built again"
    sweep(replace(again, output_dir=tmp_path / "again"))
    lines = [read_jsonl(tmp_path / name / "points.jsonl")[0] for name in ("sweep", "again")]
    assert lines[0]["key"] == lines[1]["key"] and lines[0]["scores"] == lines[1]["scores"]
    recipe = tmp_path / "sweep" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("0.9", "0.8"))
    with pytest.raises(MiniGPTError, match="is damaged"):
        read_sweep_recipe(recipe)


def test_the_command_takes_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[SweepOptions] = []

    def stop(options: SweepOptions, *_: object, **__: object) -> None:
        received.append(options)
        raise MiniGPTError("Stop.")

    monkeypatch.setattr(package, "sweep", stop)
    values = {"domain": "law", "methods": ["flap"], "sizes": [0.5], "pictures": False, "settings": {"heal.steps": 5}}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(values))
    run("sweep", str(path), "--set", "heal.warmup=7", "--sizes", "0.8", "--output-dir", "there")
    assert received == [
        SweepOptions(
            domains=("law",),
            methods=("flap",),
            sizes=(0.8,),
            pictures=False,
            overrides={"heal.steps": "5", "heal.warmup": "7"},
            output_dir=Path("there"),
        )
    ]
    refused = run("sweep", "--domain", "law", "--methods", "flap")
    assert refused.exit_code == 2 and "--sizes" in refused.output
