"""Options of a build: the values that the command line, recipes and Python callers give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.assets import DEFAULT_BASE
from minigpt.conditional.kinds import kind_named
from minigpt.costs import Price
from minigpt.errors import ConfigError, PlanError, UnknownName
from minigpt.methods import method_named
from minigpt.planning import Target
from minigpt.planning.target import DEFAULT_SIZE, DTYPE_BYTES

# Method of a build that names none.
DEFAULT_METHOD = "contextual"

# Kinds of pruning that `kinds` may allow.
KINDS = ("linear", "activation", "embedding", "experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options of a build.

    Attributes:
        domains: names or files of domains, or a single one. `all` means every packaged one.
        base: the parent: a folder, a Hub id, a GGUF file or a packaged asset.
        target_size: fraction of the parameters to keep.
        target_params: parameters to keep.
        target_bytes: size of `model.safetensors` in bytes.
        method: a name of `minigpt methods`, or `package.module:ROW`.
        preset: amount of work: quick, standard or thorough.
        output_dir: folder to write; None means `runs/DOMAIN`.
        device: torch device, or "auto".
        dtype: type of the saved weights.
        seed: random seed.
        overrides: settings to change, e.g. `{"heal.steps": "50"}`.
        kinds: kinds of pruning that are allowed; None allows everything, whole layers included.
        keep_general: bound on general text, as a multiple of the parent's bits per byte on it.
        online: read the domain's Hub data sets too.
        delta: make a delta ticket instead of pruning: the share of the parent's weights that it may change.
        conditional: kind of conditional layers to make of the finished model, of `minigpt methods`; None makes none.
        masked: evaluate the method's paper form in memory and write a report without a model.
        force: start over instead of resuming.
        price_per_hour: price of an hour of the machine, from which the report computes the money; None computes none.

    Raises:
        ConfigError: there is no domain.
        UnknownName: there is no such method, kind, dtype or kind of conditional layer.
        PlanError: there is more than one target, a delta ticket is asked for beside a size, or the method has only a
            paper form and `masked` is off.
    """

    domains: tuple[str, ...]
    base: str = DEFAULT_BASE
    target_size: float | None = None
    target_params: int | None = None
    target_bytes: int | None = None
    method: str = DEFAULT_METHOD
    preset: str = "quick"
    output_dir: Path | None = None
    device: str = "auto"
    dtype: str = "bfloat16"
    seed: int = 0
    overrides: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] | None = None
    keep_general: float | None = None
    online: bool = False
    delta: float | None = None
    masked: bool = False
    conditional: str | None = None
    force: bool = False
    price_per_hour: Price | None = None

    def __post_init__(self) -> None:
        if isinstance(self.domains, str):  # else every letter would be read as a domain
            object.__setattr__(self, "domains", (self.domains,))
        if not self.domains:
            raise ConfigError("A build needs at least one domain; `minigpt domains list` shows them.")
        for kind in self.kinds or ():
            if kind not in KINDS:
                raise UnknownName("kind of pruning", kind, KINDS)
        if self.dtype not in DTYPE_BYTES:
            raise UnknownName("dtype", self.dtype, DTYPE_BYTES)
        _ = self.target  # refuses two targets
        self._check_delta()
        self._check_conditional()
        method = method_named(self.method)
        if not (method.ships or self.masked):
            raise PlanError(
                f"{method.name} makes no model that plain transformers loads; evaluate it with --paper-form."
            )

    def _check_conditional(self) -> None:
        """Refuse conditional layers of no known kind, or of what is no model."""
        if self.conditional is None:
            return
        kind_named(self.conditional)
        if self.dtype == "float16":
            raise PlanError("Conditional layers have no kernel for float16: choose --dtype bfloat16 or float32.")
        if self.masked or self.delta is not None:
            what = "A paper form" if self.masked else "A delta ticket"
            raise PlanError(f"{what} leaves no model that could become conditional; leave out one of the two.")

    def _check_delta(self) -> None:
        """Refuse a share of changed weights that is none, or that contradicts another option."""
        if self.delta is None:
            return
        if not 0 < self.delta <= 1:
            raise ConfigError(f"The share of changed weights must be above 0 and at most 1, not {self.delta:g}.")
        if self.masked or self.kinds or (self.target_size, self.target_params, self.target_bytes) != (None,) * 3:
            raise PlanError("A delta ticket removes nothing: leave out sizes, --kinds and --paper-form beside --delta.")
        if self.method != DEFAULT_METHOD:
            raise PlanError(
                f"A delta ticket removes nothing, so --method {self.method} would do nothing; leave it out."
            )

    @property
    def way(self) -> tuple[str, str]:
        """Method and target as a report names them."""
        if self.delta is not None:
            return "delta", f"{100 * self.delta:g} % of the weights changed"
        return self.method, str(self.target)

    @property
    def target(self) -> Target:
        """Size to reach; the default fraction where none is given."""
        size = self.target_size
        if size is None and self.target_params is None and self.target_bytes is None:
            size = DEFAULT_SIZE
        return Target(size=size, params=self.target_params, bytes=self.target_bytes)

    def folder(self, domain: str) -> Path:
        """Return the folder of the build of one domain."""
        if self.output_dir is None:
            return Path("runs") / domain
        return self.output_dir if len(self.domains) == 1 and self.domains[0] != "all" else self.output_dir / domain
