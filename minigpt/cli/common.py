"""Parts that all commands share: `--json`, `-q`, `-v`, the two output streams, and tables."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from minigpt.cli.streams import is_terminal
from minigpt.errors import ConfigError
from minigpt.escaping import json_printable, printable
from minigpt.progress import SILENT, Reporter

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table

# Columns of a table where the output is no terminal and no width is set.
PIPED_WIDTH = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Output of one command: data on stdout through `show`, everything else on stderr through `reporter`.

    Attributes:
        json: whether the result is printed as JSON.
        quiet: whether progress is left out.
        verbose: whether warnings of libraries and tracebacks are shown.
        reporter: receives progress and notes.
    """

    json: bool
    quiet: bool
    verbose: bool
    reporter: Reporter = SILENT

    def show(self, data: Any, render: Callable[[], RenderableType]) -> None:
        """Print the result of the command.

        Args:
            data: the result, which is printed as one JSON document with `--json`.
            render: draws the result for people; called only without `--json`.
        """
        if self.json:
            from minigpt.files import dumps

            click.echo(json_printable(dumps(data)), nl=False)
        else:
            data_console().print(Harmless(render()))


def data_console() -> Console:
    """Make a rich console on stdout, wide when piped so that tables are not cut."""
    from rich.console import Console

    width = None if is_terminal(sys.stdout) else shutil.get_terminal_size((PIPED_WIDTH, 24)).columns
    return Console(width=width, highlight=False, markup=False)


class Harmless:
    """Renderable that shows another one without the control characters in its text.

    Names, paths and texts come from files that others wrote; rich passes their escape sequences to the terminal.

    Attributes:
        inner: the renderable that is shown.
    """

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Draw the other renderable, and clean what it draws."""
        from rich.segment import Segment
        from rich.text import Text

        inner = Text(self.inner) if isinstance(self.inner, str) else self.inner
        for segment in console.render(inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def standard(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--json`, `-q`, `-v` and a :class:`Session` as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Show only the result and errors, no progress.")
    @click.option("-v", "--verbose", is_flag=True, help="Show warnings of libraries and tracebacks too.")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, quiet: bool, verbose: bool, **options: Any) -> None:
        from minigpt.cli.console import reporter_for, silence_libraries

        if quiet and verbose:
            raise click.UsageError("-q and -v exclude each other.")
        if not verbose:
            silence_libraries()
        session = Session(json=as_json, quiet=quiet, verbose=verbose, reporter=reporter_for(quiet=quiet))
        click.get_current_context().find_root().obj = session
        function(session, *args, **options)

    return command


# Option of the commands that read a domain's text.
online = click.option("--online", is_flag=True, help="Also use the domain's data sets from the Hugging Face Hub.")


def sampling(most: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of writing text: length (`most` tokens by default), temperature, top-p and seed."""
    options = (
        click.option(
            "--max-new-tokens",
            type=click.IntRange(min=1),
            default=most,
            show_default=True,
            help="Most tokens to generate.",
        ),
        click.option(
            "--temperature",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            help="Randomness of the text; 0 always takes the likeliest token.",
        ),
        click.option(
            "--top-p",
            type=click.FloatRange(0, 1, min_open=True),
            default=1.0,
            show_default=True,
            help="Probability mass of the tokens to draw from.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        return functools.reduce(lambda inner, option: option(inner), reversed(options), command)

    return decorate


def from_input(read: Callable[[], str]) -> str:
    """Read text from standard input by one of its methods.

    Raises:
        ConfigError: it is no text in the encoding of the terminal.
    """
    try:
        return read()
    except UnicodeDecodeError:
        raise ConfigError("The input holds bytes that are no UTF-8; give it as UTF-8 text.") from None


def table(*columns: str, **options: Any) -> Table:
    """Make an empty table.

    Args:
        columns: headings; `>name` is right-aligned, `=name` is never broken, because users copy what stands there,
            and `>=name` is both.
        options: options of :class:`rich.table.Table`.
    """
    from rich import box
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, **options)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        result.add_column(column.lstrip(">="), justify=justify, overflow="fold", no_wrap="=" in column[:2])
    return result


def facts(rows: Mapping[str, object]) -> RenderableType:
    """Make a table of two columns, name and value."""
    result = table("", "", show_header=False)
    for name, value in rows.items():
        result.add_row(str(name), str(value))
    return result


def examples(*lines: str) -> str:
    """Make the epilog of a command from example commands, one a line."""
    # The backspace character keeps click from wrapping the lines.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
