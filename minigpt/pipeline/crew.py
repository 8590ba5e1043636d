"""Builds of several domains by several workers: each domain is a piece of work, in a folder of its own."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from minigpt.domain.config import resolve_domain
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.files import read_json
from minigpt.locks import Busy
from minigpt.pipeline.build import build_domain
from minigpt.pipeline.domains import checked_domains, domains_of
from minigpt.pipeline.options import BuildOptions
from minigpt.progress import Reporter
from minigpt.progress.pieces import Planned
from minigpt.workers import Workers, together
from minigpt.workers.pieces import Job, claim_of, pull

# Folder of the workers' files where the options name none.
RUNS = Path("runs")


def build_by_workers(options: BuildOptions, workers: Workers, reporter: Reporter) -> None:
    """Let workers build the domains of `options`; what they leave undone is left to the caller.

    Raises:
        ConfigError: there is one domain only, or the builds would start over each time.
    """
    names = checked_domains(options)
    if len(names) < 2:
        raise ConfigError(
            "--workers shares out domains, and there is one. Leave it out; torchrun builds one on N cards."
        )
    if options.force:
        raise ConfigError("--workers and --force exclude each other: remove the folder instead.")
    pieces = [Planned(name=resolve_domain(name, online=options.online).name, kinds=("domain",)) for name in names]
    together("build", options, workers, options.output_dir or RUNS, pieces, reporter)


def work(path: Path, done: Path, worker: str, reporter: Reporter) -> None:
    """Build domains until all are built.

    Args:
        path: file of the options.
        done: folder of markers.
        worker: name of this worker.
        reporter: told about progress.
    """
    options = read_json(path, BuildOptions)
    failures: list[MiniGPTError] = []

    def build(name: str) -> float | None:
        began, is_there = time.monotonic(), (options.folder(resolved[name]) / "report.json").exists()
        try:
            build_domain(name, options, reporter)
        except Busy:
            raise
        except MiniGPTError as error:  # the other domains can be built all the same
            failures.append(error)
            reporter.note(f"Error: {error}")
            return None
        return None if is_there else time.monotonic() - began

    resolved = {name: resolve_domain(name, online=options.online).name for name in domains_of(options)}
    jobs = [Job(name=stem, lock=claim_of(done, stem), run=partial(build, name)) for name, stem in resolved.items()]
    pull(jobs, done, worker)
    if failures:
        raise failures[0]
