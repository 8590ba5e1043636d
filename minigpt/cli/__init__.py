"""The command line: each command parses, calls one function of the library and renders what it returns.

A command's module is imported when the command runs, so that `minigpt --help` costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from minigpt.cli.failures import failing_well
from minigpt.lazy import resolve

COMMANDS = {
    "build": ("minigpt.cli.build:build", "Build a smaller specialist for one or more domains."),
    "eval": ("minigpt.cli.evaluate:evaluate", "Measure any causal model on a domain."),
    "compare": ("minigpt.cli.compare:compare", "Reports side by side, and gates for scripts."),
    "catalog": ("minigpt.cli.catalog:catalog", "Finished models: list, show, add, remove, verify."),
    "domains": ("minigpt.cli.domains:domains", "Domain definitions: list, show, validate, new."),
    "corpus": ("minigpt.cli.corpus:corpus", "Where a domain's text comes from, and what is in it."),
    "export": ("minigpt.cli.export:export", "ONNX and other formats, verified against PyTorch."),
    "bench": ("minigpt.cli.bench:bench", "Speed, memory and size of models side by side."),
    "generate": ("minigpt.cli.generate:generate", "Try a model in the terminal."),
    "sweep": ("minigpt.cli.sweep:sweep", "Methods against sizes: points, Pareto set, pictures."),
    "methods": ("minigpt.cli.methods:methods", "The pruning methods there are."),
    "estimate": ("minigpt.cli.estimate:estimate", "Memory and arithmetic from a config alone."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use, and whose failures become exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds `cmd_name`."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = resolve(COMMANDS[cmd_name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every failure leaves as one sentence and its exit code."""
        with failing_well(ctx):
            return super().invoke(ctx)


def show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        from minigpt import __version__

        click.echo(f"minigpt {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: minigpt build --domain medical --preset quick",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
def cli() -> None:
    """Small specialists from large language models, with the evidence.

    Exit codes: 0 done, 1 an error said in one sentence, 2 wrong usage, 3 a gate did not hold, 130 interrupted.
    """


def main() -> None:
    """The console script."""
    from minigpt.cli.failures import end_cleanly_on_sigterm

    end_cleanly_on_sigterm()
    run: Callable[..., Any] = cli
    run(prog_name="minigpt")
