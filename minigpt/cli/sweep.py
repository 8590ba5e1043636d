"""Command `minigpt sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.build import check_names
from minigpt.cli.common import Session, examples, online, standard
from minigpt.cli.params import Fractions, NameList, crew_of, given_of, overrides, workers

if TYPE_CHECKING:
    from minigpt.sweep import SweepOptions

# Options that a sweep without a recipe needs, by their names here.
NEEDED = {"domains": "--domain", "methods": "--methods", "sizes": "--sizes"}


@click.command(
    epilog=examples(
        "minigpt sweep --domain medical --methods contextual,flap,random --sizes 0.9,0.75,0.5",
        "minigpt sweep --domain medical --domain law --methods contextual --sizes 0.9,0.6 --healing preset",
        "minigpt sweep --domain law --methods random --sizes 0.75 --seeds 3 --no-pictures --json",
        "minigpt sweep --domain law --methods flap,random --sizes 0.9,0.75 --healing preset --workers 4",
        "minigpt sweep runs/sweep/recipe.yaml --output-dir runs/again",
    )
)
@click.argument("recipe", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--domain",
    "domains",
    multiple=True,
    metavar="NAME|FILE",
    help="Domain to build: a name from `minigpt domains list`, or a YAML file. Repeat for several.",
)
@click.option(
    "--methods",
    type=NameList(),
    metavar="A,B,...",
    help="Pruning methods: names from `minigpt methods`.",
)
@click.option("--sizes", type=Fractions(), metavar="0.9,0.75,...", help="Fractions of parameters to keep.")
@click.option("--seeds", type=click.IntRange(min=1), help="Number of seeds for each point that depends on chance [1].")
@click.option(
    "--healing",
    type=click.Choice(["none", "preset"]),
    help="Healing of each point: none, or as the preset does [none].",
)
@click.option("--base", metavar="REF", help="Parent: folder, Hub id, GGUF file or pypi: asset [SmolLM2-135M-Instruct].")
@click.option(
    "--preset", type=click.Choice(["quick", "standard", "thorough"]), help="Amount of work for each point [quick]."
)
@click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder to write [runs/sweep].")
@click.option("--device", metavar="NAME", help="Device: auto, cpu, cuda, cuda:1 or mps [auto].")
@overrides("heal.steps=50")
@click.option(
    "--paper-form",
    "--masked",
    "masked",
    is_flag=True,
    help="Evaluate the methods' paper forms in memory, without healing.",
)
@click.option(
    "--pictures/--no-pictures", default=None, help="Whether to draw plots and a page, which needs matplotlib [yes]."
)
@workers("the points")
@online
@standard
def sweep(session: Session, *, recipe: Path | None, **options: Any) -> None:
    """Build specialists with several methods and sizes, and show which of them pay off.

    RECIPE is a recipe.yaml that a sweep left; options given beside it take precedence. Without one, --domain, --methods
    and --sizes are needed.

    A point is one method at one size with one seed. Text, statistics and the parent's evaluation are shared by all
    points. Every point is written when it is done; the same command again continues after the last one.

    A sweep leaves a report for each point, points.jsonl, sweep.json, recipe.yaml, index.html and plots, but no models.
    Build the model you want with `minigpt build`.
    """
    crew = crew_of(options.pop("workers"), options.pop("worker_options"))
    pictures = options.pop("pictures")
    given = given_of(options) | ({} if pictures is None else {"pictures": pictures})
    sweep_options = options_of(recipe, given)
    if recipe is not None:
        for method in sweep_options.methods:
            check_names(sweep_options.domains, method)
    from minigpt.sweep import sweep as run
    from minigpt.sweep.chart import render_sweep

    result = run(sweep_options, session.reporter, workers=crew)
    session.show(result, lambda: render_sweep(result))


def options_of(recipe: Path | None, given: dict[str, Any]) -> SweepOptions:
    """The options of a recipe, if there is one, with those given beside it put in."""
    if recipe is None and (missing := next((name for name in NEEDED if name not in given), None)):
        raise click.UsageError(f"Missing option '{NEEDED[missing]}': give it, or a recipe file.")
    if recipe is None:  # before torch is loaded: names that do not exist are refused at once
        for method in given["methods"]:
            check_names(given["domains"], method)
    from minigpt.pipeline.rebasing import rebased
    from minigpt.recipes import with_changes
    from minigpt.sweep import SweepOptions
    from minigpt.sweep.recipe import read_sweep_recipe

    return SweepOptions(**given) if recipe is None else with_changes(rebased(read_sweep_recipe(recipe), given), given)
