"""Programs that run the tasks of a curation: processes of this machine, Slurm or Ray, by datatrove's executors."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from minigpt.curation.steps import Step
from minigpt.errors import ConfigError, MiniGPTError, first_line
from minigpt.lazy import resolve
from minigpt.progress import Reporter

EXECUTORS = ("local", "slurm", "ray")
# Seconds between two looks at the tasks of a cluster.
POLL_SECONDS = 5.0
# Named, because its module needs datatrove.
SLURM_JOBS = "minigpt.curation.slurm:SlurmJobs"
AGAIN = "run the same command again and it goes on where it stopped"


class Engine(Protocol):
    """A program that runs tasks."""

    def run(self, stage: str, step: Step, tasks: int, reporter: Reporter) -> None:
        """Run all tasks of a stage that are not done yet, and return when all are done."""


@dataclass(frozen=True, slots=True)
class Local:
    """Processes of this machine.

    Attributes:
        logs: Folder in which datatrove records which tasks are done.
        pool: The processes; None to run the tasks in this one.
        workers: Number of processes.
    """

    logs: Path
    pool: ProcessPoolExecutor | None
    workers: int

    def run(self, stage: str, step: Step, tasks: int, reporter: Reporter) -> None:
        """Run all tasks of a stage that are not done yet, and return when all are done.

        Raises:
            MiniGPTError: A task failed, or a process was killed.
        """
        from datatrove.executor import LocalPipelineExecutor

        executor = LocalPipelineExecutor([step], tasks, self.workers, logging_dir=str(self.logs / stage))
        ranks = executor.get_incomplete_ranks()
        if self.pool is None:
            for rank in reporter.track(ranks, title=stage, total=len(ranks)):
                run_rank(executor, rank)
            return
        # datatrove's own pool waits for ever for the task of a process that was killed; this one says so.
        try:
            futures: list[Future[None]] = [self.pool.submit(run_rank, executor, rank) for rank in ranks]
            for future in reporter.track(as_completed(futures), title=stage, total=len(ranks)):
                future.result()
        except BrokenProcessPool:
            raise MiniGPTError(
                f"A worker was killed in the stage {stage!r}, perhaps for lack of memory; {AGAIN}. "
                "Fewer --workers need less memory."
            ) from None


def run_rank(executor: Any, rank: int) -> None:
    """Run the steps of one task, and record that it is done."""
    for step in executor.pipeline:
        step(None, rank, executor.world_size)
    executor.mark_rank_as_completed(rank)


@contextmanager
def local(logs: Path, workers: int) -> Iterator[Local]:
    """Start processes that run tasks until the block ends; a single worker is this process.

    Args:
        logs: Folder in which datatrove records which tasks are done.
        workers: Number of processes.
    """
    if workers == 1:
        yield Local(logs, None, 1)
        return
    processes = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if sys.platform != "win32":
        processes.set_forkserver_preload(["minigpt.curation.steps", "datatrove.executor"])
    pool = ProcessPoolExecutor(workers, mp_context=processes)
    try:
        yield Local(logs, pool, workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines of a cluster that share a file system.

    Attributes:
        logs: Folder in which datatrove records which tasks are done, and which holds the logs of tasks.
        launch: Starts the tasks of a stage; returns datatrove's executor, and a function that says whether they may
            still be running.
    """

    logs: Path
    launch: Callable[[Step, int, str], tuple[Any, Callable[[], bool]]]

    def run(self, stage: str, step: Step, tasks: int, reporter: Reporter) -> None:
        """Run all tasks of a stage that are not done yet, and return when all are done.

        Raises:
            MiniGPTError: Tasks ended without a result.
        """
        logs = self.logs / stage
        try:
            executor, running = self.launch(step, tasks, str(logs))
        except (OSError, subprocess.CalledProcessError) as error:
            raise MiniGPTError(f"The stage {stage!r} could not be started: {first_line(error)}.") from None
        while executor.get_incomplete_ranks(skip_completed=True):
            alive = running()
            left = len(executor.get_incomplete_ranks(skip_completed=True))
            if left and not alive:
                raise MiniGPTError(
                    f"{left} of {tasks} tasks of the stage {stage!r} ended without a result. Their logs are in {logs}; "
                    f"mend the cause, then {AGAIN}."
                )
            reporter.detail(f"{stage}: {tasks - left} of {tasks} tasks")
            time.sleep(POLL_SECONDS if left else 0)


def slurm(logs: Path, workers: int, options: Mapping[str, Any]) -> Cluster:
    """Return an engine that runs each stage as a job array of Slurm.

    Args:
        logs: Folder in which datatrove records which tasks are done.
        workers: Number of tasks that run at a time.
        options: Options of datatrove's executor, such as `partition`, `time` and `mem_per_cpu_gb`.

    Raises:
        ConfigError: There is no Slurm here, or an option is missing or not known.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError("There is no `sbatch` here; run the command on a machine that submits jobs to Slurm.")
    if missing := [name for name in ("partition", "time") if name not in options]:
        raise ConfigError(f"Slurm needs --cluster {missing[0]}=...; see the options of datatrove's Slurm executor.")
    here = f'export PATH="{Path(sys.executable).parent}:$PATH"'

    def launch(step: Step, tasks: int, folder: str) -> tuple[Any, Callable[[], bool]]:
        executor = _with_options(
            resolve(SLURM_JOBS),
            {"env_command": here, "job_name": f"minigpt-{step.name}", **options},
            pipeline=[step],
            tasks=tasks,
            workers=workers,
            logging_dir=folder,
        )
        executor.run()
        return executor, executor.is_running

    return Cluster(logs, launch)


def ray(logs: Path, workers: int, options: Mapping[str, Any]) -> Cluster:
    """Return an engine that runs each stage as tasks of Ray.

    Args:
        logs: Folder in which datatrove records which tasks are done.
        workers: Number of tasks that run at a time.
        options: Options of datatrove's executor, such as `mem_per_cpu_gb`; and `address` of the cluster.

    Raises:
        ConfigError: Ray is not installed, or an option is not known.
    """
    if find_spec("ray") is None:
        raise ConfigError('Ray is not installed. Install it: pip install "ray[default]"')
    import ray as library
    from datatrove.executor import RayPipelineExecutor

    settings = dict(options)
    library.init(address=settings.pop("address", None), ignore_reinit_error=True, log_to_driver=False)

    def launch(step: Step, tasks: int, folder: str) -> tuple[Any, Callable[[], bool]]:
        executor = _with_options(
            RayPipelineExecutor, settings, pipeline=[step], tasks=tasks, workers=workers, logging_dir=folder
        )
        executor.run()
        return executor, lambda: False

    return Cluster(logs, launch)


def _with_options(kind: Callable[..., Any], options: Mapping[str, Any], **fixed: Any) -> Any:
    """Make an executor of datatrove.

    Raises:
        ConfigError: It knows no such option.
    """
    try:
        return kind(**fixed, **options)
    except TypeError as error:
        raise ConfigError(f"datatrove does not take --cluster as it is ({first_line(error)}).") from None
