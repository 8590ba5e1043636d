"""Time and peak memory of each method's scoring, as ratios to one plain forward pass over the same tokens.

All runs are in one process: a warm-up, the forward pass without and with the head, then every method. Methods share
nothing. Each run is repeated, and the median counts. A GPU is timed by the clock. A processor is timed by the time that
it worked for this process, so that other load on the machine does not matter. Scoring is to find out which units or
layers are removed (a quarter of the layers for depth methods). Repair, cutting and healing are not included.
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

# Share of the layers that depth methods keep.
KEPT = 0.75
# Bytes of a memory page.
PAGE = 4096


class Peak:
    """Peak of memory while a block runs: of the allocator on a GPU, of the process's pages on a CPU."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes = device, 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch memory from here to the end of the block, after freeing what earlier jobs left behind."""
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
        """Read the size of the process every few milliseconds until `done` is set, and once after."""
        waiting = True
        while waiting:
            waiting = not done.wait(0.005)
            self.bytes = max(self.bytes, int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)


def measured(job: Callable[[], object], device: str, repeats: int) -> tuple[float, int]:
    """Run a job `repeats` times and return the median seconds and the highest peak of memory in bytes."""
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
    """Run one pass over the text; with `head` the logits are computed, too, and dropped."""
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
    """Write a Markdown table of the lines; where a method was measured twice, the last line counts."""
    lines = ["| method | tokens | runs | time / forward pass | peak memory / forward pass |", "|---|---|---|---|---|"]
    for row in {row["method"]: row for row in rows}.values():
        lines.append(
            f"| {row['method']} | {row['tokens']:,} | {row['repeats']} | {row['time_ratio']:.2f} | "
            f"{row['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print and append one JSON line for each method, or print the table of all lines with `--table`."""
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
    options = parser.parse_args()
    if options.table:
        print(table(read_jsonl(options.results)))
        return
    folder = assets.parent(options.base).path
    model, tokenizer = (
        assets.load_model(folder, dtype=torch.float32, device=options.device),
        assets.load_tokenizer(folder),
    )
    text = build_corpus(load_domain(options.domain)).calibration
    batches = calibration_batches(
        tokenizer, text, window=options.window, tokens=options.tokens, batch_tokens=options.batch_tokens
    )
    counts = token_counts(tokenizer, text)

    def make() -> Material:
        return gather(model, batches, counts=counts)

    forward(model, batches[:1], head=True)
    plain, memory = measured(lambda: forward(model, batches, head=False), options.device, options.repeats)
    rows = {"(forward)": (plain, memory)}
    rows["(forward and head)"] = measured(lambda: forward(model, batches, head=True), options.device, options.repeats)
    for name in options.methods.split(","):
        if (job := scoring(METHODS[name], make)) is not None:
            rows[name] = measured(job, options.device, options.repeats)
    for name, (seconds, peak) in rows.items():
        row = {
            "method": name,
            "seconds": round(seconds, 3),
            "time_ratio": round(seconds / plain, 2),
            "peak_bytes": peak,
            "memory_ratio": round(peak / memory, 2),
            "tokens": sum(batch.tokens for batch in batches),
            "parameters": parameters_of(model),
            "device": device_name(options.device),
            "domain": options.domain,
            "repeats": options.repeats,
            "threads": torch.get_num_threads(),
        }
        print(json.dumps(row), flush=True)
        if options.results:
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
