"""Command `minigpt domains`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.domain.config import DomainConfig, QuestionsConfig, SourceConfig
    from minigpt.domain.tasks import TaskConfig

# Caption of the table of domains.
ONLINE = "Sources marked (online) come from the Hugging Face Hub and are read only with --online."


@click.group(
    epilog=examples(
        "minigpt domains list", "minigpt domains show medical > mine.yaml", "minigpt domains new law-firm --from texts/"
    )
)
def domains() -> None:
    """List, show, check and create domain definitions: the packaged ones, and yours in ./domains."""


@domains.command("list", epilog=examples("minigpt domains list --json"))
@standard
def list_domains(session: Session) -> None:
    """List the domains that can be built by name. Sources marked (online) are read only with --online."""
    from minigpt.domain.config import domain_names, load_domain, packaged_folder

    packaged = packaged_folder().resolve()
    definitions = [load_domain(name) for name in domain_names()]
    rows = [
        {
            "name": domain.name,
            "title": domain.title,
            "packaged": domain.root == packaged,
            "description": domain.description,
            "synonyms": domain.synonyms,
            "sources": [source.name for source in domain.corpus],
            "questions": [questions.name for questions in domain.questions],
            "tasks": [task.name for task in domain.tasks],
            "online": [
                *(source.name for source in domain.corpus if source.online),
                *(questions.name for questions in domain.questions if questions.online),
            ],
        }
        for domain in definitions
    ]
    session.show({"domains": rows}, lambda: overview(definitions, packaged))


@domains.command(epilog=examples("minigpt domains show medical", "minigpt domains show law > my-law.yaml"))
@click.argument("domain")
@standard
def show(session: Session, *, domain: str) -> None:
    """Print the complete definition of DOMAIN as YAML, a good start for your own.

    Sources with `online: true` are read only with --online.
    """
    from minigpt.domain.config import load_domain, resolved_yaml
    from minigpt.files import to_plain

    definition = load_domain(domain)
    if session.json:
        # `root` is where the file lies; the paths in the definition are absolute already.
        data = {key: value for key, value in to_plain(definition).items() if key != "root"}
        session.show(data, lambda: "")
    else:
        click.echo(resolved_yaml(definition), nl=False)


@domains.command(epilog=examples("minigpt domains validate my-law.yaml", "minigpt domains validate medical"))
@click.argument("domain")
@standard
def validate(session: Session, *, domain: str) -> None:
    """Check that DOMAIN can be built here. The exit code is 1 if not, and the problems are listed.

    Files of your own are read. Remarks say if there are few documents to measure on, and if your texts come from
    several sources of which none is kept apart.
    """
    from minigpt.corpus.grouping import advice
    from minigpt.corpus.readable import readable
    from minigpt.domain import config
    from minigpt.errors import ConfigError

    definition = config.load_domain(domain)
    problems, remarks = config.validate(definition), list[str]()
    if not problems:
        read = readable(definition)
        problems, remarks = read.problems, [*read.remarks, *([] if read.problems else advice(definition))]
    data = {"domain": definition.name, "problems": problems, "advice": remarks}
    session.show(data, lambda: "\n".join(problems or [f"{definition.name} is valid.", *remarks]))
    if problems:
        noun = "problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{domain} cannot be built yet: fix the {noun} above first.")


@domains.command(
    epilog=examples(
        "minigpt domains new cardiology --from texts/",
        "minigpt domains new contracts --from contracts/ --general news/ --output contracts.yaml",
        "minigpt domains new cardiology --from texts/ --force",
    )
)
@click.argument("name")
@click.option(
    "--from",
    "folder",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder with your texts, or one file.",
)
@click.option(
    "--general",
    type=click.Path(exists=True, path_type=Path),
    help="Folder with general text of your own [the packaged general text].",
)
@click.option("--output", type=click.Path(path_type=Path), help="File or folder to write [domains/NAME.yaml].")
@click.option(
    "--text-column", metavar="COLUMN", help="Column of the text in tables [`text`, or else one of running text]."
)
@click.option(
    "--group-by",
    metavar="COLUMN",
    help="Column that tells the sources of your texts apart, `folder` for the top-level folders, or `none` "
    "[folders, or else a column such as source, author, site or date]. Rows with the same `source` stay in one split "
    "unless `source` is named here, or too few sources are left.",
)
@click.option("--hold-out", metavar="SOURCE", help="Source that is never trained on [one with about 15 % of the text].")
@click.option("--force", is_flag=True, help="Replace your definition of this name, and the texts converted for it.")
@standard
def new(
    session: Session,
    *,
    name: str,
    folder: Path,
    general: Path | None,
    output: Path | None,
    text_column: str | None,
    group_by: str | None,
    hold_out: str | None,
    force: bool,
) -> None:
    """Write the definition NAME for your own texts.

    The folder and its subfolders, or the one file, hold text, Markdown, HTML, PDF, Word, PowerPoint, Excel, CSV, JSON,
    Parquet, mail and EPUB files, zip and tar archives of them, or splits of its own. What is not plain text is
    converted into a folder beside the definition, and your files stay as they are. A file that cannot be read is
    listed with the reason.

    Where the texts come from four sources or more, one of them is kept apart (`split: other`): the report then shows
    how a specialist does on sources of the field that it never read.
    """
    from minigpt.cli.ownfiles import reading_data, written_text
    from minigpt.corpus.newdomain import Grouped, new_domain

    written = new_domain(
        name,
        folder,
        output=output or Path("domains"),
        general=general,
        grouped=Grouped(column=group_by, apart=hold_out),
        text_column=text_column,
        force=force,
        reporter=session.reporter,
    )
    session.show(reading_data(name, written), lambda: written_text(written))


def overview(definitions: Sequence[DomainConfig], packaged: Path) -> RenderableType:
    """Draw one row for each domain, with those outside the folder `packaged` marked, and what their texts are."""
    from rich.console import Group
    from rich.text import Text

    result = table("domain", "title", "also called", "text", "questions", "tasks")
    for domain in definitions:
        result.add_row(
            domain.name if domain.root == packaged else f"{domain.name} (yours)",
            domain.title,
            ", ".join(domain.synonyms),
            ", ".join(labelled(source) for source in domain.corpus),
            ", ".join(labelled(questions) for questions in domain.questions),
            ", ".join(labelled(task) for task in domain.tasks),
        )
    result.caption = ONLINE
    about = [
        Text.assemble((f"{domain.name}  ", "bold"), domain.description) for domain in definitions if domain.description
    ]
    return Group(result, *about)


def labelled(item: SourceConfig | QuestionsConfig | TaskConfig) -> str:
    """Return the name of a source, marked if it is read only with `--online`."""
    return f"{item.name} (online)" if item.online else item.name
