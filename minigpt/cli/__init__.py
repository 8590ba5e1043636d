"""Command line: each command parses its options, calls one function of the library and renders the result.

A command's module is imported when the command runs, so that `minigpt --help` stays fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from minigpt.cli.failures import end_cleanly_on_sigterm, exit_with_code
from minigpt.cli.hangup import survive_hangup
from minigpt.cli.processes import has_work
from minigpt.errors import did_you_mean
from minigpt.lazy import resolve

# Every command: the "module:function" that runs it, and its line in `minigpt --help`.
COMMANDS = {
    "init": ("minigpt.cli.init:init", "Begin with a folder of your own documents."),
    "build": ("minigpt.cli.build:build", "Build a smaller specialist for one or more domains."),
    "eval": ("minigpt.cli.evaluate:evaluate", "Measure any causal model on a domain."),
    "compare": ("minigpt.cli.compare:compare", "Compare reports side by side, and check gates in scripts."),
    "open": ("minigpt.cli.open:open_page", "Show the page of a build, and decide by gates."),
    "catalog": ("minigpt.cli.catalog:catalog", "List, show, add, remove and verify finished models."),
    "merge": ("minigpt.cli.merge:merge", "Merge delta tickets of one parent into one."),
    "domains": ("minigpt.cli.domains:domains", "List, show, validate and create domain definitions."),
    "corpus": ("minigpt.cli.corpus:corpus", "Show where a domain's text comes from and what it holds."),
    "export": ("minigpt.cli.export:export", "Write a model for ONNX and other runtimes, and verify it."),
    "bench": ("minigpt.cli.bench:bench", "Measure speed, memory and size of models side by side."),
    "generate": ("minigpt.cli.generate:generate", "Try a model in the terminal."),
    "chat": ("minigpt.cli.chat:chat", "Talk with a model in the terminal."),
    "serve": ("minigpt.cli.serve:serve", "Serve a model over HTTP in OpenAI's form, with a chat page."),
    "push": ("minigpt.cli.push:push", "Send a model to the Hugging Face Hub, private by default."),
    "sweep": ("minigpt.cli.sweep:sweep", "Try several methods and sizes, and show which pay off."),
    "lottery": ("minigpt.cli.lottery:lottery", "Find a lottery ticket and store it compressed."),
    "methods": ("minigpt.cli.methods:methods", "List the pruning methods."),
    "families": ("minigpt.cli.families:families", "List the families of models and what can be done with each."),
    "estimate": ("minigpt.cli.estimate:estimate", "Estimate memory and arithmetic from a config alone."),
    "completion": ("minigpt.cli.completion:completion", "Print the completion of a shell."),
}

# Steps of a build that are functions of the package but no commands, with the command that takes them.
STEPS = {
    "plan": "minigpt build --domain DOMAIN --plan-only",
    "prune": "minigpt build --domain DOMAIN --set heal.steps=0",
    "heal": "minigpt build --domain DOMAIN",
    "report": "minigpt open DIR",
}


class LazyGroup(click.Group):
    """Group of commands that are imported on use, and whose failures become exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = resolve(COMMANDS[cmd_name][0])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with; suggest the nearest one for a mistyped name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            hint = f" Run `{STEPS[name]}`." if name in STEPS else did_you_mean(name, COMMANDS)
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a failure ends the program with one sentence and an exit code."""
        with exit_with_code(ctx):
            return super().invoke(ctx)


def show_version(ctx: click.Context, _parameter: click.Parameter, requested: bool) -> None:
    """Print the version and exit if `--version` was given."""
    if requested:
        from minigpt import __version__

        click.echo(f"minigpt {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: minigpt build --domain medical --preset quick",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Small specialists from large language models, with the evidence.

    Exit codes: 0 success, 1 error, 2 wrong usage, 3 failed gate, 130 interrupted.
    """


def main() -> None:
    """Run the console script `minigpt`."""
    end_cleanly_on_sigterm()
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    survive_hangup(command)
    if not has_work(command):
        return
    run: Callable[..., Any] = cli
    run(prog_name="minigpt")
