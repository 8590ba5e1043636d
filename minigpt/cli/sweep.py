"""`minigpt sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minigpt.cli.build import check_names
from minigpt.cli.common import Session, examples, online, standard
from minigpt.cli.params import Fractions, Words, pairs


@click.command(
    epilog=examples(
        "minigpt sweep --domain medical --methods contextual,flap,random --sizes 0.9,0.75,0.5",
        "minigpt sweep --domain medical --domain law --methods contextual --sizes 0.9,0.6 --healing preset",
        "minigpt sweep --domain law --methods random --sizes 0.75 --seeds 3 --no-pictures --json",
    )
)
@click.option("--domain", "domains", multiple=True, required=True, metavar="NAME|FILE", help="Specialty; repeats.")
@click.option("--methods", type=Words(), required=True, metavar="A,B,...", help="See `minigpt methods`.")
@click.option(
    "--sizes", type=Fractions(), required=True, metavar="0.9,0.75,...", help="Fractions of parameters to keep."
)
@click.option("--seeds", type=click.IntRange(min=1), help="Repeat what is random with this many seeds [1].")
@click.option("--healing", type=click.Choice(["none", "preset"]), help="Heal each point as the preset does [none].")
@click.option("--base", metavar="REF", help="Parent: folder, Hub id, GGUF file or pypi: asset [SmolLM2-135M-Instruct].")
@click.option(
    "--preset", type=click.Choice(["quick", "standard", "thorough"]), help="How much work a point is [quick]."
)
@click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Where to write [runs/sweep].")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps [auto].")
@click.option(
    "--set", "overrides", multiple=True, callback=pairs, metavar="KEY=VALUE", help="E.g. heal.steps=50; repeats."
)
@click.option("--masked", is_flag=True, help="Evaluate the methods' own forms in memory, without healing.")
@click.option("--pictures/--no-pictures", default=True, help="Draw plots and a page (needs matplotlib) [yes].")
@online
@standard
def sweep(session: Session, **options: Any) -> None:
    """Build a domain's specialists with several methods and sizes, and show which are worth having.

    Text, statistics and the parent's evaluation are shared, every point is written when it is done, and the same
    command again goes on after the last one. Leaves a report for each point, points.jsonl, sweep.json, index.html and
    plots, but no models: build the one you want with `minigpt build`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for method in given["methods"]:
        check_names(given["domains"], method)
    from minigpt.sweep import SweepOptions
    from minigpt.sweep import sweep as run
    from minigpt.sweep.chart import render_sweep

    found = run(SweepOptions(**given), session.reporter)
    session.show(found, lambda: render_sweep(found))
