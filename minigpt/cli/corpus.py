"""Command `minigpt corpus`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.common import Session, examples, facts, online, standard, table
from minigpt.cli.curate import curate

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.domain.config import DomainConfig, QuestionsConfig, SourceConfig


@click.group(
    epilog=examples("minigpt corpus show medical", "minigpt corpus stats law", "minigpt corpus fetch finance -o texts/")
)
def corpus() -> None:
    """Show a domain's text and questions: sources, licenses, splits and counts."""


corpus.add_command(curate)


@corpus.command(epilog=examples("minigpt corpus show medical", "minigpt corpus show ./mine.yaml --json"))
@click.argument("domain")
@standard
def show(session: Session, *, domain: str) -> None:
    """List the sources in the definition of DOMAIN. Nothing is fetched."""
    from minigpt.domain.config import load_domain

    definition = load_domain(domain)
    data = {"domain": definition.name, "corpus": definition.corpus, "questions": definition.questions}
    session.show(data, lambda: sources(definition))


@corpus.command(epilog=examples("minigpt corpus stats medical", "minigpt corpus stats law --seed 1 --json"))
@click.argument("domain")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the splits.")
@online
@standard
def stats(session: Session, *, domain: str, seed: int, online: bool) -> None:
    """Read, clean and split the text of DOMAIN, and count documents, passages, bytes and words.

    Also shown is how much of the measured text stands in the domain's training text already.
    """
    from minigpt.corpus import build_corpus, statistics
    from minigpt.corpus.grouping import advice

    definition = definition_of(domain, online=online)
    text = build_corpus(definition, seed=seed, reporter=session.reporter)
    counts = {**statistics(text), "advice": advice(definition)}
    session.show(counts, lambda: summary(counts))


@corpus.command(epilog=examples("minigpt corpus fetch medical", "minigpt corpus fetch law --output-dir texts/law"))
@click.argument("domain")
@click.option(
    "-o", "--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder to write the splits to [none]."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the splits.")
@online
@standard
def fetch(session: Session, *, domain: str, output_dir: Path | None, seed: int, online: bool) -> None:
    """Download the sources of DOMAIN into the cache, so that later commands need no network."""
    from minigpt.corpus import build_corpus, save_corpus

    text = build_corpus(definition_of(domain, online=online), seed=seed, reporter=session.reporter)
    if output_dir is not None:
        save_corpus(text, output_dir)
    data = {"domain": text.domain, "attributions": text.attributions, "output_dir": output_dir and str(output_dir)}
    session.show(data, lambda: "\n".join(f"{item.name}: {item.documents} documents" for item in text.attributions))


def definition_of(domain: str, *, online: bool) -> DomainConfig:
    """Load the definition of a domain, with its data sets from the Hub if `online`."""
    from minigpt.domain.config import load_domain, with_online

    definition = load_domain(domain)
    return with_online(definition) if online else definition


def summary(statistics: Mapping[str, Any]) -> RenderableType:
    """Draw the sizes of the splits, the question sets, and what cleaning dropped."""
    from rich.console import Group

    splits = table("split", ">documents", ">passages", ">bytes", ">words")
    for name, sizes in statistics["splits"].items():
        splits.add_row(name, *(f"{sizes[unit]:,}" for unit in ("documents", "passages", "bytes", "words")))
    questions = table("questions", ">number", "role", "answer text in training", "note")
    for item in statistics["questions"]:
        seen = {True: "yes", False: "no", None: "not known"}[item["seen"]]
        questions.add_row(item["name"], f"{item['questions']:,}", item["role"], seen, item["note"])
    counts = facts({name.replace("_", " "): f"{count:,}" for name, count in statistics["counts"].items()})
    return Group(splits, questions, counts, *remarks(statistics))


def remarks(statistics: Mapping[str, Any]) -> list[str]:
    """Say what of the measured text stands in the training text, what is personal there, and what other sources are."""
    from minigpt.corpus.coverage import WARN
    from minigpt.corpus.personal import personal_sentence
    from minigpt.report.text import percent

    lines = []
    for item in statistics["coverage"]:
        task, share = item["task"], item["share"]
        lines.append(
            f"{task}: {percent(share)} of its runs of 8 words stand in the domain's training text "
            f"({item['unseen']} of {item['documents']} documents below 2 %)."
        )
        if share >= WARN:
            lines.append(
                f"{task}: a good result on it may only measure repeated wording, such as templates; add text of other "
                "sources."
            )
    if not statistics["splits"]["other"]["documents"]:
        lines.append("No source is kept apart (`split: other`), so nothing is known about other sources of the field.")
    warning = personal_sentence(statistics["personal"])
    return [*lines, *([warning] if warning else []), *statistics["advice"]]


def sources(domain: DomainConfig) -> RenderableType:
    """Draw one row for each source of text or questions."""
    from rich.text import Text

    result = table("source", "holds", "from", "split", "license", "needs network")
    entries: list[tuple[SourceConfig | QuestionsConfig, str, str]] = [
        (item, "text", item.split) for item in domain.corpus
    ]
    entries += [(item, "questions", item.role) for item in domain.questions]
    for item, holds, split in entries:
        origin = Text(item.ref or item.hub or item.file or "")
        result.add_row(item.name, holds, origin, split, item.license, "with --online, the Hub" if item.online else "no")
    return result
