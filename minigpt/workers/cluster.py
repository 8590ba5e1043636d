"""Workers that Ray or Slurm start; both only run the same command lines, and the folder must be one that they see."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minigpt.errors import ConfigError, first_line

# Workers on Slurm where the user names no number.
SLURM_WORKERS = 4
# Minutes that Slurm gives a worker where the user names none.
SLURM_MINUTES = 24 * 60


class ClusterCrew:
    """Workers behind handles that can be asked whether they are done.

    Args:
        handles: one for each worker.
        is_done: asks a handle.
        end: ends the worker of a handle.
        failure: returns the last words of the worker of a handle that is done, if it failed.
    """

    def __init__(
        self,
        handles: list[Any],
        is_done: Callable[[Any], bool],
        end: Callable[[Any], object],
        failure: Callable[[Any], str | None],
    ) -> None:
        self.handles, self._is_done, self._end, self._failure = handles, is_done, end, failure

    def alive(self) -> int:
        """Return how many still run or wait (:meth:`minigpt.workers.crew.Crew.alive`)."""
        return sum(not self._is_done(handle) for handle in self.handles)

    def stop(self) -> None:
        """End those that still run or wait."""
        for handle in self.handles:
            if not self._is_done(handle):
                self._end(handle)

    def complaint(self) -> str | None:
        """Return the last words of one that failed."""
        done = (handle for handle in self.handles if self._is_done(handle))
        return next((words for handle in done if (words := self._failure(handle))), None)


def need(package: str, extra: str) -> Any:
    """Import the package of an extra.

    Raises:
        ConfigError: it is missing.
    """
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"--workers {extra} needs {package}. Run pip install 'minigpt[{extra}]'.")
    return importlib.import_module(package)


def start_ray(
    command: Callable[[int], list[str]], count: int | None, folder: Path, options: Mapping[str, str]
) -> ClusterCrew:
    """Start workers by Ray, in the cluster that it finds or on this machine; Ray gives each a card.

    Args:
        command: command line of each worker, by its number.
        count: number of workers (None: one for each card of the cluster, or one).
        folder: folder for their logs.
        options: must be empty.

    Raises:
        ConfigError: Ray is missing, does not start, or has fewer cards than workers.
    """
    ray = need("ray", "ray")
    if options:
        raise ConfigError("--worker-option is for Slurm. Leave it out, or use --workers slurm.")
    try:
        ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # a cluster that is gone, an address that is wrong
        raise ConfigError(f"Ray does not start ({first_line(error)}). Mend that or use --workers N.") from error
    cards = int(ray.cluster_resources().get("GPU", 0))
    count = count or max(1, cards)
    if cards and count > cards:
        raise ConfigError(f"{count} workers need a card each, and Ray has {cards}. Use --workers ray:{cards}.")
    run = ray.remote(num_gpus=1 if cards else 0, num_cpus=1, max_retries=0)(run_logged)
    handles = [run.remote(command(number), str(folder / f"worker-{number}.log")) for number in range(count)]

    def is_done(handle: Any) -> bool:
        return bool(ray.wait([handle], timeout=0)[0])

    def failure(handle: Any) -> str | None:
        try:
            code = ray.get(handle)
        except Exception as error:  # the worker's machine is gone
            return first_line(error)
        return f"exit code {code}" if code else None

    return ClusterCrew(handles, is_done, lambda handle: ray.cancel(handle), failure)


def run_logged(command: list[str], log: str) -> int:
    """Run a command line with a log file, and return its exit code."""
    with open(log, "wb") as stream:
        return subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode


def start_slurm(
    command: Callable[[int], list[str]], count: int | None, folder: Path, options: Mapping[str, str]
) -> ClusterCrew:
    """Submit workers to Slurm by submitit, which runs them on this machine where there is no Slurm.

    Args:
        command: command line of each worker, by its number.
        count: number of workers (None: `SLURM_WORKERS`).
        folder: folder for logs and for submitit's own files.
        options: parameters of submitit's executor, e.g. `slurm_partition`; `cluster` names its kind: slurm, local or
            debug.

    Raises:
        ConfigError: submitit is missing, or refuses an option.
    """
    submitit = need("submitit", "slurm")
    parameters: dict[str, Any] = {name: int(text) if text.isdigit() else text for name, text in options.items()}
    cluster = parameters.pop("cluster", None)
    try:
        executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster)
        executor.update_parameters(**{"name": "minigpt", "timeout_min": SLURM_MINUTES, **parameters})
    except Exception as error:
        raise ConfigError(f"Slurm's options are refused ({first_line(error)}). Mend --worker-option.") from error
    lines = [shlex.join(command(number)) for number in range(count or SLURM_WORKERS)]
    functions = [submitit.helpers.CommandFunction(shlex.split(line), verbose=False) for line in lines]
    handles = [executor.submit(function) for function in functions]

    def failure(handle: Any) -> str | None:
        error = handle.exception()
        return None if error is None else first_line(error)

    return ClusterCrew(handles, lambda handle: handle.done(), lambda handle: handle.cancel(), failure)
