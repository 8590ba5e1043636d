"""Command `minigpt corpus`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.common import Session, examples, online, standard, table
from minigpt.cli.curate import curate
from minigpt.progress.stages import Stage, counted, passing, step

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.corpus.task_counts import TaskCount
    from minigpt.domain.config import DomainConfig, QuestionsConfig, SourceConfig


# Help of --seed.
SEED = "Random seed of the splits [that of a build whose folder is DOMAIN, else 0]."
# Stages of `minigpt corpus stats`.
STAGES = (
    Stage(name="read", title="Reading the text"),
    Stage(name="count", title="Counting words"),
    Stage(name="personal", title="Counting personal data"),
)


@click.group(
    epilog=examples("minigpt corpus show medical", "minigpt corpus stats law", "minigpt corpus fetch finance -o texts/")
)
def corpus() -> None:
    """Show a domain's text, questions and tasks: sources, licenses, splits and counts."""


corpus.add_command(curate)


@corpus.command(epilog=examples("minigpt corpus show medical", "minigpt corpus show ./mine.yaml --count --json"))
@click.argument("domain")
@click.option("--count", is_flag=True, help="Read the text too, to count the prompts that rules make from it.")
@standard
def show(session: Session, *, domain: str, count: bool) -> None:
    """List the sources and the tasks with free answers in the definition of DOMAIN.

    Nothing is fetched, unless --count needs a text that is not on this machine yet. Prompts are counted with seed 0.
    """
    from minigpt.corpus import build_corpus
    from minigpt.corpus.task_counts import corpus_counts, declared_counts
    from minigpt.domain.config import load_domain

    definition = load_domain(domain)
    if count:
        tasks = tuple(corpus_counts(definition, build_corpus(definition, reporter=session.reporter).tasks))
    else:
        tasks = tuple(declared_counts(definition))
    data = {"domain": definition.name, "corpus": definition.corpus, "questions": definition.questions, "tasks": tasks}
    session.show(data, lambda: listing(definition, tasks, counted=count))


@corpus.command(epilog=examples("minigpt corpus stats medical", "minigpt corpus stats law --seed 1 --json"))
@click.argument("domain")
@click.option("--seed", type=click.IntRange(min=0), help=SEED)
@online
@standard
def stats(session: Session, *, domain: str, seed: int | None, online: bool) -> None:
    """Read, clean and split the text of DOMAIN, and count documents, passages, bytes and words.

    Also shown is how much of the measured text stands in the domain's training text already.
    """
    from minigpt.api.splits import split_of_domain
    from minigpt.corpus import build_corpus, statistics
    from minigpt.corpus.grouping import advice
    from minigpt.corpus.personal import personal_in

    definition, reporter = definition_of(domain, online=online), counted(session.reporter, STAGES)
    with step(reporter, "read") as begins:
        begins()
        split = split_of_domain(domain, seed)
        text = build_corpus(definition, seed=split.seed, max_documents=split.max_documents, reporter=reporter)
    with passing(reporter, "count", "Counting words, and runs of words that stand in the training text"):
        counts = statistics(text)
    with passing(reporter, "personal", "Counting personal data, and looking for sources"):
        counts |= {"personal": personal_in(definition, reporter), "advice": advice(definition)}
    session.show(counts, lambda: summary(counts))


@corpus.command(epilog=examples("minigpt corpus fetch medical", "minigpt corpus fetch law --output-dir texts/law"))
@click.argument("domain")
@click.option(
    "-o", "--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder to write the splits to [none]."
)
@click.option("--seed", type=click.IntRange(min=0), help=SEED)
@online
@standard
def fetch(session: Session, *, domain: str, output_dir: Path | None, seed: int | None, online: bool) -> None:
    """Download the sources of DOMAIN into the cache, so that later commands need no network."""
    from minigpt.api.splits import split_of_domain
    from minigpt.corpus import build_corpus, save_corpus

    definition, split = definition_of(domain, online=online), split_of_domain(domain, seed)
    text = build_corpus(definition, seed=split.seed, max_documents=split.max_documents, reporter=session.reporter)
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

    from minigpt.report.passages import passages_sentence

    splits = table("split", ">documents", ">passages", ">bytes", ">words")
    for name, sizes in statistics["splits"].items():
        splits.add_row(name, *(f"{sizes[unit]:,}" for unit in ("documents", "passages", "bytes", "words")))
    questions = table("questions", ">number", "role", "answer text in training", "note")
    for item in statistics["questions"]:
        seen = {True: "yes", False: "no", None: "not known"}[item["seen"]]
        questions.add_row(item["name"], f"{item['questions']:,}", item["role"], seen, item["note"])
    tasks = table("task", ">held-out prompts", ">training prompts", "scored by", "note")
    for item in statistics["tasks"]:
        numbers = (f"{item[key]:,}" for key in ("prompts", "train"))
        tasks.add_row(item["name"], *numbers, ", ".join(item["metrics"]), item["note"])
    tables = [part for part in (splits, questions, tasks) if part.rows]
    return Group(*tables, f"{passages_sentence(statistics['counts'])}.", *remarks(statistics))


def remarks(statistics: Mapping[str, Any]) -> list[str]:
    """Say what of the measured text stands in the training text, what is personal in all of it, and more."""
    from minigpt.corpus.coverage import WARN
    from minigpt.corpus.personal import personal_sentence
    from minigpt.corpus.survey import COMFORTABLE, JUDGED, documents_remark
    from minigpt.report.text import percent

    heldout = statistics["splits"]["heldout"]["documents"]
    lines = [documents_remark(heldout)] if heldout < COMFORTABLE else []
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
    few = [item for item in statistics["tasks"] if item["prompts"] < JUDGED]
    lines += [
        f"{item['name']}: {item['prompts']} held-out prompts; a report judges nothing by fewer than {JUDGED}. Add more."
        for item in few
    ]
    places = {kind: count.places for kind, count in statistics["personal"].items()}
    warning = personal_sentence(places, holder="The domain's text")
    return [*lines, *([warning] if warning else []), *statistics["advice"]]


def listing(domain: DomainConfig, tasks: Sequence[TaskCount], *, counted: bool) -> RenderableType:
    """Draw the sources of a domain and, where it has tasks, those; a dash stands for a number that is not known."""
    from rich.console import Group
    from rich.text import Text

    if not tasks:
        return sources(domain)
    result = table("task", "made by", ">prompts", ">training", ">held-out", "scored by")
    for task in tasks:
        numbers = ("–" if value is None else f"{value:,}" for value in (task.prompts, task.train, task.heldout))
        origin = Text(f"{task.origin} (online)" if task.online else task.origin)
        result.add_row(task.name, origin, *numbers, ", ".join(task.metrics) or "by its rows")
    unknown = any(None in (task.train, task.heldout) for task in tasks) and not counted
    hint = f"–: depends on the text; `minigpt corpus show {domain.name} --count` reads it and counts."
    return Group(sources(domain), result, *([Text(hint, style="dim")] if unknown else []))


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
