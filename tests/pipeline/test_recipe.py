"""A build as a file: read strictly, merged with options, left by every build, and repeating it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import minigpt
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.finish import write_recipe
from minigpt.pipeline.recipe import flatten_settings, read_recipe, with_changes
from minigpt.pipeline.run import build_key, resolve_run
from minigpt.pipeline.settings import settings_for
from minigpt.progress import SILENT
from tests.support.building import FAST, build, folder_of
from tests.support.commands import run
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_says_what_options_say(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine")
    path = write(
        tmp_path / "recipe.yaml",
        "domain: [mine.yaml, law]\nsize: 60%\nmethod: wanda\nkinds: [linear]\npreset: standard\nseed: 3\n"
        "keep_general: 1.05\nsettings:\n  heal: {steps: 50, learning_rate: 1e-5}\n  plan.contrast: 0.5\n"
        "  tuned_parent: false\n  text: {dev_bytes: null}\n",
    )
    assert read_recipe(path) == BuildOptions(
        domains=(str(tmp_path / "mine.yaml"), "law"),
        target_size=0.6,
        method="wanda",
        kinds=("linear",),
        preset="standard",
        seed=3,
        keep_general=1.05,
        overrides={
            "heal.steps": "50",
            "heal.learning_rate": "1e-5",
            "plan.contrast": "0.5",
            "tuned_parent": "false",
            "text.dev_bytes": "null",
        },
    )
    assert read_recipe(write(tmp_path / "b.yaml", "domain: law\nbytes: 150MB\n")).target_bytes == 150_000_000
    assert read_recipe(write(tmp_path / "p.yaml", "domain: law\nparams: 100M\n")).target_params == 100_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("domain: law\npresett: quick\n", "unknown key 'presett'. Did you mean 'preset'"),
        ("domain: law\npreset: fast\n", "preset"),
        ("size: 0.5\n", "domain is missing"),
        ("domain: law\nsize: 75\n", "not a fraction"),
        ("domain: law\nparams: many\n", "not a size"),
        ("domain: law\n\tsize: 1\n", "line 2"),
        ("- law\n", "a recipe is a mapping"),
        ("domain: law\nsettings: {heal: {step: 50}}\n", "Did you mean 'heal.steps'"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "recipe.yaml", text)
    with pytest.raises(MiniGPTError, match=said):
        options = read_recipe(path)
        settings_for(options.preset, options.overrides)
    with pytest.raises(ConfigError, match="No such recipe"):
        read_recipe(tmp_path / "none.yaml")


def test_options_beside_a_recipe_take_precedence() -> None:
    base = BuildOptions(domains=("law",), target_size=0.6, overrides={"heal.steps": "5", "seed": "1"})
    changed = with_changes(base, {"target_params": 100, "overrides": {"heal.steps": "7"}, "seed": 4})
    assert changed == replace(
        base, target_size=None, target_params=100, overrides={"heal.steps": "7", "seed": "1"}, seed=4
    )


@pytest.mark.parametrize("value", [None, True, 3, 1e-5, "text", ["a", 1.5]])
def test_any_value_survives_as_an_override(value: Any) -> None:
    (text,) = flatten_settings({"a": {"b": value}}).values()
    assert yaml.safe_load(text) == value or float(text) == value


@pytest.mark.parametrize("overrides", [{}, {**CONTROL, "tune.steps": "1", "repair.ridge": "0.01"}])
def test_every_build_leaves_the_recipe_that_repeats_it(world: World, tmp_path: Path, overrides: dict[str, str]) -> None:
    """The same settings, the same folder finished at once, another folder with the same plan and numbers."""
    options = world.options(f"recipe-{len(overrides)}", overrides={**FAST, **overrides}, kinds=("linear", "embedding"))
    done = build(options)
    path = folder_of(options) / "recipe.yaml"
    assert path.read_text("utf-8").startswith("# The recipe of a minigpt build.")
    repeated = read_recipe(path)
    assert settings_for(repeated.preset, repeated.overrides) == settings_for(options.preset, options.overrides)
    assert build(replace(repeated, output_dir=folder_of(options))) == done, "finished: nothing is built again"
    again = build(replace(repeated, output_dir=tmp_path / "again"))
    for one, other in zip(done.stages, again.stages, strict=True):
        assert one.metrics == other.metrics
    plans = [(folder / "plan.json").read_bytes() for folder in (folder_of(options), tmp_path / "again")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"delta": 0.05},
        {"conditional": "trees", "keep_general": 1.2},
        {"method": "flap", "masked": True},
        {"target_bytes": 3_000_000, "dtype": "float32", "seed": 3},
        {"target_params": 150_000, "method": "reap", "kinds": ("experts",)},
    ],
    ids=str,
)
def test_a_recipe_names_the_very_build_that_wrote_it(world: World, changes: dict[str, Any]) -> None:
    """The fingerprint of a build holds everything that decides its model; a conditional form has one of its own."""
    folder = world.root / f"names-{len(list(world.root.iterdir()))}"
    first = resolve_run(str(world.domain), world.options(folder.name, **changes), SILENT)
    write_recipe(first)
    options = replace(read_recipe(folder / "recipe.yaml"), output_dir=world.root / "unused")
    again = resolve_run(options.domains[0], options, SILENT)
    assert build_key(again) == build_key(first) and again.settings == first.settings
    assert again.options.conditional == first.options.conditional


def test_the_command_takes_a_recipe(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[BuildOptions] = []

    def stop(options: BuildOptions, **_: Any) -> None:
        received.append(options)
        raise MiniGPTError("Stop.")

    monkeypatch.setattr(minigpt, "build", stop, raising=False)
    path = write(tmp_path / "recipe.yaml", "domain: law\nsettings: {heal.steps: 5}\n")
    run("build", str(path), "--set", "heal.steps=7", "--output-dir", "there")
    assert received == [BuildOptions(domains=("law",), overrides={"heal.steps": "7"}, output_dir=Path("there"))]
    assert run("build").exit_code == 2
