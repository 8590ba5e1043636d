"""Command `minigpt init`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli import streams
from minigpt.cli.common import Session, examples, standard

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.corpus.newdomain import NewDomain
    from minigpt.corpus.survey import Survey

FOLDER = click.Path(exists=True, path_type=Path)


@click.command(epilog=examples("minigpt init", "minigpt init letters/ --name cardiology --yes --json"))
@click.argument("folder", required=False, type=FOLDER)
@click.option("--name", metavar="NAME", help="Name of the domain [you are asked].")
@click.option("--general", type=FOLDER, help="Folder with general text of your own [the packaged general text].")
@click.option("--output", type=click.Path(path_type=Path), help="File or folder to write [domains/NAME.yaml].")
@click.option("--text-column", metavar="COLUMN", help="Column of the text in tables [as in `minigpt domains new`].")
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@standard
def init(
    session: Session,
    *,
    folder: Path | None,
    name: str | None,
    general: Path | None,
    output: Path | None,
    text_column: str | None,
    yes: bool,
) -> None:
    """Begin with your own documents: look into FOLDER, write a domain, and say what it holds and what to run next.

    FOLDER may be a single file, too. It asks for the folder and the name on a terminal. Elsewhere FOLDER, --name and
    --yes give the answers. Personal data such as e-mail addresses are counted and never shown. Nothing leaves this
    machine.
    """
    from minigpt.corpus.newdomain import new_domain, targets
    from minigpt.corpus.survey import survey
    from minigpt.domain.config import load_domain
    from minigpt.errors import ConfigError

    if not (folder and name and yes) and not is_terminal():
        raise click.UsageError("There is no terminal to ask on: give FOLDER, --name and --yes.")
    folder = folder or click.prompt("Folder with your texts", type=FOLDER, err=True)
    show_kinds(folder)
    place = output or Path("domains")

    def usable(answer: str) -> str:
        """Refuse a name that cannot be used, so that the question is put again."""
        try:
            targets(answer, place, general=general is not None)
        except ConfigError as error:
            raise click.BadParameter(str(error)) from None
        return answer

    name = name or click.prompt("Name of the domain", default=name_for(folder), value_proc=usable, err=True)
    path, _ = targets(name, place, general=general is not None)
    if not yes:
        question = f"Write {path}? Text is copied beside it where it has to be converted; your files stay as they are."
        click.confirm(question, default=True, abort=True, err=True)
    written = new_domain(
        name, folder, output=place, general=general, text_column=text_column, reporter=session.reporter
    )
    with session.reporter.stage("Looking at the text"):
        text = survey(load_domain(str(written.path)), session.reporter)
    session.show(as_data(name, written, text), lambda: summary(name, written, text))


def is_terminal() -> bool:
    """Return True if there is somebody to ask."""
    return streams.is_terminal(sys.stdin)


def name_for(folder: Path) -> str:
    """Propose a name for the domain of a folder or file."""
    from minigpt.domain.checks import LONGEST_NAME

    path = folder.resolve()
    name = path.stem if path.is_file() else path.name
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST_NAME] or "mine"


def show_kinds(folder: Path) -> None:
    """Say on stderr how many files of each kind a folder holds."""
    from minigpt.documents.scan import census
    from minigpt.escaping import printable

    counts = census(folder)
    files = ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "no files"
    click.echo(printable(f"{folder} holds {files}."), err=True)


def as_data(name: str, written: NewDomain, text: Survey) -> dict[str, Any]:
    """Return the result as data."""
    from minigpt.cli.ownfiles import reading_data

    return {**reading_data(name, written), "survey": text, "next": commands(name, written)}


def summary(name: str, written: NewDomain, text: Survey) -> RenderableType:
    """Draw what was read, what the text is like, and what to run next."""
    from rich.console import Group

    from minigpt.cli.ownfiles import count_text, other_lines, reading_lines, size_text

    following = commands(name, written)
    width = max(map(len, following))
    shares = text.languages
    spoken = ", ".join(f"{code} {100 * share:.0f} %" for code, share in (shares or {}).items() if share >= 0.005)
    if shares is None:
        spoken = 'not known: pip install "minigpt[documents]"'
    personal = [
        f"  {kind}: {count.places:,} in {count_text(count.documents, 'document')}"
        for kind, count in text.personal.items()
    ]
    warning = "A model can recite what it was trained on. Remove personal data before you build."
    return Group(
        *reading_lines(written.reading),
        *(reading_lines(written.general, "general text: ") if written.general else []),
        *other_lines(written),
        f"Wrote {written.path}. {written.apart}",
        *([written.ties] if written.ties else []),
        *([f"The text is in {written.texts}."] if written.texts else []),
        "",
        f"Text: {text.documents:,} documents, {text.words:,} words, {size_text(text.bytes)}.",
        f"Languages: {spoken or 'not known'}.",
        "Personal data, by typical forms:" if personal else "Personal data: none of a typical form.",
        *personal,
        *([warning] if personal else []),
        f"Enough? {' '.join(text.remarks)}",
        "",
        "Next:",
        *(f"  {command:<{width}}  # {why}" for command, why in following.items()),
    )


def commands(name: str, written: NewDomain) -> dict[str, str]:
    """Return the commands to run next, with the reason for each."""
    domain = name if written.path == Path("domains") / f"{name}.yaml" else quote(str(written.path))
    return {
        f"minigpt corpus stats {domain}": "splits and repeated text",
        f"minigpt build --domain {domain} --plan-only": "what would be removed",
        f"minigpt build --domain {domain} --preset quick": "a first specialist",
        f"minigpt build --domain {domain}": "the real one",
    }
