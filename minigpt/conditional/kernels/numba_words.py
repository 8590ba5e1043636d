"""Parts that Numba lacks: typed decorators, addresses as pointers, and bf16 as the upper half of a float's bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

Function = TypeVar("Function", bound=Callable[..., Any])
# Sums may be ordered freely; NaN and infinity keep their meaning. Compiled code is kept on disk.
_OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
}


def compiled(function: Function) -> Function:
    """Compile a function when it is first called."""
    return njit(function, **_OPTIONS)  # type: ignore[no-any-return]


def parallel(function: Function) -> Function:
    """Compile a function whose loops over `prange` are divided among threads."""
    return njit(function, parallel=True, **_OPTIONS)  # type: ignore[no-any-return]


def _pointer(_context: Any, _address: Any) -> Any:
    """Return signature and code of `pointer`."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


# Turns an address into a pointer.
pointer: Any = intrinsic(_pointer)


def _upper_half(value: Any) -> Any:
    """Return the float whose upper half is a 16-bit word."""
    return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)


def _rounded(target: Any, values: Any) -> None:
    """Store floats as bf16 words: rounded to the nearest, ties to even; a NaN stays one."""
    for j in range(target.size):
        bits = np.float32(values[j]).view(np.uint32)
        up = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
        target[j] = np.uint16(quiet if values[j] != values[j] else up)


def _copied(target: Any, values: Any) -> None:
    """Store floats one by one."""
    for j in range(target.size):
        target[j] = values[j]


def floats(value: Any) -> Any:
    """Return an entry of a token or row as a float; 16-bit words are bf16. Compiled code has a form for each type."""
    return _upper_half(value) if isinstance(value, np.uint16) else np.float32(value)


@overload(floats)
def _floats(value: Any) -> Any:
    """Choose by type how an entry becomes a float."""
    if value == types.uint16:
        return _upper_half

    def number(value: Any) -> Any:
        return np.float32(value)

    return number


def put(target: Any, values: Any) -> None:
    """Store floats as the type of the target; 16-bit words are bf16, rounded to the nearest, ties to even."""
    (_rounded if target.dtype == np.uint16 else _copied)(target, values)


@overload(put)
def _put(target: Any, values: Any) -> Any:
    """Choose by type how floats are stored."""
    return _rounded if target.dtype == types.uint16 else _copied
