"""Errors that minigpt raises on purpose. Each message is one sentence that says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without its full stop, or the error's type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; torch has a class for accelerators only."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in words or "not enough memory" in words)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for a mistyped name, with a leading space: the nearest known name, or all names if none is near."""
    names = sorted(known)
    close = nearest(name, names)
    return f" Did you mean {close!r}?" if close is not None else f" Known: {', '.join(names)}."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a mistyped one, whatever its case; None if none is near."""
    names = {item.casefold(): item for item in known}
    close = difflib.get_close_matches(name.casefold(), names, n=1)
    return names[close[0]] if close else None


class MiniGPTError(Exception):
    """Base of all errors whose message is meant for the user. The command line exits with code 1."""


class ConfigError(MiniGPTError):
    """A domain file, option or override that cannot be used as written."""


class AssetError(MiniGPTError):
    """A parent model, corpus or encoder that cannot be found, fetched, trusted or read."""


class CorpusError(MiniGPTError):
    """Text or questions that are missing, malformed or too few for the job."""


class UnsupportedModel(MiniGPTError):
    """An architecture or tokenizer that minigpt does not know how to prune."""


class PlanError(MiniGPTError):
    """A target that no legal plan can meet. The message gives the arithmetic."""


class ExportError(MiniGPTError):
    """An export that failed or did not reproduce the model it came from."""


class GateFailed(MiniGPTError):
    """A gate the user asked for (`--fail-if`, `--keep-general`) did not hold; exit code 3.

    Attributes:
        reports: the reports of the builds that were made all the same, if a build raised it.
    """

    reports: tuple[object, ...] = ()


class UnknownName(MiniGPTError):
    """A name that is in no table. The message suggests the nearest known name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = nearest(name, names)
        hint = f" Did you mean {close!r}?" if close is not None else ""
        listed = f"Known: {', '.join(names)}." if names else "There is none yet."
        super().__init__(f"Unknown {kind} {name!r}.{hint} {listed}")
