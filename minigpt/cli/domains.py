"""`minigpt domains`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.domain.config import DomainConfig, QuestionsConfig, SourceConfig

ONLINE = "Sources marked (online) are read from the Hub, and only with --online."


@click.group(
    epilog=examples(
        "minigpt domains list", "minigpt domains show medical > mine.yaml", "minigpt domains new law-firm --from texts/"
    )
)
def domains() -> None:
    """Domain definitions: the packaged ones, yours in ./domains, and how to make a new one."""


@domains.command("list", epilog=examples("minigpt domains list --json"))
@standard
def list_domains(session: Session) -> None:
    """The domains that can be built by name. Sources marked (online) are used only with --online."""
    from minigpt.domain.config import domain_names, load_domain

    found = [load_domain(name) for name in domain_names()]
    rows = [
        {
            "name": domain.name,
            "title": domain.title,
            "synonyms": domain.synonyms,
            "sources": [source.name for source in domain.corpus],
            "questions": [questions.name for questions in domain.questions],
            "online": [
                *(source.name for source in domain.corpus if source.online),
                *(questions.name for questions in domain.questions if questions.online),
            ],
        }
        for domain in found
    ]
    session.show({"domains": rows}, lambda: overview(found))


@domains.command(epilog=examples("minigpt domains show medical", "minigpt domains show law > my-law.yaml"))
@click.argument("domain")
@standard
def show(session: Session, *, domain: str) -> None:
    """The resolved definition of DOMAIN as YAML: a good start for your own.

    Sources with `online: true` are used only with --online.
    """
    from minigpt.domain.config import load_domain, resolved_yaml

    found = load_domain(domain)
    if session.json:
        session.show(found, lambda: "")
    else:
        click.echo(resolved_yaml(found), nl=False)


@domains.command(epilog=examples("minigpt domains validate my-law.yaml", "minigpt domains validate medical"))
@click.argument("domain")
@standard
def validate(session: Session, *, domain: str) -> None:
    """Check that DOMAIN can be built here; exit 1 with the reasons if not."""
    from minigpt.domain import config
    from minigpt.errors import ConfigError

    found = config.load_domain(domain)
    problems = config.validate(found)
    session.show({"domain": found.name, "problems": problems}, lambda: "\n".join(problems) or f"{found.name} is valid.")
    if problems:
        raise ConfigError(f"{domain} cannot be built as it is: mend {'this' if len(problems) == 1 else 'these'} first.")


@domains.command(
    epilog=examples(
        "minigpt domains new cardiology --from texts/",
        "minigpt domains new contracts --from contracts/ --general news/ --output contracts.yaml",
    )
)
@click.argument("name")
@click.option("--from", "folder", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--general", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Control text of yours.")
@click.option("--output", type=click.Path(path_type=Path), help="File or folder to write [domains/NAME.yaml].")
@standard
def new(session: Session, *, name: str, folder: Path, general: Path | None, output: Path | None) -> None:
    """Write a definition for your own texts: .txt, .md, .jsonl and .parquet files, or a folder with its own splits."""
    from minigpt.corpus.newdomain import new_domain

    path = new_domain(name, folder, output=output or Path("domains"), general=general)
    session.show(
        {"domain": name, "path": str(path)}, lambda: f"Wrote {path}. Build with: minigpt build --domain {path}"
    )


def overview(found: Sequence[DomainConfig]) -> RenderableType:
    """One row a domain."""
    result = table("domain", "title", "also called", "text", "questions")
    for domain in found:
        result.add_row(
            domain.name,
            domain.title,
            ", ".join(domain.synonyms),
            ", ".join(labelled(source) for source in domain.corpus),
            ", ".join(labelled(questions) for questions in domain.questions),
        )
    result.caption = ONLINE
    return result


def labelled(item: SourceConfig | QuestionsConfig) -> str:
    """A source's name, marked if it waits for `--online`."""
    return f"{item.name} (online)" if item.online else item.name
