"""Opening of the models and of the socket, and the loop of the server."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Sequence
from pathlib import Path

from minigpt.errors import ConfigError
from minigpt.models.find import find_report
from minigpt.progress import Reporter
from minigpt.serving.engine import Engine, open_engine
from minigpt.serving.settings import Settings

NEEDS = ("starlette", "uvicorn")
# Word that stands for the parent of a build.
PARENT = "parent"
# Seconds that open connections have when the server ends.
GOODBYE_SECONDS = 3


def check_packages() -> None:
    """Check that the server library is installed.

    Raises:
        ConfigError: it is not.
    """
    if any(importlib.util.find_spec(package) is None for package in NEEDS):
        raise ConfigError("`minigpt serve` needs a server library. Run pip install 'minigpt[serve]'.")


def open_engines(model: str, beside: Sequence[str], *, device: str, reporter: Reporter) -> list[Engine]:
    """Open the models under names that differ.

    Args:
        model: reference of the first model.
        beside: references of the others; `parent` is the parent of the build that `model` names.
        device: a torch device.
        reporter: receives the progress.

    Raises:
        MiniGPTError: there is no such model or report.
    """
    refs = [model, *(find_report(model).base_model if ref == PARENT else ref for ref in beside)]
    names = [model, *beside]
    return [
        open_engine(ref, name=name, device=device, reporter=reporter)
        for ref, name in zip(refs, short_names(names), strict=True)
    ]


def short_names(refs: Sequence[str]) -> list[str]:
    """Return a short name for each reference: the last part of a path that is more than `model`, else as it is.

    A name that came before gets the first number that makes it another one.
    """
    names: list[str] = []
    for ref in refs:
        path = Path(ref)
        parts = [part for part in path.parts if part not in ("/", ".", "..", "model")]
        name = parts[-1] if parts and (path.exists() or ref.startswith("pypi:")) else ref
        numbered = (name, *(f"{name}-{number}" for number in range(2, len(names) + 2)))
        names.append(next(candidate for candidate in numbered if candidate not in names))
    return names


def open_socket(host: str, port: int) -> socket.socket:
    """Open the socket; port 0 takes any that is free.

    Raises:
        ConfigError: the address is in use or not of this machine.
    """
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return socket.create_server((bare, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Cannot listen on {host}:{port} ({reason}). Choose another --port or --host.") from None


def url_of(listener: socket.socket, host: str) -> str:
    """Return the address for a browser."""
    bare = host.strip("[]")
    return f"http://{f'[{bare}]' if ':' in bare else bare}:{listener.getsockname()[1]}"


def serve(engines: Sequence[Engine], settings: Settings, listener: socket.socket, *, verbose: bool = False) -> None:
    """Serve until the process is interrupted.

    Args:
        engines: the models.
        settings: limits and protection.
        listener: an open socket.
        verbose: whether requests are logged, without their texts.
    """
    import uvicorn

    from minigpt.serving.app import build_app

    config = uvicorn.Config(
        build_app(engines, settings),
        log_level="info" if verbose else "warning",
        access_log=verbose,
        server_header=False,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])
