"""Several cards: healing speed, equal plans, bits per byte, and a sweep by one worker and by several.

    python -m benchmarks.distributed --out runs/distributed --base PARENT --domain medical.yaml --seconds 560

Each measurement is a line of `results.jsonl` in the output folder. One that is there is not made again, so the same
command goes on where a call ended; the table is printed last, also if a measurement is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Tokens of a step of the preset "standard".
STEP_TOKENS = 16384
SIZES = "0.9,0.8,0.7,0.6"
METHODS = "contextual,flap,random"
# Seconds that a measurement gets for its orderly end.
GRACE = 30


class Bench:
    """Measurements that are kept in a file, within a number of seconds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.started = options, time.monotonic()
        self.folder: Path = options.out.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "results.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.results: dict[str, dict[str, Any]] = {line["name"]: line for line in map(json.loads, lines)}
        self.missing: list[str] = []

    @property
    def left(self) -> float:
        """Seconds until the call must end."""
        return float(self.options.seconds - (time.monotonic() - self.started))

    def measure(self, name: str, least: float, command: list[str], read: Callable[[str], dict[str, Any]]) -> None:
        """Run a command unless its result is there; its time adds up over calls if it is cut off and resumes."""
        before = self.results.get(name, {})
        if before.get("done"):
            return
        self.missing.append(name)
        if self.left < least + GRACE:
            return
        print(f"{name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        code, out = self.run(command, self.left - GRACE, name)
        seconds = before.get("seconds", 0.0) + time.monotonic() - started
        line: dict[str, Any] = {
            "name": name,
            "done": code == 0,
            "seconds": seconds,
            "calls": before.get("calls", 0) + 1,
        }
        if code == 0:
            line |= read(out)
            self.missing.remove(name)
        elif code is not None:
            line["error"] = out.strip().splitlines()[-1:] or f"exit code {code}"
        self.results[name] = line
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def run(self, command: list[str], seconds: float, name: str) -> tuple[int | None, str]:
        """Return exit code (None: cut off) and standard output of a command; errors go to a log file."""
        home = self.folder / "home" / ("sweep-" + name if name.startswith("sweep") else "builds")
        environment = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "4", **os.environ}
        paths = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
        environment |= {"PYTHONPATH": paths, "MINIGPT_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        log = self.folder / f"{name}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
            try:
                out, _ = process.communicate(timeout=max(1.0, seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                try:
                    process.communicate(timeout=GRACE / 2)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
                return None, ""
            except KeyboardInterrupt:
                process.send_signal(signal.SIGTERM)
                process.wait(GRACE / 2)
                raise
        tail = log.read_text(errors="replace") if process.returncode else ""
        return process.returncode, out.decode() or tail

    def processes(self, count: int) -> list[str]:
        """Return the beginning of a command line for so many processes."""
        if count == 1:
            return [sys.executable]
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]

    def healing(self) -> None:
        """Measure tokens a second: with the same step for any number of cards, and with a step that grows with them."""
        options = self.options
        for shape in options.shapes:
            for count in options.cards:
                for grows in (step == "grown" for step in options.growth):
                    tokens = options.tokens * (count if grows else 1)
                    name = f"healing {shape} {count} {'grown' if grows else 'fixed'}"
                    if grows and count == 1:
                        continue
                    arguments = ["--shape", shape, "--tokens", str(tokens), "--device", options.device]
                    arguments += ["--steps", str(options.steps), "--warm", str(options.warm)]
                    arguments += ["--optimizer", options.optimizer, *(["--plain"] if options.plain else [])]
                    command = [*self.processes(count), "-m", "benchmarks.distributed_healing", *arguments]
                    self.measure(name, 60, command, lambda out: json.loads(out.strip().splitlines()[-1]))

    def builds(self) -> None:
        """Build with the preset, and note the plan and bits per byte."""
        for count in self.options.cards:
            folder = self.folder / f"build-{count}"

            def read(out: str, folder: Path = folder) -> dict[str, Any]:
                report = json.loads(out)
                plan = json.loads((folder / "plan.json").read_text())
                words = json.dumps(plan, sort_keys=True).encode()
                metrics = report["stages"][-1]["metrics"]
                bits = {
                    item["task"]: item["value"]
                    for item in metrics
                    if item["metric"] == "bits_per_byte" and "/" not in item["task"]
                }
                named = {"general" if task == "general" else "domain": value for task, value in bits.items()}
                return {"plan": hashlib.sha256(words).hexdigest()[:16], "bits": named}

            command = [*self.processes(count), "-m", "minigpt", "build", *self.common(), "--output-dir", str(folder)]
            self.measure(f"build {count}", 60, [*command, "--preset", self.options.preset, "--json"], read)

    def sweeps(self) -> None:
        """Sweep twelve points with the smallest and with the largest number of cards, a worker each."""
        for count in sorted({min(self.options.cards), max(self.options.cards)}):
            folder = self.folder / f"sweep-{count}"
            command = [sys.executable, "-m", "minigpt", "sweep", *self.common(), "--output-dir", str(folder)]
            command += ["--methods", METHODS, "--sizes", SIZES, "--healing", "preset", "--no-pictures", "--json"]
            command += ["--workers", str(count), "--preset", "quick"]
            read = lambda out: {"cells": digest(out)}  # noqa: E731 (one expression)
            self.measure(f"sweep {count}", 60, command, read)

    def common(self) -> list[str]:
        """Return the options that builds and sweeps share."""
        options = self.options
        settings = [part for setting in options.set for part in ("--set", setting)]
        return ["--base", options.base, "--domain", str(options.domain), "--device", options.device, *settings]

    def table(self) -> Iterator[str]:
        """Yield the lines of the table."""
        for name, line in self.results.items():
            kind, *rest = name.split()
            alone = self.results.get(" ".join([kind, *(["1"] if kind != "healing" else [rest[0], "1", "fixed"])]), {})
            if not line.get("done"):
                yield f"{name:28} not done ({line['seconds']:.0f} s so far) {line.get('error', '')}"
            elif kind == "healing":
                count = int(rest[1])
                share = line["tokens_per_second"] / (count * alone.get("tokens_per_second", float("nan")))
                yield (
                    f"{name:28} {line['tokens_per_second']:12,.0f} tokens/s {line['milliseconds']:8.1f} ms a step "
                    f"(exchange {line['exchange_ms']:.1f}) {share:6.3f} of linear  {line['peak_gib']:5.1f} GiB"
                )
            elif kind == "build":
                bits = line["bits"]
                apart = {task: round(bits[task] - alone["bits"][task], 5) for task in bits} if "bits" in alone else {}
                same = line["plan"] == alone.get("plan")
                yield f"{name:28} {line['seconds']:7.0f} s  plan equal: {same}  bits per byte {bits}  apart {apart}"
            else:
                ratio = alone.get("seconds", float("nan")) / line["seconds"]
                same = line["cells"] == alone.get("cells")
                yield f"{name:28} {line['seconds']:7.0f} s  {ratio:5.2f} times as fast as one  results equal: {same}"


def digest(out: str) -> str:
    """Return a hash of the cells of a sweep's result."""
    cells = [domain["cells"] for domain in json.loads(out)["domains"]]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/distributed"))
    parser.add_argument("--base", default="")
    parser.add_argument("--domain", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--cards", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=["135m", "1.2b"])
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["healing", "builds", "sweeps"])
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--tokens", type=int, default=STEP_TOKENS)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm", type=int, default=20)
    parser.add_argument("--growth", type=lambda text: text.split(","), default=["fixed", "grown"])
    parser.add_argument("--plain", action="store_true", help="do not compile the layers")
    options = parser.parse_args()
    bench = Bench(options)
    for part in options.parts:
        if part == "healing" or (options.base and options.domain):
            getattr(bench, part)()
    print(*bench.table(), sep="\n")
    sys.exit(1 if bench.missing else 0)


if __name__ == "__main__":
    main()
