"""Energy counters of processors (Linux powercap) and NVIDIA GPUs (NVML), where this process may read them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"


def energy(device: str | None = None, powercap: Path = POWERCAP) -> dict[str, float]:
    """Read the energy counters in joules: `processor`, and `gpu` for a CUDA device.

    The counters count for the whole device since some moment; only differences mean anything, see :func:`used`.

    Args:
        device: Torch device of the build; None reads the processor alone.
        powercap: Folder of the processor's counters.
    """
    counters = {}
    if zones := _zones(powercap):
        counters["processor"] = sum(zones.values())
    if device is not None and device.startswith("cuda") and (joules := _gpu(device)) is not None:
        counters["gpu"] = joules
    return counters


def used(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the energy between two readings, of the counters that both have and that did not start again.

    A counter of a processor starts again when it is full, and that of a GPU with its driver; what was used is then not
    known, and the counter is left out.
    """
    return {name: after[name] - before[name] for name in before if name in after and after[name] >= before[name]}


def _zones(powercap: Path) -> dict[str, float]:
    """Read the counters of whole processors, which exclude those of their parts; none where one is not readable."""
    zones = {}
    try:
        for zone in powercap.glob("intel-rapl:*"):
            if zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package"):
                zones[zone.name] = int((zone / "energy_uj").read_text()) / 1e6
    except (OSError, ValueError):
        return {}
    return zones


def _gpu(device: str) -> float | None:
    """Read the counter of a GPU in joules; None where there is none."""
    torch = sys.modules.get("torch")
    try:
        if torch is None or (library := _nvml()) is None:
            return None
        index = torch.device(device).index
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index).uuid
        handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        missing = library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode(), ctypes.byref(handle))
        if missing or library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
            return None
    except (AttributeError, AssertionError, RuntimeError, ValueError):  # older torch or driver, no such device
        return None
    return millijoules.value / 1e3


@cache
def _nvml() -> Any:
    """Load the management library of NVIDIA's driver; None where there is none."""
    try:
        library = ctypes.CDLL(NVML)
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):
        return None
