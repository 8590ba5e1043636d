"""How much of an encoder's quality conditional layers keep: `python -m benchmarks.encoder --json OUT`.

The packaged encoder (all-MiniLM-L6-v2, six layers of 1,536 neurons) is fine-tuned on tasks made from text, with its
dense feed-forward layers, with conditional ones, and without any: the control. All get the same steps on the same
batches and the better of the same learning rates by dev items; conditional layers were distilled layer by layer before.
A task counts where dense beats the control by five points. Intervals are 95 % from a bootstrap over items and seeds.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from benchmarks.encoder_model import ARMS, Batches, Encoder, Student, convert, load, train, visited
from benchmarks.encoder_tasks import Task, make, read_folder, read_packaged
from minigpt.files import write_json

# Points by which dense must beat the control.
_GAP = 0.05
_RESAMPLES = 2000
_SHOWN = ("score", "retention", "retention_above_control")
Run = dict[str, Any]


def fine_tuned(encoder: Encoder, model: Any, task: Task, seed: int, options: argparse.Namespace) -> Run:
    """Fine-tune an arm's model on a task with each learning rate, and ask the one that is best on dev items."""
    best: Run = {"dev": -1.0}
    for lr in options.lrs:
        torch.manual_seed(seed)
        student = Student(deepcopy(model), task.classes, model.config.hidden_size).to(options.device)
        train(student, Batches(encoder, task, options.batch, seed), steps=options.steps, lr=lr)
        dev = mean(right(student, encoder, task, "dev"))
        if dev > best["dev"]:
            neurons, total, difference = visited(student, encoder, task.splits["test"])
            best = {"dev": dev, "lr": lr, "visited": neurons, "total": total, "difference_of_forms": difference}
            best["correct"] = "".join(map(str, right(student, encoder, task, "test")))
    return best


def right(student: Student, encoder: Encoder, task: Task, split: str) -> list[int]:
    """Return 1 for each item of a split that is answered right, else 0."""
    items = task.splits[split]
    return [int(one == item.answer) for one, item in zip(student.answers(encoder, items), items, strict=True)]


def runs(encoder: Encoder, tasks: Sequence[Task], options: argparse.Namespace) -> Iterator[Run]:
    """Yield a record of each arm, seed and task, until the time is over."""
    started = time.monotonic()
    texts = calibration(tasks, options.texts)
    models: dict[str, Any] = {}
    errors: dict[str, list[float]] = {}
    for seed in options.seeds:
        for arm in options.arms:
            for task in tasks:
                if time.monotonic() - started > options.seconds:
                    print(f"time is over before {arm}, seed {seed}, {task.name}", flush=True)
                    return
                if arm not in models:
                    models[arm], errors[arm] = convert(encoder, arm, texts, options.distill)
                begin = time.monotonic()
                run = {"arm": arm, "seed": seed, "task": task.name}
                run |= fine_tuned(encoder, models[arm], task, seed, options)
                yield run | {"seconds": time.monotonic() - begin, "errors": errors[arm]}


def calibration(tasks: Sequence[Task], count: int) -> list[str]:
    """Return training texts of all tasks in turn, for conversion and distillation."""
    generator, texts = random.Random(0), []
    for task in tasks:
        some = [text for item in task.splits["train"] for text in (item.text, *item.choices)]
        texts += generator.sample(some, min(len(some), count // len(tasks)))
    generator.shuffle(texts)
    return texts


def summary(records: Sequence[Run]) -> dict[str, Any]:
    """Return scores, which tasks count, and each arm's retention, with intervals."""
    names = sorted({run["task"] for run in records})
    tables = {(run["arm"], run["task"]): table(records, run["arm"], run["task"]) for run in records}
    generator, rows, counting = np.random.default_rng(0), [], []
    resampled: dict[str, list[Any]] = {}
    for task in names:
        dense, control = (tables.get((arm, task)) for arm in ("dense", "control"))
        if dense is None or control is None:
            continue
        counts = bool(dense.mean() - control.mean() >= _GAP)
        counting += [task] * counts
        for arm in sorted({arm for arm, other in tables if other == task}, key=list(ARMS).index):
            results, drawn = retained(tables[arm, task], dense, control, generator)
            rows.append({"task": task, "counts": counts, **results, "arm": arm, **neurons(records, arm, task)})
            if counts:
                resampled.setdefault(arm, []).append(drawn)
    return {"rows": rows, "counting": counting, "arms": overall(rows, resampled)}


def table(records: Sequence[Run], arm: str, task: str) -> Any:
    """Return the right answers of an arm as an array [seeds, items]."""
    some = sorted((run for run in records if (run["arm"], run["task"]) == (arm, task)), key=lambda run: run["seed"])
    return np.array([[int(one) for one in run["correct"]] for run in some], dtype=float)


def neurons(records: Sequence[Run], arm: str, task: str) -> dict[str, float]:
    """Return the mean number of visited neurons, and of all, of an arm's layers after a task's training."""
    some = [run for run in records if (run["arm"], run["task"]) == (arm, task)]
    return {name: mean(run[name] for run in some) for name in ("visited", "total")} | {"seeds": len(some)}


def retained(arm: Any, dense: Any, control: Any, generator: Any) -> tuple[dict[str, Any], Any]:
    """Return score, retention and retention above the control of an arm with 95 % intervals, and what was drawn."""

    def of(a: float, d: float, c: float) -> tuple[float, float, float]:
        gap = d - c
        return a, a / max(d, 1e-9), (a - c) / gap if abs(gap) > 1e-9 else float("nan")

    drawn = []
    for _ in range(_RESAMPLES):
        items = generator.integers(0, arm.shape[1], arm.shape[1])
        means = [one[generator.integers(0, len(one), len(one))][:, items].mean() for one in (arm, dense, control)]
        drawn.append(of(*map(float, means)))
    values = of(float(arm.mean()), float(dense.mean()), float(control.mean()))
    return with_intervals(values, np.array(drawn)), np.array(drawn)


def with_intervals(values: Sequence[float], drawn: Any) -> dict[str, Any]:
    """Return the three values with what 95 % of the drawn ones [draws, 3] lie between; None where one is undefined."""
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    columns = {"value": values, "low": low, "high": high}
    return {
        name: {column: numbers[i] if np.isfinite(numbers[i]) else None for column, numbers in columns.items()}
        for i, name in enumerate(_SHOWN)
    }


def overall(rows: Sequence[Mapping[str, Any]], resampled: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return each arm's means over the tasks that count; intervals come from the tasks' draws, which are independent.

    Args:
        rows: a row for each task and arm.
        resampled: for each arm what was drawn for each task that counts.
    """
    result = []
    for arm, draws in resampled.items():
        some = [row for row in rows if row["counts"] and row["arm"] == arm]
        values = [mean(row[name]["value"] for row in some) for name in _SHOWN]
        result.append({
            "arm": arm, "tasks": len(some), "visited": mean(row["visited"] for row in some), "total": some[0]["total"],
            **with_intervals(values, np.mean(draws, axis=0)),
        })  # fmt: skip
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    for row in result["rows"]:
        parts = [interval(row[name]) for name in _SHOWN]
        mark = "*" if row["counts"] else " "
        print(
            f"{mark}{row['task']:<11}{row['arm']:<12}{row['visited']:7.1f} of {row['total']:6.0f}  " + "  ".join(parts)
        )
    print(f"tasks that count: {', '.join(result['counting']) or 'none'}")
    for row in result["arms"]:
        parts = [f"{name.replace('_', ' ')} {interval(row[name])}" for name in _SHOWN]
        print(f"{row['arm']:<12}{row['visited']:7.1f} of {row['total']:6.0f}  " + "  ".join(parts))


def interval(numbers: Mapping[str, float | None]) -> str:
    """Return a value with its interval; a dash stands for what is not defined."""
    value, low, high = ("-" if number is None else f"{number:.3f}" for number in numbers.values())
    return f"{value} [{low}, {high}]"


def described(options: argparse.Namespace, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return what the file says of the conditions."""
    sizes = {task.name: {split: len(items) for split, items in task.splits.items()} for task in tasks}
    device = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    names = ("steps", "batch", "lrs", "distill", "texts", "items")
    return {"tasks": sizes, "device": device, **{name: getattr(options, name) for name in names}}


def parsed() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--data", type=Path, help="folder with DOMAIN/corpus_*.jsonl and DOMAIN/mcq_*.jsonl")
    parser.add_argument("--domains", nargs="+", default=["medical", "law", "finance", "general"], help="without --data")
    parser.add_argument("--encoder", help="folder of the encoder; the packaged one by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--tasks", nargs="+", help="names of tasks; all by default")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=120, help="steps of fine-tuning")
    parser.add_argument("--batch", type=int, default=64, help="texts of a step")
    parser.add_argument("--lrs", nargs="+", type=float, default=[1e-4, 4e-4])
    parser.add_argument("--distill", type=int, default=200, help="steps of distillation for a layer")
    parser.add_argument("--texts", type=int, default=512, help="texts for conversion and distillation")
    parser.add_argument("--items", type=int, default=500, help="most test items of a task")
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin nothing after this time")
    parser.add_argument("--with", dest="others", nargs="*", type=Path, default=[], help="files whose runs are added")
    return parser.parse_args()


def main() -> None:
    """Read the options, run what is not in other files, and write the result."""
    options = parsed()
    torch.set_float32_matmul_precision("high")
    others = [json.loads(path.read_text("utf-8")) for path in options.others if path.exists()]
    records: list[Run] = [run for other in others for run in other["runs"]]
    conditions = others[0]["conditions"] if others else {}
    if options.seeds and options.arms:
        passages, questions = read_folder(options.data) if options.data else read_packaged(options.domains)
        tasks = make(passages, questions, most=options.items)
        tasks = [task for task in tasks if not options.tasks or task.name in options.tasks]
        conditions = described(options, tasks)
        folder = options.encoder or packaged()
        for run in runs(load(folder, options.device), tasks, options):
            records.append(run)
            print({name: value for name, value in run.items() if name not in ("correct", "errors")}, flush=True)
            write_json(options.json, {"conditions": conditions, "runs": records})
    result = {"conditions": conditions, **summary(records), "runs": records}
    write_json(options.json, result)
    show(result)


def packaged() -> str:
    """Return the folder of the packaged encoder."""
    from minigpt import assets

    return str(assets.encoder())


if __name__ == "__main__":
    main()
