"""Command `minigpt completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from minigpt.cli.common import Session, examples, standard


@click.command(
    epilog=examples(
        'eval "$(minigpt completion bash)"                                    # in ~/.bashrc',
        'eval "$(minigpt completion zsh)"                                     # in ~/.zshrc',
        "minigpt completion fish > ~/.config/fish/completions/minigpt.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@standard
def completion(session: Session, *, shell: str) -> None:
    """Print the completion of SHELL, for commands and options. The shell's start-up file runs it."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has the shells that the argument allows
    root = click.get_current_context().find_root().command
    source = kind(root, {}, "minigpt", "_MINIGPT_COMPLETE").source()
    if session.json:
        session.show({"shell": shell, "source": source}, lambda: "")
    else:
        click.echo(source)
