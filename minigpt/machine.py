"""Facts about the machine: devices, arithmetic precision, memory, and the names and versions that reports state."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt import environment
from minigpt.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

# Distributions whose versions shape a result.
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "peft", "numpy")
# Files with the limit of memory of a container, of both generations of control groups.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

# Threads of torch on the processor while a GPU trains and measures.
THREADS_BESIDE_GPU = 8


def pick_device(name: str) -> str:
    """Return the torch device of this name, or the best one for `auto`.

    Args:
        name: "auto" (CUDA if there is a GPU, else the CPU) or a device as torch names it.

    Raises:
        ConfigError: the device is not available.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        reason = "it holds no numbers" if torch.device(name).type == "meta" else ""
    except (RuntimeError, AssertionError) as error:
        # torch raises the first for a kind or a card that it does not know, or that has no arithmetic, and the second
        # for a kind that it was built without. After the first sentence it lists every kind that it knows.
        reason = first_line(error).split("Expected one of ")[0].split(". ")[0] or "there is no such kind of device"
    if reason:
        raise ConfigError(
            f"Device {name!r} cannot be used here ({reason}); use --device auto, or one of cpu, cuda, cuda:1 and mps."
        )
    return name


def spare_processor(device: str) -> None:
    """Keep torch to a few processor threads where a GPU does the work, unless `OMP_NUM_THREADS` says otherwise.

    Several builds on one host, a GPU each, would else start a thread for every core each, and wait for one another.
    """
    import torch

    if torch.device(device).type == "cuda" and not environment.threads_are_set():
        torch.set_num_threads(min(torch.get_num_threads(), THREADS_BESIDE_GPU))


def has_fast_bf16(device: torch.device) -> bool:
    """Say whether matrix products of a device are faster in bf16 than in fp32.

    They are on CUDA and on processors with AVX512-BF16 or AMX. Other processors emulate bf16, which is slower.
    """
    import torch

    if device.type != "cpu":
        return device.type == "cuda"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(check() for name in checks if (check := getattr(torch.cpu, name, None)) is not None)


def measuring_dtype(device: str) -> Any:
    """Return the torch dtype that models of all stages are measured in: bf16 where it is fast, else fp32."""
    import torch

    return torch.bfloat16 if has_fast_bf16(torch.device(device)) else torch.float32


def measuring_conditions(device: str) -> tuple[str, str]:
    """Return the kind of device and the type of numbers, which scores depend on: others are not compared with them."""
    return device.partition(":")[0], str(measuring_dtype(device))


def free_memory(device: str) -> tuple[int, int]:
    """Return the free and all bytes of memory of a device; of a processor, what the system and its limits allow.

    Args:
        device: torch device.
    """
    import torch

    kind = torch.device(device)
    if kind.type == "cuda":
        free, total = torch.cuda.mem_get_info(kind)
        return int(free), int(total)
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    free = _available() or total // 2
    for limit in LIMITS:
        if limit.is_file() and (most := limit.read_text("utf-8").strip()).isdigit():
            free = min(free, max(0, int(most) - (total - free)))
            total = min(total, int(most))
    return free, total


def _available(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the bytes that new work can have, as the system counts them; 0 where it does not."""
    lines = meminfo.read_text("utf-8").splitlines() if meminfo.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0)


def release(models: Sequence[Any] = ()) -> None:
    """Free the memory of models that are no longer needed.

    Args:
        models: models that are still referred to; their weights are dropped first.
    """
    import torch

    for model in models:
        model.to("meta")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_heap()


def trim_heap() -> None:
    """Give the system back what was freed: the C library keeps much of it, and work that follows would pay for it."""
    if (library := _c_library()) is not None:
        library.malloc_trim(0)


@cache
def _c_library() -> ctypes.CDLL | None:
    """Open the C library where it is glibc, which alone can be asked."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def versions(minigpt: str, packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of minigpt, Python and packages by name; packages that are not installed are left out.

    Args:
        minigpt: version of minigpt, which this module must not import.
        packages: names of distributions.
    """
    known = {"minigpt": minigpt, "python": platform.python_version()}
    for package in packages:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def device_name(device: str) -> str:
    """Return the name of the hardware behind a torch device."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{processor_name()}, {torch.get_num_threads()} threads"


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the maker's name of the processor and its architecture, for example `AMD EPYC (x86_64)`.

    Python's `platform` knows the name on macOS and Windows only. Linux has it in `/proc/cpuinfo` under "model name",
    except on ARM; where no name is known, the architecture alone is returned.

    Args:
        cpuinfo: file that Linux describes its processors in.
    """
    architecture = platform.machine()
    name = ""
    if cpuinfo.is_file():
        fields = (line.partition(":") for line in cpuinfo.read_text("utf-8", errors="replace").splitlines())
        name = next((value.strip() for key, _, value in fields if key.strip() == "model name"), "")
    name = name or platform.processor()
    return f"{name} ({architecture})" if name not in {"", architecture} else f"{architecture} CPU"
