"""Every method at every size on every domain, before healing and after one fixed healing budget.

One process loads the parent once and each domain's text once, prunes copies in memory, and appends one JSON line for
each point. Points that are in the file are skipped, so the table grows over runs. `benchmarks/tables.py` writes the
tables. The numbers are those of `minigpt build --preset standard` with the settings of `held.BASICS` (no relevance
filter, no sampled text, steps of 8,192 tokens at a fixed rate) and `plan.healing` "short" or "long". Plans are the same
as in a build, methods that have a repair get it, and weights are rounded to bfloat16 before they are measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from held import Domain, cast, compact, measured, summary

from minigpt import __version__, assets
from minigpt.errors import PlanError
from minigpt.files import fingerprint, read_jsonl, to_plain
from minigpt.healing import train
from minigpt.healing.teacher import teacher_of
from minigpt.machine import device_name, release, versions
from minigpt.methods import METHODS, method_named, resolve
from minigpt.methods.material import PaperForm
from minigpt.pipeline.budget import target_parameters
from minigpt.pipeline.cutting import cut
from minigpt.pipeline.plan import plan_model
from minigpt.pipeline.run import Run
from minigpt.results import Training
from minigpt.transformer.arch import shape_of
from minigpt.types import PrunePlan

SIZES = (0.9, 0.75, 0.6)
DOMAIN = -1


@dataclass(frozen=True, kw_only=True)
class Point:
    """Method, size, seed, healing steps and form that one line of the results is measured for."""

    method: str
    size: float
    seed: int
    heal_steps: int
    masked: bool


class Clock:
    """Time limit of a run, which tells whether one more job of a kind fits.

    The kind of a point is its number of healing steps, and the kind of reading and measuring a domain is `DOMAIN`. A
    job is expected to take as long as the longest of its kind so far, or `first` seconds if there was none.
    """

    def __init__(self, limit: float | None, first: float) -> None:
        self.started, self.limit, self.first = time.perf_counter(), limit, first
        self.longest: dict[int, float] = {}

    def allows(self, kind: int) -> bool:
        """Tell whether the time left is enough for the longest job of `kind` and a tenth more."""
        expected = 1.1 * self.longest.get(kind, self.first)
        return self.limit is None or time.perf_counter() - self.started + expected < self.limit

    def took(self, kind: int, seconds: float) -> None:
        """Remember how long a job took."""
        self.longest[kind] = max(self.longest.get(kind, 0.0), seconds)


def run(domain: Domain, point: Point) -> dict[str, Any]:
    """Prune a copy, measure it, and with a budget heal it and measure it again."""
    build = domain.run
    options = replace(build.options, method=point.method, target_size=point.size, seed=point.seed)
    planning = replace(build.settings.plan, healing="long" if point.heal_steps else "short")
    recipe = replace(build.settings.heal, steps=point.heal_steps)
    build = replace(build, options=options, settings=replace(build.settings, plan=planning, heal=recipe))
    seconds: dict[str, float] = {}
    make = _paper_form if point.masked else _shipped
    model, tokenizer, plan, parameters, note = make(domain, build, seconds)
    shape = shape_of(model)
    with timed(seconds, "evaluate"):
        items = {"pruned": measured(build, domain.suite, model, tokenizer)}
    training: Training | None = None
    if point.heal_steps:
        with timed(seconds, "heal"):
            cast(model, torch.float32)
            text, dev = domain.training_text(tokenizer, recipe.window)
            teacher = teacher_of(deepcopy(domain.teacher), plan.tokens, model)
            training = train(model, text, dev, recipe, teacher=teacher, seed=point.seed)
        items["healed"] = measured(build, domain.suite, model, tokenizer)
    before = shape_of(domain.source)
    del model
    release()
    return {
        "parameters": parameters,
        "kept": parameters / plan.parameters_before,
        "shape": to_plain(shape),
        "layers": plan.layers,
        "merges": plan.merges,
        "layers_removed": 1 - shape.layers / before.layers,
        "removed": dict(plan.removed_parameters),
        "note": note,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "training": to_plain(training),
        "items": {stage: compact(found) for stage, found in items.items()},
        **{stage: summary(found, domain.parent, domain.name) for stage, found in items.items()},
    }


def _shipped(domain: Domain, build: Run, seconds: dict[str, float]) -> tuple[Any, Any, PrunePlan, int, str]:
    """The model that a build would save."""
    material = replace(domain.material, seed=build.options.seed)
    with timed(seconds, "plan"):
        plan = plan_model(build, domain.base, domain.planning, material, domain.tokenizer, domain.source_key)
    with timed(seconds, "cut"):
        copy = deepcopy(domain.source)
        model, tokenizer, _ = cut(
            build,
            copy,
            domain.tokenizer,
            plan,
            batches=domain.repair_batches,
            material=replace(material, model=copy),
        )
    return model, tokenizer, plan, plan.parameters_after, ""


def _paper_form(domain: Domain, build: Run, seconds: dict[str, float]) -> tuple[Any, Any, PrunePlan, int, str]:
    """The method's paper form, at the size that is not masked.

    Raises:
        PlanError: the method has no paper form of its own.
    """
    method = method_named(build.options.method)
    if method.paper_form is None:
        raise PlanError(f"{method.name} is shipped in its paper form; leave --masked out.")
    shape = shape_of(domain.source)
    with timed(seconds, "cut"):
        model = deepcopy(domain.source)
        target = target_parameters(build, domain.base, model.config)
        material = replace(domain.material, model=model, seed=build.options.seed)
        form: PaperForm = resolve(method.paper_form)(material, target)
    size = sum(parameter.numel() for parameter in domain.source.parameters())
    plan = PrunePlan(
        base_model="",
        method=method.name,
        seed=0,
        layers=tuple(range(shape.layers)),
        ffn=(),
        kv_groups=(),
        parameters_before=size,
        parameters_after=form.parameters,
    )
    return form.model, domain.tokenizer, plan, form.parameters, form.note


class timed:
    """Context manager that puts the seconds of a block into a dict, after waiting for the GPU."""

    def __init__(self, into: dict[str, float], name: str) -> None:
        self.into, self.name = into, name

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.into[self.name] = time.perf_counter() - self.started


def points(chosen: argparse.Namespace) -> Iterator[Point]:
    """Yield the points of a run, those without healing first and large sizes first."""
    for steps in chosen.heal_steps:
        for size in sorted(chosen.sizes, reverse=True):
            for method in chosen.methods:
                for seed in range(chosen.seeds if "seed" in METHODS[method].options or steps else 1):
                    yield Point(method=method, size=size, seed=seed, heal_steps=steps, masked=chosen.masked)


class Results:
    """File of results, whose points are not computed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
            path.write_bytes(text[: text.rfind(b"\n") + 1])  # what a killed run left of its last line
        self.keys = {row["key"] for row in read_jsonl(path)} if path.exists() else set()

    def add(self, row: dict[str, Any]) -> None:
        """Append a line at once, so that a killed run loses nothing that was finished."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        self.keys.add(row["key"])


def controls(domain: Domain, results: Results, common: dict[str, Any]) -> None:
    """Add a line with all items for the parent, and one for the tuned parent."""
    for name, items in (("parent", domain.parent), ("parent_tuned", domain.tuned)):
        key = fingerprint(domain.key, name)
        if items is None or key in results.keys:
            continue
        row = {"key": key, "suite": domain.key, "domain": domain.name, "method": name, "control": to_plain(items)}
        results.add({**row, **common, "summary": summary(items, domain.parent, domain.name)})


def main() -> None:
    """Run the points that are not in the file yet, domain by domain, as long as there is time."""
    chosen = _arguments()
    clock, results = Clock(chosen.limit_seconds, chosen.first_seconds), Results(chosen.results)
    common = {"base": chosen.base, "device": device_name(chosen.device), "versions": versions(__version__)}
    common |= {"settings": chosen.overrides, "label": chosen.label, "tune_steps": chosen.tune_steps}
    folder = assets.parent(chosen.base).path
    parent = assets.load_model(folder, dtype=torch.float32, device=chosen.device)
    tokenizer = assets.load_tokenizer(folder)
    left = 0
    for name in chosen.domain:
        if not clock.allows(DOMAIN):
            left += 1
            continue
        started = time.perf_counter()
        domain = Domain(
            name,
            parent,
            tokenizer,
            base=chosen.base,
            device=chosen.device,
            work=chosen.work,
            overrides=chosen.overrides,
            question_sets=chosen.question_set or ("glossary",),
            tune_steps=chosen.tune_steps,
        )
        keys = {point: fingerprint(domain.key, point, chosen.overrides, chosen.label) for point in points(chosen)}
        missing = {point: key for point, key in keys.items() if key not in results.keys}
        if not missing:
            continue
        domain.measure()
        clock.took(DOMAIN, time.perf_counter() - started)
        print(f"{domain.name}: text and controls {time.perf_counter() - started:.1f} s", flush=True)
        controls(domain, results, common)
        left += sum(not work(domain, point, key, clock, results, common) for point, key in missing.items())
    print(f"{left} points or domains left: run it again." if left else "All points are there.")


def work(domain: Domain, point: Point, key: str, clock: Clock, results: Results, common: dict[str, Any]) -> bool:
    """Add a point's line to the results if there is time, and tell whether it was added."""
    if not clock.allows(point.heal_steps):
        return False
    started = time.perf_counter()
    try:
        found = run(domain, point)
    except PlanError as error:
        found = {"skipped": str(error)}
    except Exception:
        traceback.print_exc()
        print(f"{domain.name} {point}: failed, tried again by the next run", file=sys.stderr, flush=True)
        release()
        return False
    seconds = time.perf_counter() - started
    clock.took(point.heal_steps, seconds)
    results.add({"key": key, "suite": domain.key, "domain": domain.name, **to_plain(point), **common, **found})
    last = found.get("healed", found.get("pruned", found.get("skipped")))
    print(
        f"{domain.name} {point.method} {point.size:g} heal {point.heal_steps} seed {point.seed}: {last} "
        f"({seconds:.1f} s)",
        flush=True,
    )
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", action="append", required=True, help="name or file; repeats")
    parser.add_argument("--methods", default=",".join(name for name, row in METHODS.items() if row.ships))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="fractions of parameters to keep")
    parser.add_argument("--heal-steps", default="0", help="steps of the healing budget, comma-separated; 0: none")
    parser.add_argument("--seeds", type=int, default=1, help="repeat what is random")
    parser.add_argument("--tune-steps", type=int, default=0, help="tune the parent first; it is pruned and teaches")
    parser.add_argument("--masked", action="store_true", help="the methods' own forms, never healed")
    parser.add_argument("--question-set", action="append", default=[], help="repeats; default glossary")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in minigpt build; repeats")
    parser.add_argument("--label", default="", help="names a variant of the settings in the tables")
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="text and statistics [beside the results]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit-seconds", type=float, help="start no point that would end later")
    parser.add_argument("--first-seconds", type=float, default=60.0, help="expected of the first point of a budget")
    chosen = parser.parse_args()
    chosen.methods = [method_named(name).name for name in chosen.methods.split(",")]
    chosen.sizes = [float(size) for size in chosen.sizes.split(",")]
    chosen.heal_steps = [0] if chosen.masked else [int(steps) for steps in chosen.heal_steps.split(",")]
    chosen.overrides = dict(item.split("=", 1) for item in chosen.set)
    chosen.work = chosen.work or chosen.results.with_suffix(".work")
    return chosen


if __name__ == "__main__":
    main()
