"""The measurements behind docs/results on a machine with several GPUs, with one process and one results file a GPU.

`unhealed`, `healed-first`, `healed-others` and `recipes` are phases of a few minutes each. A phase that is cut off
continues when it is started again with the same folder: every job always goes to the same GPU, whose results say what
is finished. `--show` prints the commands instead of running them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from minigpt.files import read_jsonl
from minigpt.methods import METHODS

HERE = Path(__file__).parent
SIZES = ("0.9", "0.75", "0.6")
SHIPPED = tuple(name for name, row in METHODS.items() if row.ships)
MASKED = tuple(name for name, row in METHODS.items() if row.paper_form is not None)
# Steps of healing and of tuning the parent, and the number of methods that are healed at every size.
STEPS, TUNE, BEST = 250, 300, 5
# Seconds until a process has its text and unpruned models, of a point without healing, and of a greedy search.
STARTING, EVALUATING, SEARCHING = 45.0, 8.0, 25.0
# Speed of healing.
TOKENS_A_SECOND = 135_000

Chain = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Files of the domains by name, folder of results and work, number of GPUs, and the seconds a process may take."""

    domains: Mapping[str, str]
    folder: Path
    gpus: int
    seconds: int


def expected(method: str, steps: int) -> float:
    """Estimate the seconds of a point on an H200."""
    return EVALUATING + SEARCHING * (method == "greedy-blocks") + steps * 8192 / TOKENS_A_SECOND


def dealt(points: Iterable[tuple[str, str, str]], gpus: int, steps: int) -> list[list[tuple[str, str, str]]]:
    """Deal points over GPUs, always in the same way: the longest point first, each to the GPU that is free first.

    Args:
        points: points as (domain, method, size).
        gpus: number of GPUs.
        steps: healing steps of each point.

    Returns:
        The points of each GPU.
    """
    hands: list[list[tuple[str, str, str]]] = [[] for _ in range(gpus)]
    for point in sorted(points, key=lambda entry: (-expected(entry[1], steps), entry)):

        def load(hand: list[tuple[str, str, str]], point: tuple[str, str, str] = point) -> float:
            # Each run of a domain and size starts a process, which has to read the domain's text.
            runs = {(domain, size) for domain, _, size in [*hand, point]}
            return STARTING * len(runs) + sum(expected(method, steps) for _, method, _ in hand)

        min(hands, key=load).append(point)
    return hands


def methods_command(
    setup: Setup, name: str, domain: str, methods: Sequence[str], sizes: Sequence[str], *more: str, work: str
) -> list[str]:
    """Write the command of a run of `methods.py` that appends to the results `name`."""
    command = [sys.executable, str(HERE / "methods.py"), "--domain", setup.domains[domain], "--device", "cuda"]
    command += ["--methods", ",".join(methods), "--sizes", ",".join(sizes), *more]
    command += ["--results", str(setup.folder / f"{name}.jsonl"), "--work", str(setup.folder / "work" / work)]
    return [*command, "--limit-seconds", str(setup.seconds)]


def unhealed(setup: Setup) -> list[Chain]:
    """Plan every method on every domain with the untuned parent, and the papers' own forms on the first domain."""
    chains: list[Chain] = [[] for _ in range(setup.gpus)]
    runs = [(f"unhealed-{domain}", domain, SHIPPED, ()) for domain in setup.domains]
    first = next(iter(setup.domains))
    for place, (name, domain, methods, more) in enumerate([*runs, (f"masked-{first}", first, MASKED, ("--masked",))]):
        chains[place % setup.gpus].append(methods_command(setup, name, domain, methods, SIZES, *more, work=name))
    return chains


def tuning(setup: Setup, domains: Sequence[str]) -> list[Chain]:
    """Plan the tuning of each domain's parent, once for all GPUs.

    No two trainings on a GPU are alike, and all GPUs must prune the same weights.
    """
    chains: list[Chain] = [[] for _ in range(setup.gpus)]
    for place, domain in enumerate(domains):
        more = ("--heal-steps", "0", "--tune-steps", str(TUNE))
        command = methods_command(setup, f"tuned-{domain}", domain, ["deepest"], ["0.75"], *more, work=f"{domain}-0")
        chains[place % setup.gpus].append(command)
    return chains


def healing(setup: Setup, points: Iterable[tuple[str, str, str]], budgets: str) -> list[Chain]:
    """Plan points with healing, dealt over the GPUs, with one run for each domain and size."""
    chains: list[Chain] = []
    for gpu, hand in enumerate(dealt(points, setup.gpus, STEPS)):
        runs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for domain, method, size in hand:
            runs[domain, size].append(method)
        more = ("--heal-steps", budgets, "--tune-steps", str(TUNE))
        chains.append(
            [
                methods_command(setup, f"healed-{domain}-{gpu}", domain, methods, [size], *more, work=f"{domain}-{gpu}")
                for (domain, size), methods in sorted(runs.items())
            ]
        )
    return chains


def best(folder: Path, domain: str, size: float, count: int = BEST) -> list[str]:
    """Find the `count` methods with the fewest bits per byte after healing in all results of the domain."""
    bits: dict[str, float] = {}
    for path in sorted(folder.glob(f"healed-{domain}-*.jsonl")):
        for row in read_jsonl(path):
            if "healed" in row and row["size"] == size:
                bits[row["method"]] = row["healed"]["bits_per_byte"]
    return sorted(bits, key=lambda method: bits[method])[:count]


def recipes(setup: Setup) -> list[list[Chain]]:
    """Plan the committed recipes on the first domain; the first recipe runs alone and tunes the parent for all."""
    path, domain = HERE / "recipes.jsonl", next(iter(setup.domains))
    first, *rest = [json.loads(line)["tag"] for line in path.read_text("utf-8").splitlines()]

    def command(gpu: int, tags: Sequence[str]) -> list[str]:
        results, tuned = setup.folder / f"recipes-{gpu}.jsonl", setup.folder / "work" / "recipes-tuned.safetensors"
        run = [sys.executable, str(HERE / "healing.py"), "--domain", setup.domains[domain], "--device", "cuda"]
        return [*run, "--tags", ",".join(tags), "--tuned", str(tuned), "--results", str(results)]

    shared = [rest[gpu :: setup.gpus] for gpu in range(setup.gpus)]
    return [[[command(0, [first])]], [[command(gpu, tags)] for gpu, tags in enumerate(shared) if tags]]


def copied(setup: Setup, domains: Sequence[str]) -> None:
    """Copy the folder that tuning left for every GPU, so that no two processes write to one folder."""
    for domain in domains:
        for gpu in range(1, setup.gpus):
            source, target = (setup.folder / "work" / f"{domain}-{index}" for index in (0, gpu))
            if not target.exists():
                shutil.copytree(source, target)


def start(setup: Setup, chains: Sequence[Chain], show: bool) -> None:
    """Run the chains side by side and the commands of a chain one after the other, with one log for each chain."""

    def chain(gpu: int) -> None:
        for command in chains[gpu]:
            line = f"CUDA_VISIBLE_DEVICES={gpu} {shlex.join(command)}"
            sys.stdout.write(f"{line}\n")
            if not show:
                with (setup.folder / f"gpu-{gpu}.log").open("a", encoding="utf-8") as log:
                    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)}
                    code = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
                if code:
                    sys.stdout.write(f"GPU {gpu}: ended with code {code}, see {log.name}\n")

    with ThreadPoolExecutor(max_workers=max(1, len(chains))) as pool:
        list(pool.map(chain, range(len(chains))))


def run(phase: str, setup: Setup, show: bool) -> None:
    """Run all steps of a phase."""
    first, *rest = setup.domains
    if phase in ("unhealed", "recipes"):
        for chains in [unhealed(setup)] if phase == "unhealed" else recipes(setup):
            start(setup, chains, show)
        return
    domains = [first] if phase == "healed-first" else rest
    start(setup, tuning(setup, domains), show)
    if not show:
        copied(setup, domains)
    if phase == "healed-first":
        start(setup, healing(setup, [(first, method, "0.75") for method in SHIPPED], f"0,{STEPS}"), show)
    methods = best(setup.folder, first, 0.75)
    if not methods:
        print(f"No healed point of {first} at 75 % yet, so the best {BEST} methods are not known. Run healed-first.")
        return
    sizes = {first: ("0.9", "0.6")}
    points = [(name, method, size) for name in domains for method in methods for size in sizes.get(name, SIZES)]
    start(setup, healing(setup, points, str(STEPS)), show)


def main() -> None:
    """Run one phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=("unhealed", "healed-first", "healed-others", "recipes"))
    parser.add_argument("--domain", action="append", required=True, metavar="FILE", help="repeats; the first leads")
    parser.add_argument("--folder", type=Path, required=True, help="results, logs and work; keep it between phases")
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--limit-seconds", type=int, default=520, help="time of each process")
    parser.add_argument("--show", action="store_true", help="print the commands only")
    options = parser.parse_args()
    domains = {Path(name).stem: name for name in options.domain}
    setup = Setup(domains=domains, folder=options.folder, gpus=options.gpus, seconds=options.limit_seconds)
    (options.folder / "work").mkdir(parents=True, exist_ok=True)
    run(options.phase, setup, options.show)


if __name__ == "__main__":
    main()
