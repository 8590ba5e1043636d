"""Merging, healing, storing and swapping of delta tickets, for `deltas.py`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from minigpt import assets
from minigpt.files import fingerprint
from minigpt.healing import bits_per_byte
from minigpt.machine import measuring_dtype
from minigpt.merging.ways import SCALES
from minigpt.tickets.delta import apply, check_digests, digests, in_dtype, parameters_of
from minigpt.tickets.delta_healing import (
    Lesson,
    changed_by_any,
    equal_shares,
    heal_merged,
    healing_recipe,
    store_lessons,
)
from minigpt.tickets.delta_merge import RULES, merged, overlap
from minigpt.tickets.delta_places import RECORD, WEIGHTS, is_ticket
from minigpt.tickets.delta_store import put_in, read

DOZEN = 12


def merge_rows(rows: Any, benches: Sequence[Any], tag: str, healings: Sequence[tuple[int, float]] = ()) -> None:
    """Merge the tickets of each pair of domains by the rule and scale that are best on both dev texts, and measure.

    Args:
        rows: results.
        benches: the domains.
        tag: name of the tickets.
        healings: steps and learning rate of each healing of the merged model.
    """
    for first, second in combinations(benches, 2):
        pair = f"{first.name}+{second.name}"
        row = rows.get(pair, "merge", tag, lambda first=first, second=second: merge_row(first, second, tag))
        for steps, rate in healings if row is not None else ():
            rows.get(
                pair, f"merge-healed-{steps}-{rate:g}", tag,
                lambda first=first, second=second, row=row, steps=steps, rate=rate: healed_row(
                    first, second, tag, (row["rule"], row["scale"]), steps, rate
                ),
            )  # fmt: skip


def merge_row(first: Any, second: Any, tag: str) -> dict[str, Any]:
    """Merge two tickets: the larger of both dev losses, each relative to that of its own ticket, decides."""
    both = (first, second)
    tickets = [read(bench.work / tag).changes for bench in both]
    own = [bits_per_byte(bench.fresh(bench.weights_of(tag)), bench.dev) for bench in both]
    tried = {}
    for rule in RULES:
        for scale in SCALES:
            weights = merged(first.parent, tickets, rule, scale)
            model = first.fresh(weights)
            ratios = [bits_per_byte(model, bench.dev) / bits for bench, bits in zip(both, own, strict=True)]
            tried[rule, scale] = (max(ratios), ratios)
    rule, scale = min(tried, key=lambda key: tried[key][0])
    weights = merged(first.parent, tickets, rule, scale)
    jaccard, chance = overlap(*tickets, first.parent)
    return {
        "rule": rule,
        "scale": scale,
        "dev_ratios": {f"{rule} {scale:g}": ratios for (rule, scale), (_, ratios) in tried.items()},
        "jaccard": jaccard,
        "jaccard_by_chance": chance,
        "measured": against_own(both, f"merged-{first.name}-{second.name}", tag, weights),
    }


def healed_row(first: Any, second: Any, tag: str, way: Any, steps: int, rate: float) -> dict[str, Any]:
    """Merge two tickets, heal what they change as `minigpt merge --heal` does, and measure."""
    both = (first, second)
    tickets = [read(bench.work / tag).changes for bench in both]
    weights = merged(first.parent, tickets, *way)
    mask, recipe = changed_by_any(tickets, first.parent), healing_recipe(steps, rate)
    texts = equal_shares([bench.domain_text for bench in both])
    own = [bench.weights_of(tag) for bench in both]
    pairs = zip(texts, both, own, strict=True)
    lessons = [Lesson(text=text, dev=bench.dev, weights=partial(dict, theirs)) for text, bench, theirs in pairs]
    answering = first.fresh().to(measuring_dtype(first.device))
    name, model = f"merged-{first.name}-{second.name}", first.fresh(weights)
    key = fingerprint([digests(theirs) for theirs in own])
    with TemporaryDirectory(prefix="answers-", dir=first.work) as answers:
        teacher = store_lessons(lessons, answering, recipe, Path(answers), key=key)
        training = heal_merged(model, mask, lessons, recipe, teacher)
    healed = in_dtype(parameters_of(model), next(iter(weights.values())).dtype)
    ratios = [
        bits_per_byte(first.fresh(healed), bench.dev) / bits_per_byte(bench.fresh(theirs), bench.dev)
        for bench, theirs in zip(both, own, strict=True)
    ]
    changed = sum(int((healed[name].cpu() != tensor).sum()) for name, tensor in first.parent.items())
    return {
        "rule": way[0],
        "scale": way[1],
        "dev_ratios": ratios,
        "dev_losses": training.dev_losses,
        "changed": changed / sum(tensor.numel() for tensor in first.parent.values()),
        "measured": against_own(both, f"{name}-healed", tag, healed),
    }


def against_own(both: Sequence[Any], name: str, tag: str, weights: Any) -> dict[str, Any]:
    """Measure a merged model on the texts of both domains, against the tuned parent and the own ticket of each."""
    measured = {}
    for bench in both:
        references = {"tuned": bench.measured("tuned", bench.tuned), "own": bench.measured(tag, bench.weights_of(tag))}
        measured |= bench.against(name, weights, references)
    return measured


def storage_row(rows: Any, work: Path, base: str, names: Sequence[str]) -> None:
    """Count the bytes of a dozen real tickets beside the parent, and time swapping two of them on the CPU."""
    folders = sorted(folder for name in names for folder in (work / name).iterdir() if is_ticket(folder))
    folders = [folder for folder in folders if is_of_main_size(folder)]
    dozen = [folders[index % len(folders)] for index in range(DOZEN)] if folders else []
    names_of = [str(folder.relative_to(work)) for folder in dozen]
    if dozen:
        rows.get("all", "dozen", names_of, lambda: stored_dozen(dozen, base) | swap_times(dozen[0], dozen[-1], base))


def is_of_main_size(folder: Path) -> bool:
    """Check that a ticket changes about 5 % of the weights and stores new values."""
    record = read(folder).record
    return record.values == "exact" and 0.03 < record.fraction <= 0.051


def stored_dozen(folders: Sequence[Path], base: str) -> dict[str, Any]:
    """Add the bytes of the tickets to those of the parent in bf16."""
    parent = 2 * read(folders[0]).record.parameters
    sizes = [sum((folder / name).stat().st_size for name in (WEIGHTS, RECORD)) for folder in folders]
    total = parent + sum(sizes)
    distinct = len(set(folders))
    return {"tickets": len(sizes), "distinct": distinct, "bytes": total, "bytes_vs_parent": total / parent, "of": base}


def swap_times(first: Path, second: Path, base: str, *, repeats: int = 5) -> dict[str, Any]:
    """Time on the CPU: putting a ticket in with all hashes compared, and swapping two, from files and in memory."""
    model = assets.load_model(assets.parent(base).path, dtype=torch.bfloat16)
    tensors = parameters_of(model)
    times: dict[str, list[float]] = {"put_in_verified": [], "swap_from_file_verified": [], "swap_in_memory": []}
    for _ in range(repeats):
        started = time.perf_counter()
        undo = put_in(model, read(first))
        times["put_in_verified"].append(time.perf_counter() - started)
        started = time.perf_counter()
        apply(tensors, undo)
        other = read(second)
        undo = apply(tensors, other.changes)
        check_digests(tensors, other.record.result, "{name} differs")
        times["swap_from_file_verified"].append(time.perf_counter() - started)
        own = read(first).changes
        started = time.perf_counter()
        apply(tensors, undo)
        undo = apply(tensors, own)
        times["swap_in_memory"].append(time.perf_counter() - started)
        apply(tensors, undo)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"swap_seconds": medians, "threads": torch.get_num_threads()}
