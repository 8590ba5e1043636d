"""The size a user asks for, as a number of parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minigpt.errors import ConfigError, PlanError

# Fraction of the parameters that is kept where no target is given.
DEFAULT_SIZE = 0.75
# Bytes of a weights file that hold no weights, where they are not known.
HEADER_BYTES = 40_000
# Bytes of one weight, by the type that weights are saved as.
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target size, in one of three units; without any of them it is `DEFAULT_SIZE`.

    Attributes:
        size: fraction of the parameters to keep.
        params: number of parameters to keep.
        bytes: size of `model.safetensors` in bytes.

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
        """Fraction to keep, where neither parameters nor bytes are given."""
        return DEFAULT_SIZE if self.size is None else self.size

    def __str__(self) -> str:
        if self.params is not None:
            return f"{self.params:,} parameters"
        if self.bytes is not None:
            return f"{self.bytes:,} bytes"
        return f"{float(f'{100 * self.fraction:.10g}')}% of the parameters"

    def parameters(self, parent: int, dtype: str, *, header: int = HEADER_BYTES) -> int:
        """Convert the target to a number of parameters to keep.

        Args:
            parent: parameters of the parent.
            dtype: type that weights are saved as, a key of `DTYPE_BYTES`.
            header: bytes of the file that hold no weights.

        Raises:
            PlanError: nothing or too much would be removed.
        """
        if self.params is not None:
            target = self.params
        elif self.bytes is not None:
            target = (self.bytes - header) // DTYPE_BYTES[dtype]
        else:
            target = round(self.fraction * parent)
        if target <= 0:
            raise PlanError(f"The target of {self} leaves no parameters of {parent:,}. Ask for more.")
        if target > parent:
            raise PlanError(f"The target of {self} is {target:,} parameters; the parent has {parent:,}. Ask for less.")
        return target


# Factors of the suffixes of counts and of decimal byte units.
DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
# Factors of binary byte units.
BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_amount(value: int | str, *, unit: str = "") -> int:
    """Read a count such as `100M`, or with `unit="b"` a number of bytes such as `150MB` or `143MiB`.

    Raises:
        ConfigError: the text is not a positive amount.
    """
    if isinstance(value, int):
        return value
    text = value.strip().lower().replace("_", "").replace(",", "")
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", text)
    scale = _scale(match[2], unit) if match else None
    amount = round(float(match[1]) * scale) if match and scale else 0
    if amount <= 0:
        example = "150MB, 143MiB or 150000000" if unit else "100M, 0.5B or 100000000"
        raise ConfigError(f"{value!r} is not a size: write it like {example}.")
    return amount


def _scale(suffix: str, unit: str) -> int | None:
    """Return the factor of a suffix; None if it is unknown."""
    if unit and suffix.endswith(unit):
        return (DECIMAL | BINARY).get(suffix.removesuffix(unit))
    return DECIMAL.get(suffix)


def parse_fraction(value: float | str) -> float:
    """Read the fraction of parameters to keep: `0.75` or `75%`.

    Raises:
        ConfigError: the value is no number above 0 and at most 1.
    """
    try:
        number = float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise ConfigError(f"{value!r} is not a fraction of parameters to keep: write it like 0.75 or 75%.")
    return number
