"""Recipes of lottery tickets: what they say, and that the search of a recipe is the one that wrote it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from minigpt.errors import ConfigError
from minigpt.pipeline import BuildOptions, lottery
from minigpt.pipeline.lottery import TicketReport, find_ticket
from minigpt.pipeline.ticket_recipe import TicketOptions, read_ticket_recipe
from tests.support.commands import run
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")
SMALL = {
    "lottery.rounds": "2",
    "lottery.steps": "2",
    "evaluation.general": "false",
    "tuned_parent": "false",
}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_recipe_says_what_options_say(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.yaml", "domain: law\npattern: '2:4'\nremaining: 50%\nseed: 3\nsettings: {heal.steps: 5}\n"
    )
    build = BuildOptions(domains=("law",), seed=3, overrides={"heal.steps": "5"})
    assert read_ticket_recipe(path) == TicketOptions(build=build, pattern="2:4", remaining=0.5)
    with pytest.raises(ConfigError, match="one domain"):
        read_ticket_recipe(write(tmp_path / "r.yaml", "domain: all\n"))
    with pytest.raises(ConfigError, match="unknown key 'method'"):
        read_ticket_recipe(write(tmp_path / "r.yaml", "domain: law\nmethod: flap\n"))


@pytest.mark.parametrize(("pattern", "share"), [("global", 0.4), ("2:4", 0.5)])
def test_a_ticket_leaves_the_recipe_that_repeats_it(
    world: World, tmp_path: Path, made: Counter[str], pattern: str, share: float
) -> None:
    options = world.options(f"repeats-{share}", overrides=SMALL, seed=1)
    first = find_ticket(options, pattern, 0.4)
    folder = world.root / f"repeats-{share}"
    again = read_ticket_recipe(folder / "recipe.yaml")
    assert (again.pattern, again.remaining, again.build.seed) == (pattern, share, 1)
    (folder / "recipe.yaml").write_text("domain: law\n")
    made.clear()
    assert find_ticket(replace(again.build, output_dir=folder), pattern, share) == first
    assert not made and read_ticket_recipe(folder / "recipe.yaml") == again, "finished; the recipe is written again"
    second = find_ticket(replace(again.build, output_dir=tmp_path / "t"), pattern, share)
    assert second.key == first.key and second.stored == first.stored
    assert [stage.metrics for stage in second.stages] == [stage.metrics for stage in first.stages]


def test_the_command_takes_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[object] = []

    def note(options: BuildOptions, pattern: str, remaining: float, _: object) -> TicketReport:
        received.extend((options, pattern, remaining))
        raise ConfigError("Stop.")

    monkeypatch.setattr(lottery, "find_ticket", note)
    path = write(tmp_path / "r.yaml", "domain: law\npattern: layer\nseed: 3\nsettings: {heal.steps: 5}\n")
    run("lottery", str(path), "--seed", "0", "--set", "heal.warmup=7", "--remaining", "0.5")
    overrides = {"heal.steps": "5", "heal.warmup": "7"}
    expected = BuildOptions(domains=("law",), overrides=overrides, output_dir=Path("runs/law-ticket"))
    assert received == [expected, "layer", 0.5]
