"""What a sweep may be told, and the points that follow from it."""

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
    """One build of a sweep; `size` is the fraction of parameters asked for, `masked` a method's own form."""

    method: str
    size: float
    seed: int
    healing: Healing
    masked: bool = False

    @property
    def id(self) -> str:
        """Names the point and its folder, e.g. `flap-0.75-s0-none`."""
        form = "-masked" if self.masked else ""
        return f"{self.method}-{self.size:g}-s{self.seed}-{self.healing}{form}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """Options of `minigpt sweep`; those it shares with `minigpt build` mean the same.

    `seeds` is how many seeds (0, 1, ...) each point is repeated with. Splits of the text do not change with them, only
    random scores and the order of healing: where neither is at work one seed is enough and one is taken. `masked`
    evaluates every method's own form; methods that make no model of stock classes are evaluated so in any case.

    Raises:
        ConfigError: no methods, no sizes, a size outside its range, or healing of what is never saved.
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
            raise ConfigError("Masked forms are not saved and cannot be healed; drop --masked or --healing.")
        if wrong := [size for size in self.sizes if not 0 < size <= 1]:
            raise ConfigError(f"{wrong[0]} is not a fraction of parameters to keep; write it like 0.75.")

    def build_options(self, domain: str) -> BuildOptions:
        """What all points of a domain are built with; method, size and seed are put in point by point."""
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
        """Every point, sizes from large to small, so that a sweep that is cut short has the mild ones of all."""
        return tuple(
            self._point(method, size, seed)
            for size in sorted(set(self.sizes), reverse=True)
            for method in dict.fromkeys(self.methods)
            for seed in range(self.seeds if self._varies(method) else 1)
        )

    def _point(self, method: str, size: float, seed: int) -> Point:
        masked = self.masked or not method_named(method).ships
        return Point(method=method, size=size, seed=seed, healing="none" if masked else self.healing, masked=masked)

    def _varies(self, method: str) -> bool:
        return self.healing != "none" or "seed" in method_named(method).options
