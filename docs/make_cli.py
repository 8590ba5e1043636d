"""Write docs/reference/cli.md from the commands themselves: `make docs`. A test checks that it is current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from minigpt.cli import cli
from minigpt.files import write_text

PAGE = Path(__file__).with_name("reference") / "cli.md"
HEADER = """# Commands

Written by `make docs` from `minigpt COMMAND --help`.

Data goes to stdout, progress and messages go to stderr. Exit codes: 0 success, 1 error (one sentence, and with
`-v` the traceback), 2 wrong usage, 3 failed gate, 130 interrupted. `NO_COLOR` is honored. Where stderr is no terminal,
progress is printed as plain lines instead of bars.
"""


def pages(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    """The help of a command and of all commands under it, as Markdown sections."""
    settings = {**command.context_settings, "max_content_width": 100, "terminal_width": 100}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    title = context.command_path
    yield f"## {title}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            subcommand = command.get_command(context, child)
            assert subcommand is not None
            yield from pages(subcommand, context, child)


def content() -> str:
    """The whole page."""
    return "\n".join([HEADER, *pages(cli, None, "minigpt")])


if __name__ == "__main__":
    write_text(PAGE, content())
