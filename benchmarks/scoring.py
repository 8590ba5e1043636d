"""What each method's scoring costs: time and peak memory as ratios to one plain forward pass over the same tokens.

All in one process and side by side: a warm-up, the forward pass without and with the head, then every method with
nothing shared between them, each repeated; the median counts. A GPU is timed by the clock, a processor by the time it
worked for this process, so that a machine with other load tells the same. Scoring is what it takes to know which units
or layers go (a quarter of the layers for depth methods); repair, cutting and healing are not in it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from minigpt import assets
from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from minigpt.files import read_jsonl
from minigpt.machine import device_name
from minigpt.methods import METHODS, Method, resolve
from minigpt.methods.material import Material, gather
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.transformer.batches import run_decoder
from minigpt.transformer.calibration import calibration_batches, token_counts

KEPT = 0.75
PAGE = 4096


class Peak:
    """The most memory in use while the block ran: what the allocator held on a GPU, the process's pages on a CPU."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes = device, 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch from here to the end of the block, after what earlier jobs left behind is given back."""
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            yield
            torch.cuda.synchronize()
            self.bytes = torch.cuda.max_memory_allocated()
            return
        ctypes.CDLL(None).malloc_trim(0)
        done = threading.Event()
        thread = threading.Thread(target=self._sample, args=(done,))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _sample(self, done: threading.Event) -> None:
        waiting = True
        while waiting:
            waiting = not done.wait(0.005)
            self.bytes = max(self.bytes, int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)


def measured(job: Callable[[], object], device: str, repeats: int) -> tuple[float, int]:
    """Median seconds and the highest peak of `repeats` runs."""
    seconds, highest = [], 0
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    for _ in range(repeats):
        peak = Peak(device)
        with peak.watched():
            start = clock()
            job()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds.append(clock() - start)
        highest = max(highest, peak.bytes)
    return median(seconds), highest


def forward(model: Any, batches: list[Any], *, head: bool) -> None:
    """A pass over the text; with `head` the logits are made and dropped."""
    with torch.inference_mode():
        for batch in batches:
            states = run_decoder(model, batch)
            if head:
                for part in states.flatten(0, 1).split(1024):
                    model.get_output_embeddings()(part)


def scoring(method: Method, make: Callable[[], Material]) -> Callable[[], object] | None:
    """What finds out which units go; None for a method that has only a form to be evaluated."""
    if method.rank is not None:
        return lambda: resolve(method.rank or "")(make())
    if method.layers is not None:
        return lambda: resolve(method.layers or "")(material := make(), round(KEPT * shape_of(material.model).layers))
    return None


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of the lines; of a method that was measured twice, the last counts."""
    lines = ["| method | tokens | runs | time / forward pass | peak memory / forward pass |", "|---|---|---|---|---|"]
    for row in {row["method"]: row for row in rows}.values():
        lines.append(
            f"| {row['method']} | {row['tokens']:,} | {row['repeats']} | {row['time_ratio']:.2f} | "
            f"{row['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print and append one JSON line a method, and with `--table` the table of all lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", default="medical")
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--table", action="store_true", help="print the results as a table and measure nothing")
    chosen = parser.parse_args()
    if chosen.table:
        print(table(read_jsonl(chosen.results)))
        return
    folder = assets.parent(chosen.base).path
    model, tokenizer = (
        assets.load_model(folder, dtype=torch.float32, device=chosen.device),
        assets.load_tokenizer(folder),
    )
    text = build_corpus(load_domain(chosen.domain)).calibration
    batches = calibration_batches(
        tokenizer, text, window=chosen.window, tokens=chosen.tokens, batch_tokens=chosen.batch_tokens
    )
    counts = token_counts(tokenizer, text)

    def make() -> Material:
        return gather(model, batches, counts=counts)

    forward(model, batches[:1], head=True)
    plain, memory = measured(lambda: forward(model, batches, head=False), chosen.device, chosen.repeats)
    rows = {"(forward)": (plain, memory)}
    rows["(forward and head)"] = measured(lambda: forward(model, batches, head=True), chosen.device, chosen.repeats)
    for name in chosen.methods.split(","):
        if (job := scoring(METHODS[name], make)) is not None:
            rows[name] = measured(job, chosen.device, chosen.repeats)
    for name, (seconds, peak) in rows.items():
        row = {
            "method": name,
            "seconds": round(seconds, 3),
            "time_ratio": round(seconds / plain, 2),
            "peak_bytes": peak,
            "memory_ratio": round(peak / memory, 2),
            "tokens": sum(batch.tokens for batch in batches),
            "parameters": parameters_of(model),
            "device": device_name(chosen.device),
            "domain": chosen.domain,
            "repeats": chosen.repeats,
            "threads": torch.get_num_threads(),
        }
        print(json.dumps(row), flush=True)
        if chosen.results:
            with chosen.results.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
