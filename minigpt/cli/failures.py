"""Failures of commands as exit codes and one sentence on stderr."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from minigpt.errors import GateFailed, MiniGPTError, is_out_of_memory
from minigpt.escaping import one_line

# Exit codes. Click itself uses 2 for wrong usage; a process that a signal ends gives 128 plus the signal's number.
ERROR = 1
GATE = 3
INTERRUPTED = 130
TERMINATED = 143


@contextmanager
def exit_with_code(ctx: click.Context) -> Iterator[None]:
    """Turn whatever a command raises into one sentence on stderr and an exit code.

    The traceback is shown only when the command ran with `-v`. Click handles its own exceptions.
    """
    try:
        yield
    except (click.ClickException, click.Abort, click.exceptions.Exit):
        raise
    except KeyboardInterrupt:
        click.echo("Interrupted. The same command resumes after the last finished stage.", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        # Click ends quietly when the reader of a pipe is gone.
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise
        if getattr(ctx.find_root().obj, "verbose", False):
            traceback.print_exc(file=sys.stderr)
        click.echo(f"Error: {one_line(describe(error))}", err=True)
        sys.exit(GATE if isinstance(error, GateFailed) else ERROR)


def describe(error: Exception) -> str:
    """Say in one line what went wrong and what to do."""
    if isinstance(error, MiniGPTError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    if is_out_of_memory(error):
        return "Not enough memory. Choose a smaller parent, the quick preset, or another --device."
    if isinstance(error, OSError):
        reason = error.strerror or first or type(error).__name__
        where = f" ({error.filename})" if error.filename else ""
        return f"{reason}{where}. Check the path, its permissions and the free space, then run the same command again."
    return (
        f"{type(error).__name__}: {first}. This is a defect of minigpt: run it again with -v and report the traceback."
    )


def end_cleanly_on_sigterm() -> None:
    """Make `kill` unwind the stack, so that half-written files are removed and the terminal is restored."""

    def leave(_signal: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, leave)
