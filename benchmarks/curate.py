"""Curation of a corpus that is generated from a seed: documents a second and peak memory, for one and more workers.

    python -m benchmarks.curate --documents 100000 --workers 1 2

Memory is the largest sum of the resident memory of a command and all of its children, looked at ten times a second;
pages that they share count several times. The text has about 1 kB a document; of twenty documents one repeats another
word for word, and one with a few changed words. After the curation a build's reading of the shards is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

SHARE = 20
READ = """
import json, sys
from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from minigpt.pipeline.settings import PRESETS
corpus = build_corpus(load_domain(sys.argv[1]), max_documents=PRESETS["quick"].corpus.max_documents)
print(json.dumps({split: len(getattr(corpus, split)) for split in ("calibration", "train", "dev", "heldout")}))
"""


def vocabulary(size: int = 20_000) -> list[str]:
    """Return words of letters, always the same."""
    draws = random.Random(0)
    return ["".join(draws.choices("abcdefghijklmnopqrstuvwxyz", k=draws.randint(2, 11))) for _ in range(size)]


def own_words(seed: int, number: int, words: Sequence[str], weights: Sequence[float]) -> list[str]:
    """Return the words that a document would have if it repeated no other."""
    draws = random.Random(f"{seed}/{number}")
    return draws.choices(words, cum_weights=weights, k=draws.randint(80, 220))


def rows(documents: int, seed: int) -> Iterator[str]:
    """Yield the lines of a file of JSON lines."""
    words = vocabulary()
    weights = [0.0]
    for rank in range(len(words)):
        weights.append(weights[-1] + 1 / (rank + 10))  # as in real text, a few words make up much of it
    for number in range(documents):
        draws = random.Random(f"{seed}:{number}")
        copied = draws.randrange(number) if number and number % SHARE < 2 else number
        tokens = own_words(seed, copied, words, weights[1:])
        if number % SHARE == 1:
            tokens[draws.randrange(len(tokens))] = "changed"
        yield json.dumps({"text": " ".join(tokens), "source": f"document {number}"})


def generate(folder: Path, documents: int, seed: int) -> int:
    """Write the text unless it is there; return its bytes."""
    file = folder / "text.jsonl"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".part")
        with temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{row}\n" for row in rows(documents, seed))
        temporary.rename(file)
    return file.stat().st_size


def measured(command: Sequence[str]) -> tuple[str, float, float]:
    """Run a command; return its output, its seconds, and the peak memory of it and its children in MB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peak[0] = max(peak[0], resident(process.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    output, _ = process.communicate()
    over.set()
    thread.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return output, time.perf_counter() - begin, peak[0] / 2**20


def resident(pid: int) -> int:
    """Add up the resident memory of a process and its children."""
    total = 0
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def main() -> None:
    """Measure and print one JSON object for each number of workers, and one for the reading of a build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("curate-benchmark"), help="for the text and the results")
    options = parser.parse_args()
    text = options.folder / f"text-{options.documents}-{options.seed}"
    size = generate(text, options.documents, options.seed)
    shards = text
    for workers in options.workers:
        shards = options.folder / f"shards-{options.documents}-{options.seed}-{workers}"
        command = [sys.executable, "-m", "minigpt", "corpus", "curate", str(text), "-o", str(shards), "--json", "-q"]
        output, seconds, peak = measured([*command, "--workers", str(workers)])
        result = {
            "documents": options.documents,
            "bytes": size,
            "workers": workers,
            "seconds": round(seconds, 1),
            "documents_per_second": round(options.documents / seconds),
            "peak_mb": round(peak),
            "load": round(os.getloadavg()[0], 1),
            "counts": json.loads(output)["counts"],
        }
        print(json.dumps(result), flush=True)
    output, seconds, peak = measured([sys.executable, "-c", READ, str(shards)])
    read = {"reading_seconds": round(seconds, 1), "reading_peak_mb": round(peak), "passages": json.loads(output)}
    print(json.dumps(read), flush=True)


if __name__ == "__main__":
    main()
