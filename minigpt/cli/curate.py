"""Command `minigpt corpus curate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.common import Session, examples, facts, online, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.curation.shards import Curated
    from minigpt.domain.config import DomainConfig


@click.command(
    epilog=examples(
        "minigpt corpus curate texts/ --workers 8 --output-dir curated",
        "minigpt build --domain curated",
        "minigpt corpus curate mine.yaml -o curated --executor ray --workers 64",
    )
)
@click.argument("source")
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to write the shards and their domain file to.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of tasks that run at a time [one for each processor core]."
)
@click.option(
    "--executor",
    type=click.Choice(["local", "slurm", "ray"]),
    default="local",
    show_default=True,
    help="Program that runs the tasks: processes of this machine, or a cluster with a shared file system.",
)
@click.option(
    "--cluster",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of datatrove's executor for Slurm or Ray, e.g. partition=cpu; may be repeated.",
)
@click.option(
    "--relevance", is_flag=True, help="Drop training documents that are unlike the domain's `seeds`; it needs some."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the splits.")
@online
@standard
def curate(
    session: Session,
    *,
    source: str,
    output_dir: Path,
    workers: int | None,
    executor: str,
    cluster: tuple[str, ...],
    relevance: bool,
    seed: int,
    online: bool,
) -> None:
    """Clean, deduplicate and split the text of SOURCE with many workers.

    SOURCE is a domain or a folder of text. The result is a folder of shards with a domain file that reads them. Memory
    does not grow with the text, and the result does not depend on the workers. The same command again goes on where a
    killed one stopped. Build with `minigpt build --domain DIR`.
    """
    from minigpt.curation import curate as curate_text
    from minigpt.curation.plan import Wishes

    record = curate_text(
        source_of(source, online=online),
        output_dir,
        wishes=Wishes(seed=seed, relevance=relevance),
        workers=workers or usable_cores(),
        executor=executor,
        cluster=cluster_options(cluster),
        reporter=session.reporter,
    )
    data = {"output_dir": str(output_dir), "domain": record.domain, "splits": record.splits, "counts": record.counts}
    session.show(data, lambda: summary(record, output_dir))


def source_of(source: str, *, online: bool) -> DomainConfig | Path:
    """Return the domain of that name or file, or the folder of text."""
    from minigpt.domain.config import resolve_domain

    path = Path(source).expanduser()
    if path.is_dir() and not (path / "domain.yaml").is_file():
        return path
    return resolve_domain(source, online=online)


def usable_cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cluster_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read `NAME=VALUE` options; whole numbers become numbers.

    Raises:
        UsageError: One is no such pair.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--cluster takes NAME=VALUE, not {pair!r}.")
        options[name] = int(value) if value.isdecimal() else value
    return options


def summary(record: Curated, folder: Path) -> RenderableType:
    """Draw the sizes of the splits and what was dropped, and name the next command."""
    from rich.console import Group

    splits = table("split", ">documents", ">passages", ">bytes")
    for name, size in record.splits.items():
        splits.add_row(name.removeprefix("corpus_"), f"{size.documents:,}", f"{size.passages:,}", f"{size.bytes:,}")
    counts = facts({name.replace("_", " "): f"{count:,}" for name, count in record.counts.items()})
    return Group(splits, counts, f"Build with: minigpt build --domain {folder}")
