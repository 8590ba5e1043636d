"""The machine that work runs on: devices, arithmetic precision, memory, the names and versions that reports state."""

from __future__ import annotations

import gc
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "peft", "numpy")


def pick_device(name: str) -> str:
    """The torch device for `auto`, or the named one if it is there.

    Raises:
        ConfigError: the device is not available.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"Device {name!r} cannot be used here ({first_line(error)}); use --device auto.") from None
    return name


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrix products are faster in bf16: on CUDA, and on processors with AVX512-BF16 or AMX.

    Elsewhere bf16 is emulated and slower than fp32.
    """
    import torch

    if device.type != "cpu":
        return device.type == "cuda"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(check() for name in checks if (check := getattr(torch.cpu, name, None)) is not None)


def measuring_dtype(device: str) -> Any:
    """The torch dtype that models are measured in, at all stages alike: bf16 where it is fast, else fp32."""
    import torch

    return torch.bfloat16 if has_fast_bf16(torch.device(device)) else torch.float32


def release(models: Sequence[Any] = ()) -> None:
    """Give the memory of dropped models back before the next stage asks for it.

    Args:
        models: models that somebody still refers to; their weights are dropped first.
    """
    import torch

    for model in models:
        model.to("meta")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def versions(minigpt: str, packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of the software that shapes a result; packages that are not installed are left out.

    Args:
        minigpt: minigpt's own version.
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
    """The hardware behind a torch device, by name."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{processor_name()}, {torch.get_num_threads()} threads"


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor as its maker calls it and its architecture, e.g. `AMD EPYC (x86_64)`.

    Python's own `platform` knows it on macOS and Windows only; Linux keeps it in `/proc/cpuinfo`, under "model name"
    except on ARM.
    """
    architecture = platform.machine()
    name = ""
    if cpuinfo.is_file():
        fields = (line.partition(":") for line in cpuinfo.read_text("utf-8", errors="replace").splitlines())
        name = next((value.strip() for key, _, value in fields if key.strip() == "model name"), "")
    name = name or platform.processor()
    return f"{name} ({architecture})" if name not in {"", architecture} else f"{architecture} CPU"
