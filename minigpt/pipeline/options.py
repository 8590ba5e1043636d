"""What a build may be told, as the command line and Python callers give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.assets import DEFAULT_BASE
from minigpt.errors import PlanError, UnknownName
from minigpt.methods import method_named
from minigpt.planning import Target
from minigpt.planning.target import DEFAULT_SIZE, DTYPE_BYTES

KINDS = ("linear", "activation", "embedding")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options of `minigpt build`; the contract explains each.

    `kinds` None means everything may go, whole layers included; otherwise only the kinds named. `masked` evaluates
    the method's own form in memory and writes a report without a model.

    Raises:
        UnknownName: no such method, kind or dtype.
        PlanError: more than one target, or a method that makes no model is to make one.
    """

    domains: tuple[str, ...]
    base: str = DEFAULT_BASE
    target_size: float | None = None
    target_params: int | None = None
    target_bytes: int | None = None
    method: str = "contextual"
    preset: str = "quick"
    output_dir: Path | None = None
    device: str = "auto"
    dtype: str = "bfloat16"
    seed: int = 0
    overrides: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] | None = None
    online: bool = False
    plan_only: bool = False
    masked: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        for kind in self.kinds or ():
            if kind not in KINDS:
                raise UnknownName("kind of pruning", kind, KINDS)
        if self.dtype not in DTYPE_BYTES:
            raise UnknownName("dtype", self.dtype, DTYPE_BYTES)
        _ = self.target
        method = method_named(self.method)
        if not (method.ships or self.masked):
            raise PlanError(f"{method.name} makes no model that plain transformers loads; evaluate it with --masked.")

    @property
    def target(self) -> Target:
        """The size asked for; 0.75 of the parameters unless said otherwise."""
        size = self.target_size
        if size is None and self.target_params is None and self.target_bytes is None:
            size = DEFAULT_SIZE
        return Target(size=size, params=self.target_params, bytes=self.target_bytes)

    def folder(self, domain: str) -> Path:
        """Where the build of one domain goes."""
        if self.output_dir is None:
            return Path("runs") / domain
        return self.output_dir if len(self.domains) == 1 and self.domains[0] != "all" else self.output_dir / domain
