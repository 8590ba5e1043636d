"""Command `minigpt chat`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, from_input, sampling, standard
from minigpt.cli.streams import is_terminal
from minigpt.errors import did_you_mean

if TYPE_CHECKING:
    from minigpt.serving.dialog import Dialog

COMMANDS = {"/reset": "forget the conversation", "/exit": "leave"}


@click.command(
    epilog=examples(
        "minigpt chat runs/medical",
        'minigpt chat medical --system "Answer in one sentence." --temperature 0.7',
        "printf 'What is tachycardia?\\n' | minigpt chat runs/medical --json",
    )
)
@click.argument("model")
@click.option("--system", metavar="TEXT", help="Instruction that stands before the conversation.")
@sampling(256)
@click.option(
    "--device", metavar="NAME", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1 or mps."
)
@standard
def chat(
    session: Session,
    *,
    model: str,
    system: str | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    device: str,
) -> None:
    """Talk with MODEL in the terminal, in its chat template. Each line is a turn.

    /reset forgets the conversation, /exit or the end of the input leaves, Ctrl-C ends an answer. Turns that no longer
    fit into the model's window are dropped, the oldest first. MODEL is anything that `minigpt generate` takes.
    """
    from minigpt.machine import pick_device
    from minigpt.models.generate import Sampling
    from minigpt.serving.dialog import Dialog
    from minigpt.serving.engine import open_engine

    engine = open_engine(model, name=model, device=pick_device(device), reporter=session.reporter)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    dialog = Dialog(engine, sampling, system=system)
    if is_terminal(sys.stdin) and not session.quiet:
        click.echo(", ".join(f"{name}: {meaning}" for name, meaning in COMMANDS.items()), err=True)
    talk(session, dialog)
    if session.json:
        session.show({"turns": dialog.turns, "dropped": dialog.dropped}, lambda: "")


def talk(session: Session, dialog: Dialog) -> None:
    """Take turns until the user leaves."""
    from minigpt.report.text import clean

    def write(piece: str) -> None:
        if not session.json:
            click.echo(clean(piece) if is_terminal(sys.stdout) else piece, nl=False)

    while (line := read_turn()) is not None:
        text = line.strip()
        if text == "/exit":
            return
        if text.startswith("/") and " " not in text:
            obey(session, dialog, text)
        elif text:
            answer(session, dialog, text, write)


def obey(session: Session, dialog: Dialog, command: str) -> None:
    """Do what a command other than /exit says."""
    if command == "/reset":
        dialog.reset()
    else:
        session.reporter.note(f"There is no command {command}.{did_you_mean(command, COMMANDS)}")


def answer(session: Session, dialog: Dialog, text: str, write: Callable[[str], None]) -> None:
    """Show the answer to a turn."""
    dropped = dialog.dropped
    dialog.ask(text, write)
    write("\n")
    if dialog.dropped > dropped:
        session.reporter.note("The oldest turns no longer fit and were dropped. /reset starts over.")


def read_turn() -> str | None:
    """Read a line from the user; None at the end of the input, and at Ctrl-C."""
    try:
        if is_terminal(sys.stdin) and is_terminal(sys.stdout):
            return input("> ")
        return from_input(sys.stdin.readline) or None
    except (EOFError, KeyboardInterrupt):
        return None
