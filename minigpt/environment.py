"""The only reader of environment variables."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Folder of caches and catalog: `MINIGPT_HOME`, else the user's data folder."""
    if chosen := os.environ.get("MINIGPT_HOME"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("minigpt"))


def offline() -> bool:
    """Whether `HF_HUB_OFFLINE` asks us to stay off the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def llama_python() -> str | None:
    """Interpreter with llama-cpp-python, where that is not our own: `MINIGPT_LLAMA_PYTHON`."""
    return os.environ.get("MINIGPT_LLAMA_PYTHON") or None


def silence_libraries() -> None:
    """Ask the Hugging Face libraries for no bars and no warnings; what the user has set stays.

    Works through their own variables, so that it costs no import; they read them when they are first imported.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for library in ("TRANSFORMERS", "DATASETS", "HF_HUB"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, the library warns wherever a process forks


def share_cores() -> None:
    """Keep OpenMP threads from spinning long at their barriers; to be called before torch is imported.

    Tokenizers take as many threads as OpenMP is told to. On two cores with two competing processes a training step ran
    at 51 tokens/s with the default and at 240 with this count; on idle cores it makes no difference.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    if chosen := os.environ.get("OMP_NUM_THREADS", ""):
        os.environ.setdefault("RAYON_NUM_THREADS", chosen)  # the tokenizers' threads


def threads() -> int:
    """Threads for a runtime that would else take every core: `OMP_NUM_THREADS`, as for torch, else all cores."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdigit() and int(chosen) > 0 else os.cpu_count() or 1
