"""Trees of neurons on the CPU, in C++: built when first used, with torch's tool-chain, for this processor."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import cast

import torch

from minigpt.conditional.kernels.layout import Prepared, numbers_of, token_types
from minigpt.conditional.kernels.weights import TreeWeights
from minigpt.errors import ConfigError, first_line

SOURCE = Path(__file__).with_name("tree_ffn.cpp")
HEADER = Path(__file__).with_name("vectors.h")
# Sums may be ordered freely; NaN and infinity keep their meaning.
FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros", "-freciprocal-math"),
)


def missing() -> str | None:
    """Return what this machine lacks for the build, or None if it lacks nothing."""
    from torch.utils import cpp_extension

    compiler: str = cpp_extension.get_cxx_compiler()  # type: ignore[no-untyped-call]
    if shutil.which(compiler) is None:
        return f"a C++ compiler ({compiler})"
    return None if cpp_extension.is_ninja_available() else "ninja"


def prepare(weights: TreeWeights, *, threads: int | None = None, **limits: int) -> Prepared:
    """Make trees ready for this kernel, which is compiled if it is not there yet.

    Args:
        weights: trees whose rows are contiguous, best made by `weights.interleave`.
        threads: the number of threads, or None for torch's.
        limits: `cache` and `group` of `layout.numbers_of`.

    Raises:
        ConfigError: the kernel cannot be built here.
    """
    rows = weights.w_in.dtype
    numbers = numbers_of(weights, **limits)
    entries = {dtype: partial(_function(dtype, rows), numbers.ctypes.data) for dtype in token_types(weights)}
    return Prepared(weights, numbers, entries, threads)


def _function(tokens: torch.dtype, rows: torch.dtype) -> Callable[..., object]:
    """Return the compiled function for tokens and rows of these types; its first argument are the numbers."""
    function = getattr(library(), f"tree_ffn_{tokens}_{rows}".replace("torch.", ""))
    function.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_int64] * 2
    function.restype = None
    return cast("Callable[..., object]", function)


@cache
def library() -> ctypes.CDLL:
    """Build the kernel and load it; a build of the same source and processor is kept by torch and used again.

    Raises:
        ConfigError: a tool is missing, or the build fails.
    """
    from torch.utils import cpp_extension

    if lack := missing():
        raise ConfigError(f"The C++ kernel cannot be built here without {lack}; install it, or use the Numba kernel.")
    try:
        path = cpp_extension.load(
            name=f"minigpt_tree_ffn_{_fingerprint()}",
            sources=[str(SOURCE)],
            extra_cflags=list(FLAGS),
            extra_ldflags=["-fopenmp"],
            is_python_module=False,
            with_cuda=False,
        )
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"The C++ kernel could not be built ({first_line(error)}); use the Numba kernel.") from None
    return ctypes.CDLL(str(path))


def _fingerprint() -> str:
    """Return a short hash of what shapes the build: source, flags and the processor's instructions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    abilities = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return sha256(
        "\n".join((SOURCE.read_text("utf-8"), HEADER.read_text("utf-8"), *FLAGS, abilities)).encode()
    ).hexdigest()[:12]
