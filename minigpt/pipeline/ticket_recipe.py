"""Recipe files of lottery tickets: `minigpt lottery RECIPE` repeats the search that wrote one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from minigpt.assets import DEFAULT_BASE
from minigpt.domain.config import resolved_yaml
from minigpt.errors import ConfigError
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.rebasing import rebased
from minigpt.pipeline.recipe import COMMENTS, absolute_base, all_settings, flatten_settings
from minigpt.pipeline.run import Run
from minigpt.planning.target import parse_fraction
from minigpt.recipes import RECIPE, beside, read_strictly, with_changes, with_comments

# Comment at the top of a recipe file.
HEAD = """\
# The recipe of a lottery ticket. This repeats it:
#   minigpt lottery recipe.yaml --output-dir DIR
# Keys that are left out take their defaults. Paths are relative to this file.
"""
# Comments above the keys that a recipe of a build has not.
OWN_COMMENTS = {
    "domain": "A name of `minigpt domains list` or a file.",
    "pattern": "Where kept weights lie: global, lamp, layer, or N:M such as '2:4', in quotes.",
    "remaining": "Share of the layers' weights that is left.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRecipe:
    """Keys of a recipe file of a ticket, with their defaults."""

    domain: str
    pattern: str = "layer"
    remaining: float | str = 0.3
    base: str = DEFAULT_BASE
    preset: Literal["quick", "standard", "thorough"] = "quick"
    dtype: str = "bfloat16"
    seed: int = 0
    device: str = "auto"
    online: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketOptions:
    """Options of a search for a ticket.

    Attributes:
        build: domain, parent, preset, folder and settings.
        pattern: where kept weights lie.
        remaining: share of the layers' weights that is left.
    """

    build: BuildOptions
    pattern: str = "layer"
    remaining: float = 0.3

    def with_changes(self, given: Mapping[str, Any]) -> TicketOptions:
        """Replace options by those that the user gave; settings are merged one by one.

        Args:
            given: fields of :class:`BuildOptions`, `pattern` and `remaining`.
        """
        own = {name: given[name] for name in ("pattern", "remaining") if name in given}
        changes = {name: value for name, value in given.items() if name not in own}
        return replace(self, build=with_changes(rebased(self.build, changes), changes), **own)


def read_ticket_recipe(path: Path | str) -> TicketOptions:
    """Read the recipe file of a ticket strictly.

    Raises:
        ConfigError: there is no such file, or a key or a value is wrong.
        MiniGPTError: it lies where a search left it, and is not what the search wrote.
    """
    path = Path(path)
    recipe = read_strictly(path, TicketRecipe, "`domain: medical`; every ticket has one")
    if recipe.domain == "all":
        raise ConfigError(f"{path}: a ticket is of one domain, not of all.")
    options = BuildOptions(
        domains=(beside(path, recipe.domain),),
        base=beside(path, recipe.base),
        preset=recipe.preset,
        dtype=recipe.dtype,
        seed=recipe.seed,
        device=recipe.device,
        online=recipe.online,
        overrides=flatten_settings(recipe.settings),
    )
    return TicketOptions(build=options, pattern=recipe.pattern, remaining=parse_fraction(recipe.remaining))


def ticket_files(run: Run, pattern: str, remaining: float) -> dict[str, str]:
    """Write the texts that repeat a search: the recipe, and the resolved domain that it names."""
    options = run.options
    values: dict[str, Any] = {
        "domain": "domain.yaml",
        "pattern": pattern,
        "remaining": remaining,
        "base": absolute_base(options.base),
        "preset": options.preset,
        "dtype": options.dtype,
        "seed": options.seed,
        "device": options.device,
        "online": False,  # domain.yaml already turns on the Hub data sets that were read
        "settings": all_settings(run.settings),
    }
    return {"domain.yaml": resolved_yaml(run.domain), RECIPE: with_comments(HEAD, values, COMMENTS | OWN_COMMENTS)}
