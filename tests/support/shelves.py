"""Text for curation: documents from a seed, some of them repeated word for word, nearly, or in a cluster of copies."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

WORDS = [
    f"{a}{b}{c}" for a in ("ba", "de", "ki", "lo", "mu", "ra") for b in ("nel", "tor", "sim", "pa") for c in "aeioust"
]


def words(random_: random.Random, count: int) -> list[str]:
    return random_.choices(WORDS, k=count)


def texts(count: int, *, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Names and texts: a tenth repeats an earlier one, exactly or with a changed word, and one text comes 40 times."""
    draws = random.Random(seed)
    past: list[list[str]] = []
    for number in range(count):
        kind = draws.random()
        tokens = words(draws, draws.randint(40, 120))
        if past and kind < 0.05:
            tokens = list(draws.choice(past))
        elif past and kind < 0.10:
            tokens = list(draws.choice(past))
            tokens[draws.randrange(len(tokens))] = "changed"
        elif number % 10 == 7:
            tokens = [*past[0], *words(draws, 1)]
        past.append(tokens)
        yield f"doc-{number}", " ".join(tokens)


def shelf(folder: Path, count: int = 400, *, seed: int = 0) -> Path:
    """A folder with two files of JSON lines, some of whose rows share a document, and two files of plain text."""
    folder.mkdir(parents=True)
    rows = list(texts(count, seed=seed))
    for name, part in (("a.jsonl", rows[: count // 2]), ("b.jsonl", rows[count // 2 :])):
        lines = [
            json.dumps({"text": text, "source": source if int(source[4:]) % 7 else f"group-{int(source[4:]) // 50}"})
            for source, text in part
        ]
        (folder / name).write_text("\n".join([*lines[:3], "", *lines[3:]]) + "\n", "utf-8")
    draws = random.Random(seed + 1)
    for name in ("c.txt", "d.md"):
        (folder / name).write_text("\n\n".join(" ".join(words(draws, 90)) for _ in range(12)), "utf-8")
    return folder


def domain_file(folder: Path, path: Path, *, more: str = "") -> Path:
    """A domain of the text in a folder."""
    path.write_text(f"name: shelf\ncorpus:\n  - name: shelf\n    file: {folder}\n    license: CC0\n{more}", "utf-8")
    return path
