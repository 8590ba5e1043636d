"""Command `minigpt push`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.models.push import Shipment


@click.command(
    epilog=examples(
        "minigpt push runs/medical acme/medical-100m --dry-run",
        "minigpt push runs/medical-gguf acme/medical-100m-gguf",
        "minigpt push medical acme/medical-100m --public",
    )
)
@click.argument("model")
@click.argument("repo", metavar="ORG/NAME")
@click.option("--dry-run", is_flag=True, help="Show what would go, with sizes, and send nothing.")
@click.option("--public", is_flag=True, help="Let everybody see it [private].")
@click.option(
    "--with-text", is_flag=True, help="Send what may hold your text, too: samples, page, recipe and domain file."
)
@standard
def push(session: Session, *, model: str, repo: str, dry_run: bool, public: bool, with_text: bool) -> None:
    """Send MODEL to the Hugging Face Hub as ORG/NAME, in one commit; private unless --public is given.

    MODEL is a build folder, a model folder, an export folder, a catalog id or a domain (its latest build). The text
    that a build reads never goes; reports, records and cards go without samples and local paths. Log in with
    `hf auth login`.
    """
    from minigpt.models import push as pushing

    shipment = pushing.pack(model, repo, public=public, with_text=with_text)
    url = None
    if not dry_run:
        with session.reporter.stage(f"Sending to {repo}"):
            url = pushing.push(shipment)
    data = {
        "repo": shipment.repo,
        "public": shipment.public,
        "url": url,
        "bytes": shipment.size,
        "files": [{"name": file.name, "bytes": file.size, "note": file.note} for file in shipment.files],
        "left_out": shipment.left_out,
    }
    session.show(data, lambda: render(shipment, url))


def render(shipment: Shipment, url: str | None) -> RenderableType:
    """Draw one row for each file that goes or stays."""
    from minigpt.report.text import size

    result = table("file", ">size", "")
    for file in shipment.files:
        result.add_row(file.name, size(file.size), file.note)
    for left in shipment.left_out:
        result.add_row(left.name, "stays", left.reason)
    visibility = "public" if shipment.public else "private"
    verb = "would go" if url is None else "are"
    result.caption = f"{size(shipment.size)} {verb} at {url or shipment.repo}, {visibility}"
    return result
