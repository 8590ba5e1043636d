"""Options of a sweep, and the points that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minigpt.assets import DEFAULT_BASE
from minigpt.errors import ConfigError
from minigpt.methods import method_named
from minigpt.pipeline import BuildOptions

Healing = Literal["none", "preset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One build of a sweep.

    Attributes:
        method: Method that ranks the units.
        size: Target size as a fraction of the parent's parameters.
        seed: Seed of the build.
        healing: `preset` heals as the preset says, `none` stops after pruning.
        masked: Evaluate the method's paper form in memory instead of building a model.
    """

    method: str
    size: float
    seed: int
    healing: Healing
    masked: bool = False

    @property
    def id(self) -> str:
        """Name of the point and its folder, e.g. `flap-0.75-s0-none`."""
        suffix = "-masked" if self.masked else ""
        return f"{self.method}-{self.size:g}-s{self.seed}-{self.healing}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """Options of `minigpt sweep`; those that `minigpt build` has too mean the same.

    Attributes:
        domains: Domains to sweep.
        methods: Methods to compare.
        sizes: Target sizes as fractions of the parent's parameters.
        base: Reference of the parent.
        seeds: Number of seeds (0, 1, ...) with which each point is repeated. They change random scores and the order of
            healing, not the splits of the text; a point in which nothing is random is built once.
        healing: `preset` heals each point as the preset says, `none` stops after pruning.
        preset: Preset of the builds.
        output_dir: Folder of the sweep.
        device: A torch device or "auto".
        dtype: Type in which the models are saved.
        overrides: Settings that replace those of the preset.
        online: Also use the domains' Hub data sets.
        pictures: Draw the pictures and the page (needs matplotlib).
        masked: Evaluate every method's paper form. Methods that make no model of stock classes are always evaluated
            so.

    Raises:
        ConfigError: No domains, methods or sizes; a size or a number of seeds out of range; or healing of paper forms,
            which are never saved.
    """

    domains: tuple[str, ...]
    methods: tuple[str, ...]
    sizes: tuple[float, ...]
    base: str = DEFAULT_BASE
    seeds: int = 1
    healing: Healing = "none"
    preset: str = "quick"
    output_dir: Path = Path("runs/sweep")
    device: str = "auto"
    dtype: str = "bfloat16"
    overrides: Mapping[str, str] = field(default_factory=dict)
    online: bool = False
    pictures: bool = True
    masked: bool = False

    def __post_init__(self) -> None:
        if not (self.domains and self.methods and self.sizes):
            raise ConfigError("A sweep needs at least one domain, one method and one size.")
        if self.seeds < 1:
            raise ConfigError(f"seeds must be 1 or more, not {self.seeds}.")
        if self.masked and self.healing != "none":
            raise ConfigError(
                "Paper forms (--masked) are not saved and cannot be healed. Leave out --masked or --healing."
            )
        if wrong := [size for size in self.sizes if not 0 < size <= 1]:
            raise ConfigError(f"{wrong[0]} is not a fraction of parameters to keep. Write it like 0.75.")

    def build_options(self, domain: str) -> BuildOptions:
        """Make the build options that all points of a domain share; each point sets its method, size and seed."""
        return BuildOptions(
            domains=(domain,),
            base=self.base,
            target_size=max(self.sizes),
            method=self.methods[0],
            masked=self.masked or not method_named(self.methods[0]).ships,
            preset=self.preset,
            output_dir=self.output_dir,
            device=self.device,
            dtype=self.dtype,
            overrides=self.overrides,
            online=self.online,
        )

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, from large to small sizes, so that an interrupted sweep has the large sizes of every method."""
        return tuple(
            self._point(method, size, seed)
            for size in sorted(set(self.sizes), reverse=True)
            for method in dict.fromkeys(self.methods)
            for seed in range(self.seeds if self._varies(method) else 1)
        )

    def _point(self, method: str, size: float, seed: int) -> Point:
        """Make a point; paper forms are never healed."""
        masked = self.masked or not method_named(method).ships
        return Point(method=method, size=size, seed=seed, healing="none" if masked else self.healing, masked=masked)

    def _varies(self, method: str) -> bool:
        """Check whether a seed changes the results of a method."""
        return self.healing != "none" or "seed" in method_named(method).options
