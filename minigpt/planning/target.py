"""The size a user asks for, as a number of parameters."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.errors import PlanError

DEFAULT_SIZE = 0.75
HEADER_BYTES = 40_000
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """At most one of: `size`, the fraction of parameters kept; `params`; `bytes` of model.safetensors.

    Raises:
        PlanError: more than one is given.
    """

    size: float | None = None
    params: int | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.size, self.params, self.bytes)) > 1:
            raise PlanError("A target is a fraction, a number of parameters or a number of bytes; give one of them.")

    @property
    def fraction(self) -> float:
        """The fraction kept if neither parameters nor bytes are given."""
        return DEFAULT_SIZE if self.size is None else self.size

    def __str__(self) -> str:
        if self.params is not None:
            return f"{self.params:,} parameters"
        if self.bytes is not None:
            return f"{self.bytes:,} bytes"
        return f"{float(f'{100 * self.fraction:.10g}')}% of the parameters"

    def parameters(self, parent: int, dtype: str, *, header: int = HEADER_BYTES) -> int:
        """Parameters to keep of a parent with `parent` parameters when weights are saved as `dtype`.

        Args:
            parent: parameters of the parent.
            dtype: a key of `DTYPE_BYTES`.
            header: bytes of the file that hold no weights.

        Raises:
            PlanError: nothing or too much would be removed.
        """
        if self.params is not None:
            wanted = self.params
        elif self.bytes is not None:
            wanted = (self.bytes - header) // DTYPE_BYTES[dtype]
        else:
            wanted = round(self.fraction * parent)
        if wanted <= 0:
            raise PlanError(f"The target of {self} leaves no parameters of {parent:,}. Ask for more.")
        if wanted > parent:
            raise PlanError(f"The target of {self} is {wanted:,} parameters; the parent has {parent:,}. Ask for less.")
        return wanted
