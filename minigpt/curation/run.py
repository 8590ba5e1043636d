"""Curation of a corpus: the stages in their order, from the text of a domain to shards that a build reads."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minigpt.corpus.newdomain import Grouped, new_domain
from minigpt.curation import engine
from minigpt.curation.context import DOMAIN, PLAN, Context, context_of
from minigpt.curation.duplicates import is_open
from minigpt.curation.plan import Wishes, check_relevance, plan_of, state_of
from minigpt.curation.shards import RECORD, Curated, publish
from minigpt.curation.steps import Step
from minigpt.domain.config import DomainConfig, load_domain, resolved_yaml
from minigpt.errors import ConfigError
from minigpt.files import read_json, write_json, write_text
from minigpt.locks import hold
from minigpt.progress import SILENT, Reporter
from minigpt.progress.stages import Stage, counted, passing, step

# Folder inside the output folder in which the tasks work, until all is done.
WORK = ".curation"
LOGS = "log"
STAGES = (
    Stage(name="convert", title="Reading the files"),
    Stage(name="read", title="Reading and cleaning"),
    Stage(name="duplicates", title="Finding duplicates"),
    Stage(name="split", title="Splitting"),
)


def curate(
    source: DomainConfig | Path,
    output: Path,
    *,
    wishes: Wishes | None = None,
    workers: int = 1,
    executor: str = "local",
    cluster: Mapping[str, Any] | None = None,
    reporter: Reporter = SILENT,
) -> Curated:
    """Clean, deduplicate and split the text of a domain with many workers, and write it as shards.

    The result depends on the text and the settings, but not on the number or kind of the workers. The same call again
    goes on where a killed one stopped; with everything done it returns at once.

    Args:
        source: A domain, or a folder of text.
        output: A new or empty folder, or one that an earlier call began. It gets the shards, a domain file that reads
            them (`domain.yaml`) and a record (`curation.json`).
        wishes: The settings; None for the usual ones.
        workers: Number of tasks that run at a time.
        executor: Program that runs the tasks: `local`, `slurm` or `ray`.
        cluster: Options of datatrove's executor for Slurm or Ray.
        reporter: Receives progress.

    Raises:
        ConfigError: A package, an option or the seed sentences for `relevance` are missing, or the folder holds
            something else.
        CorpusError: The text cannot be read, or there is too little of it.
        MiniGPTError: A worker was killed, or the folder is in use.
    """
    if find_spec("datatrove") is None:
        raise ConfigError('Curation takes a package that is not installed. Install it: pip install "minigpt[curate]"')
    wishes, reporter = wishes or Wishes(), counted(reporter, STAGES)
    check_relevance(source, wishes)
    check_output(output)
    work, state = output.resolve() / WORK, state_of(source, wishes)
    if (output / RECORD).exists():
        record = read_json(output / RECORD, Curated)
        if record.state != state:
            raise ConfigError(f"{output} holds the result of other text or settings; choose another folder.")
        shutil.rmtree(work, ignore_errors=True)
        return record
    with hold(work / "lock", str(output)):
        context = begun(source, wishes, work, state, reporter)
        with engine_of(executor, work / LOGS, workers, cluster or {}) as runner:
            run_stages(context, runner, reporter)
        record = publish(context, output)
        shutil.rmtree(work, ignore_errors=True)
    return record


def begun(source: DomainConfig | Path, wishes: Wishes, work: Path, state: str, reporter: Reporter) -> Context:
    """Plan the work, or take the plan that an earlier call began with.

    Raises:
        ConfigError: That was for other text or settings.
    """
    if (work / PLAN).exists():
        context = context_of(work)
        if context.plan.state != state:
            raise ConfigError(
                f"The text or the settings changed since the work in {work.parent} began; choose another folder, or "
                f"remove {work} to begin again."
            )
        return context
    domain = source if isinstance(source, DomainConfig) else definition_of_folder(source, work, reporter)
    write_text(work / DOMAIN, resolved_yaml(domain))
    write_json(work / PLAN, plan_of(domain, wishes, state=state))
    return context_of(work)


def definition_of_folder(folder: Path, work: Path, reporter: Reporter) -> DomainConfig:
    """Return a definition of the text in a folder, as `minigpt domains new` writes it, with nothing kept apart.

    Converted texts lie in the work folder until all is done.

    Raises:
        ConfigError: A package is missing that a file needs.
        CorpusError: The folder holds no text that can be read.
    """
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_") or "texts"
    target = work / "definition" / f"{name}.yaml"
    shutil.rmtree(target.parent, ignore_errors=True)
    with step(reporter, "convert") as begins:
        begins()
        new_domain(name, folder, output=target, grouped=Grouped(column="none"), reporter=reporter)
    return load_domain(str(target))


def check_output(output: Path) -> None:
    """Refuse a folder that holds something other than a curation.

    Raises:
        ConfigError: It does.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file; choose a folder.")
    if output.exists() and any(output.iterdir()) and not any((output / name).exists() for name in (WORK, RECORD)):
        raise ConfigError(f"{output} holds something else; choose a new or empty folder.")


def engine_of(
    executor: str, logs: Path, workers: int, options: Mapping[str, Any]
) -> AbstractContextManager[engine.Engine]:
    """Return what runs the tasks.

    Raises:
        ConfigError: There is no such executor, or it cannot be used here.
    """
    if executor == "local":
        if options:
            raise ConfigError("--cluster goes with --executor slurm or ray.")
        return engine.local(logs, workers)
    if executor == "slurm":
        return nullcontext(engine.slurm(logs, workers, options))
    if executor == "ray":
        return nullcontext(engine.ray(logs, workers, options))
    raise ConfigError(f"No executor {executor!r}; there is {', '.join(engine.EXECUTORS)}.")


def run_stages(context: Context, runner: engine.Engine, reporter: Reporter) -> None:
    """Run the stages; those that are done already are passed over."""
    partitions = context.plan.partitions

    def stage(name: str, tasks: int, round: int | None = None) -> None:
        folder = name if round is None else f"{name}-{round}"
        runner.run(folder, Step(str(context.work), name, round or 0), tasks, reporter)

    with passing(reporter, "read", "Reading and cleaning"):
        stage("read", len(context.plan.units))
        stage("sketch", partitions)
        context.discard("read")
    with passing(reporter, "duplicates", "Finding duplicates"):
        stage("exact", partitions)
        for round in range(10**6):
            stage("pairs", partitions, round)
            stage("verify", partitions, round)
            stage("decide", 1, round)
            if not is_open(context, round):
                break
    with passing(reporter, "split", "Splitting"):
        stage("split", 1)
        stage("measured", 1)
        stage("guard", partitions)
        if context.plan.relevance:
            stage("score", partitions)
            stage("choose", 1)
        stage("write", partitions + 1)
