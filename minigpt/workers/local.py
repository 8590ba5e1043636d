"""Workers on this machine: one for each card, or processes that share the cores where there is no card."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from minigpt import environment
from minigpt.errors import ConfigError

# Seconds that a worker has to end in an orderly way.
GRACE = 10.0


class LocalCrew:
    """Processes of this machine.

    Args:
        processes: the workers.
        logs: what each of them says.
    """

    def __init__(self, processes: list[subprocess.Popen[bytes]], logs: list[Path]) -> None:
        self.processes, self.logs = processes, logs

    def alive(self) -> int:
        """Return how many still run (:meth:`minigpt.workers.crew.Crew.alive`)."""
        return sum(process.poll() is None for process in self.processes)

    def stop(self) -> None:
        """End those that still run, gently and then for good."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def complaint(self) -> str | None:
        """Return the last line of the log of a worker that failed."""
        for process, log in zip(self.processes, self.logs, strict=True):
            if process.poll():
                lines = log.read_text("utf-8", errors="replace").strip().splitlines()
                return lines[-1].removeprefix("Error: ").rstrip(".") if lines else f"exit code {process.returncode}"
        return None


def start(
    command: Callable[[int], list[str]], count: int | None, folder: Path, options: Mapping[str, str]
) -> LocalCrew:
    """Start processes of which each sees one card, or a share of the cores.

    Args:
        command: command line of each worker, by its number.
        count: number of workers (None: one for each card, or one).
        folder: folder for their logs.
        options: must be empty.

    Raises:
        ConfigError: there are fewer cards than workers, or there are options.
    """
    if options:
        raise ConfigError("--worker-option is for Slurm. Leave it out, or use --workers slurm.")
    cards = visible_cards()
    count = count or max(1, len(cards))
    if cards and count > len(cards):
        raise ConfigError(f"{count} workers need a card each, and there are {len(cards)}. Use --workers {len(cards)}.")
    processes, logs = [], []
    for number in range(count):
        log = folder / f"worker-{number}.log"
        with log.open("wb") as stream:
            processes.append(
                subprocess.Popen(
                    command(number),
                    env=_environment(cards[number] if cards else None, count),
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            )
        logs.append(log)
    return LocalCrew(processes, logs)


def visible_cards() -> list[str]:
    """Return the names of the CUDA devices that this process may use, as the environment variable takes them."""
    import torch

    count = torch.cuda.device_count()
    return (environment.visible_devices() or [str(number) for number in range(count)])[:count]


def _environment(card: str | None, count: int) -> dict[str, str]:
    """Return the environment of a worker: its card, and its share of the cores."""
    values = environment.without_group()
    if card is not None:
        return {**values, "CUDA_VISIBLE_DEVICES": card}
    return {**values, "OMP_NUM_THREADS": str(max(1, (environment.threads() or os.cpu_count() or 1) // count))}
