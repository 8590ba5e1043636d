"""Environment variables that minigpt reads or sets. No other module touches them."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the folder of caches and catalog: `MINIGPT_HOME`, or the user's data folder if it is not set."""
    if folder := os.environ.get("MINIGPT_HOME"):
        return Path(folder).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("minigpt"))


def offline() -> bool:
    """Return True if `HF_HUB_OFFLINE` forbids the use of the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def llama_python() -> str | None:
    """Return the Python that has llama-cpp-python (`MINIGPT_LLAMA_PYTHON`), or None if it is this Python."""
    return os.environ.get("MINIGPT_LLAMA_PYTHON") or None


def parent() -> str | None:
    """Return the parent of delta tickets that stands in for the recorded one (`MINIGPT_PARENT`), or None."""
    return os.environ.get("MINIGPT_PARENT") or None


def signing_key() -> Path | None:
    """Return the SSH key that signs bills of materials (`MINIGPT_SIGNING_KEY`), or None if they are not signed."""
    return _path("MINIGPT_SIGNING_KEY")


def allowed_signers() -> Path | None:
    """Return the file of signers that are trusted (`MINIGPT_ALLOWED_SIGNERS`), or None if there is none."""
    return _path("MINIGPT_ALLOWED_SIGNERS")


def without_prompts() -> dict[str, str]:
    """Return the environment with word to OpenSSH's programs not to open a window that asks for a passphrase."""
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


def _path(name: str) -> Path | None:
    """Return the path in a variable; None if it is not set."""
    value = os.environ.get(name)
    return Path(value).expanduser() if value else None


def silence_libraries() -> None:
    """Turn off progress bars and warnings of the Hugging Face libraries. Values that the user has set stay.

    The libraries read these variables at their first import, so call this before it.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for library in ("TRANSFORMERS", "DATASETS", "HF_HUB"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # if unset, the library warns when a process forks


def share_cores() -> None:
    """Make minigpt fast beside other processes on the same cores. Call this before torch is imported.

    OpenMP threads spin only briefly at their barriers, and tokenizers use as many threads as `OMP_NUM_THREADS` says.
    Values that the user has set stay.
    """
    # A thread that spins at a barrier takes the core from the process that it waits for.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    if count := os.environ.get("OMP_NUM_THREADS", ""):
        os.environ.setdefault("RAYON_NUM_THREADS", count)  # the tokenizers' threads


def threads_are_set() -> bool:
    """Return True if the user says how many threads to use."""
    return bool(os.environ.get("OMP_NUM_THREADS", ""))


def threads() -> int:
    """Return the number of threads for a runtime: `OMP_NUM_THREADS`, or one for each core if it is not set."""
    count = os.environ.get("OMP_NUM_THREADS", "")
    return int(count) if count.isdigit() and int(count) > 0 else os.cpu_count() or 1


def process_numbers() -> tuple[int, int, int] | None:
    """Return rank, number of processes and rank on this machine, as `torchrun` and `accelerate launch` set them.

    None if the process was started alone. Numbers that are no numbers count as not set.
    """
    values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(value.isdigit() for value in values[:2]):
        return None
    local = values[2] if values[2].isdigit() else values[0]
    return int(values[0]), int(values[1]), int(local)


def without_group() -> dict[str, str]:
    """Return the environment without what `torchrun` sets, for processes that work alone."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE")
    return {name: value for name, value in os.environ.items() if name not in names}


def visible_devices() -> list[str]:
    """Return the CUDA devices that `CUDA_VISIBLE_DEVICES` names; an empty list if it is not set."""
    return [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
