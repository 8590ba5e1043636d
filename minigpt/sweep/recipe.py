"""Recipe files of sweeps: `minigpt sweep RECIPE` repeats the sweep that wrote one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minigpt.assets import DEFAULT_BASE
from minigpt.domain.config import resolved_yaml
from minigpt.pipeline.recipe import COMMENTS, absolute_base, all_settings, flatten_settings
from minigpt.pipeline.run import Run
from minigpt.planning.target import parse_fraction
from minigpt.recipes import RECIPE, beside, read_strictly, with_comments
from minigpt.sweep.options import SweepOptions

# Comment at the top of a recipe file.
HEAD = """\
# The recipe of a minigpt sweep. This repeats it:
#   minigpt sweep recipe.yaml --output-dir DIR
# Keys that are left out take their defaults. Paths are relative to this file.
"""
# Comments above the keys that a recipe of a build has not.
OWN_COMMENTS = {
    "methods": "Names of `minigpt methods`.",
    "sizes": "Fractions of the parameters to keep.",
    "seeds": "Number of seeds for each point that depends on chance.",
    "healing": "Healing of each point: none, or as the preset does.",
    "paper_form": "Evaluate the methods' paper forms in memory, without healing.",
    "pictures": "Whether to draw plots and a page.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRecipe:
    """Keys of a recipe file of a sweep, with their defaults."""

    domain: str | tuple[str, ...]
    methods: tuple[str, ...]
    sizes: tuple[float | str, ...]
    base: str = DEFAULT_BASE
    seeds: int = 1
    healing: Literal["none", "preset"] = "none"
    preset: Literal["quick", "standard", "thorough"] = "quick"
    dtype: str = "bfloat16"
    device: str = "auto"
    online: bool = False
    paper_form: bool = False
    pictures: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_sweep_recipe(path: Path | str) -> SweepOptions:
    """Read the recipe file of a sweep strictly.

    Raises:
        ConfigError: there is no such file, or a key or a value is wrong.
        MiniGPTError: it lies where a sweep left it, and is not what the sweep wrote.
    """
    path = Path(path)
    recipe = read_strictly(path, SweepRecipe, "`domain: medical`; every sweep writes one")
    names = (recipe.domain,) if isinstance(recipe.domain, str) else recipe.domain
    return SweepOptions(
        domains=tuple(beside(path, name) for name in names),
        methods=recipe.methods,
        sizes=tuple(parse_fraction(size) for size in recipe.sizes),
        base=beside(path, recipe.base),
        seeds=recipe.seeds,
        healing=recipe.healing,
        preset=recipe.preset,
        dtype=recipe.dtype,
        device=recipe.device,
        online=recipe.online,
        masked=recipe.paper_form,
        pictures=recipe.pictures,
        overrides=flatten_settings(recipe.settings),
    )


def sweep_files(options: SweepOptions, runs: Sequence[Run]) -> dict[str, str]:
    """Write the texts that repeat a sweep: the recipe, and the resolved domains that it names.

    Args:
        options: the sweep.
        runs: the run of each of its domains.
    """
    domains = {f"{run.domain.name}/domain.yaml": resolved_yaml(run.domain) for run in runs}
    values: dict[str, Any] = {
        "domain": list(domains),
        "methods": list(options.methods),
        "sizes": list(options.sizes),
        "base": absolute_base(options.base),
        "seeds": options.seeds,
        "healing": options.healing,
        "preset": options.preset,
        "dtype": options.dtype,
        "device": options.device,
        "online": False,  # the domains' files already turn on the Hub data sets that were read
        "paper_form": options.masked,
        "pictures": options.pictures,
        "settings": all_settings(runs[0].settings),
    }
    return {**domains, RECIPE: with_comments(HEAD, values, COMMENTS | OWN_COMMENTS)}
