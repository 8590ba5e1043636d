"""Tickets of a real parent: iterative magnitude pruning with distillation, against every control at equal training.

One line of JSON for each arm, with the bits of every document, so that any two arms are paired afterwards
(`lottery_compare.py`). An arm that has its line is skipped; rounds and trainings go on where they were killed.

Arms: `imp` (rounds of training, pruning and rewinding), `random` (a random mask with the ticket's densities), `reinit`
(the ticket with new values), `own` (the ticket, trained anew from the start), `magnitude`, `wanda`, `sparsegpt` (one
shot from the same start), `transfer-DOMAIN` (another domain's ticket). Every control is trained for as many steps as
all rounds of `imp` together, and one with `/once` behind its name (`wanda/once`) for as many as the last round alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from healing import Bench, Tuning
from reading import WINDOW, training_text

from minigpt import assets
from minigpt.evaluation.items import TextItems
from minigpt.evaluation.opening import choose_opening
from minigpt.evaluation.paired import averaged, paired
from minigpt.evaluation.run import text_bits
from minigpt.files import fingerprint, read_json, read_jsonl, to_plain
from minigpt.healing import Recipe, Teacher, bits_per_byte
from minigpt.healing.tokenized import token_text
from minigpt.machine import device_name, measuring_dtype, release
from minigpt.pipeline.lottery import levels_of
from minigpt.pipeline.overrides import apply_overrides
from minigpt.tickets.language import Lesson, early_point, put, reinitialised, take
from minigpt.tickets.masks import Masks, Pattern, density, keep_best, magnitudes, prunable, random_like
from minigpt.tickets.oneshot import ONE_SHOT, prune_in_one_shot
from minigpt.tickets.rounds import (
    MASKS,
    RECORD,
    RoundRecord,
    Schedule,
    Ticket,
    Weights,
    load_masks,
    masked,
    rows_of,
    run_rounds,
    save_masks,
)
from minigpt.tickets.settings import SCORES
from minigpt.tickets.store import save_ticket
from minigpt.tickets.weight_rounds import by_inputs, settling, with_last

BITS = "bits_per_byte"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The ticket that is looked for: what every arm of a group has in common.

    Attributes:
        pattern: `global`, `lamp`, `layer` or `N:M`.
        remaining: share of the layers' weights that is left.
        rounds: rounds of pruning.
        steps: steps of each training.
        rewind: step that survivors are rewound to.
        rewinding: `weights` or `rate`.
        start: model that rounds start from, `parent` or `tuned`.
        seed: seed of the order of the text, and of random masks.
        last: steps of the last training (0: as many as of the others).
        criterion: score by which rounds remove weights, `magnitude`, `wanda` or `sparsegpt`.
        early: distance of masks below which a round ends early (0: none does).
        sampled: passages that the tuned parent writes, as in a build; every arm trains on them too.
    """

    pattern: str
    remaining: float
    rounds: int
    steps: int
    rewind: int
    rewinding: str
    start: str
    seed: int
    last: int = 0
    criterion: str = "magnitude"
    sampled: int = 0
    early: float = 0.0

    @property
    def said(self) -> dict[str, Any]:
        """Fields that name the plan; younger ones only where they are set, so that finished arms keep their names."""
        younger = {"last": 0, "criterion": "magnitude", "sampled": 0, "early": 0}
        return {name: value for name, value in asdict(self).items() if name not in younger or value != younger[name]}

    @property
    def levels(self) -> tuple[float, ...]:
        """Shares of weights left after each pruning; an N:M pattern gives up one weight of a group in each round."""
        return levels_of(Pattern(self.pattern), self.remaining, self.rounds)

    @property
    def total(self) -> int:
        """Steps of all rounds together."""
        return self.rewind + len(self.levels) * self.steps + (self.last or self.steps)


class Tickets(Bench):
    """A parent, its tuned parent and texts, and the training that all arms share."""

    def __init__(self, plan: Plan, recipe: Mapping[str, str], work: Path, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.plan, self.work, self.names = plan, work, prunable(self.models["parent"])
        base = Recipe(tokens_per_step=16384, learning_rate=5e-4, optimizer="muon", distill=1.0, evaluate_every=200)
        self.recipe = replace(apply_overrides(base, recipe), steps=plan.steps)
        self.start = take(self.models[plan.start])
        self.scratch: Any = self.model()
        documents = [*self.documents(1.0, 3), *self.sampled(plan.sampled)]
        self.text = training_text(self.tokenizer, self.scratch, documents, self.recipe.window)
        self.dev = token_text(self.tokenizer, self.part(self.corpora.domain.dev), WINDOW)

    @cached_property
    def teacher(self) -> Teacher:
        """The tuned parent in 16 bits."""
        model: Any = deepcopy(self.models["tuned"])
        return Teacher(model=model.to(measuring_dtype(self.device)).requires_grad_(False))

    def lesson(self, steps: int) -> Lesson:
        """The training of a number of steps."""
        recipe = replace(self.recipe, steps=steps)
        taught_by = self.teacher if recipe.distill else None
        return Lesson(
            model=self.scratch, text=self.text, dev=self.dev, recipe=recipe, teacher=taught_by, seed=self.plan.seed
        )

    def ticket(self) -> Ticket:
        """Run the rounds that are missing."""
        plan, lesson = self.plan, self.lesson(self.plan.steps)
        start = early_point(lesson, self.start, plan.rewind, self.home / "early.safetensors")
        rewinding: Any = plan.rewinding
        schedule = Schedule(levels=plan.levels, pattern=plan.pattern, rewinding=rewinding)
        watch = settling(plan.levels, Pattern(plan.pattern), plan.early) if plan.early else None
        train_round = with_last(lesson, len(plan.levels), last := plan.last or plan.steps, watch=watch)
        younger: tuple[Any, ...] = (plan.early,) if plan.early else ()
        younger += (self.lesson(last).key, plan.criterion) if plan.said.keys() & {"last", "criterion"} else ()
        key = fingerprint(lesson.key, plan.rewind, plan.start, *younger)
        prune = None
        if plan.criterion != "magnitude":
            prune = by_inputs(self.scratch, lambda: self.batches, Pattern(plan.pattern), plan.criterion)
        return run_rounds(self.home, start, self.names, train_round, schedule, key=key, prune=prune)

    @property
    def home(self) -> Path:
        """Folder of the rounds of this plan."""
        return self.work / f"imp-{fingerprint(self.plan.said)}"

    def trained(self, name: str, weights: Weights, masks: Masks, steps: int) -> dict[str, Any]:
        """Train a control under its mask, and leave it in the model; return what the training says."""
        self.home.mkdir(parents=True, exist_ok=True)
        facts = self.lesson(steps)(masked(weights, masks), masks, 0, self.home / f"{name}.safetensors").facts
        return {**facts, "masks": masks}

    def one_shot(self, name: str) -> tuple[dict[str, Any], Masks]:
        """Prune the start in one shot; return its weights and the mask."""
        plan = self.plan
        pattern = Pattern(plan.pattern)
        if name == "magnitude":
            scores = magnitudes({matrix: self.start[matrix] for matrix in self.names})
            return dict(self.start), keep_best(scores, plan.levels[-1], pattern)
        put(self.scratch, self.start)
        masks = prune_in_one_shot(self.scratch, self.batches, name, plan.levels[-1], pattern)
        return take(self.scratch), {matrix: mask.cpu() for matrix, mask in masks.items()}

    def arm(self, name: str) -> dict[str, Any]:
        """Make one arm: prune, train, measure; return its line."""
        began, (kind, _, length) = time.perf_counter(), name.partition("/")
        steps = (self.plan.last or self.plan.steps) if length == "once" else self.spent
        rounds: list[dict[str, Any]] = []
        if kind == "imp":
            result = self.ticket()
            put(self.scratch, result.weights)
            masks, rounds = result.masks, rows_of(result.records)
            steps = self.plan.rewind + round(sum(record.facts["steps"] for record in result.records))
            facts: dict[str, Any] = {**result.records[-1].facts, "masks": masks, "steps": steps}
        else:
            weights, masks = self.control(kind)
            untrained = self.measured(put(self.scratch, masked(weights, masks)))
            facts = self.trained(name.replace("/", "-"), weights, masks, steps)
            facts["before_training"] = {task: value[BITS] for task, value in untrained.items()}
        save_masks(masks, self.work / "masks" / f"{self.home.name}-{name.replace('/', '-')}.safetensors")
        texts = self.measured(self.scratch)
        stored: Any = deepcopy(self.scratch).to(torch.bfloat16)
        size = save_ticket(stored, self.home / f"stored-{name.replace('/', '-')}.safetensors")
        return {
            **{key: value for key, value in facts.items() if key != "masks"},
            "remaining": density(masks), "dev": bits_per_byte(self.scratch, self.dev), "texts": texts,
            "stored": to_plain(size), "rounds": rounds, "seconds": round(time.perf_counter() - began, 1),
        }  # fmt: skip

    @property
    def spent(self) -> int:
        """Steps of all rounds together: those that were taken where rounds may end early, or else those of the plan."""
        records = [self.home / f"round-{number:02d}" / RECORD for number in range(len(self.plan.levels) + 1)]
        if not self.plan.early or not all(path.exists() for path in records):
            return self.plan.total
        return self.plan.rewind + round(sum(read_json(path, RoundRecord).facts["steps"] for path in records))

    def control(self, kind: str) -> tuple[Weights, Masks]:
        """Return the weights and the mask that a control starts with."""
        if kind in (*ONE_SHOT, "magnitude"):
            return self.one_shot(kind)
        if kind.startswith("transfer-"):
            folder = self.work.parent / kind.removeprefix("transfer-") / self.home.name
            return self.start, load_masks(folder / f"round-{len(self.plan.levels):02d}" / MASKS)
        if kind == "random" and self.plan.pattern not in ("global", "lamp"):
            masks = self.one_shot("magnitude")[1]  # as dense in each matrix as the ticket, which need not be there
            return self.start, random_like(masks, self.plan.seed, Pattern(self.plan.pattern))
        masks = load_masks(self.home / f"round-{len(self.plan.levels):02d}" / MASKS)
        if kind == "reinit":
            return reinitialised(self.models["parent"], masks, self.plan.seed), masks
        if kind == "own":
            return self.start, masks
        return self.start, random_like(masks, self.plan.seed, Pattern(self.plan.pattern))

    def measured(self, model: Any) -> dict[str, dict[str, Any]]:
        """Measure held-out text, text of other sources and general text, in the precision that is shipped.

        Bits and bytes of each document are kept, so that arms can be paired.
        """
        shipped: Any = deepcopy(model).to(measuring_dtype(self.device)).eval()
        dev = self.part(self.corpora.domain.dev)
        opening = choose_opening(shipped, self.tokenizer, dev).token
        own = self.corpora.domain
        named = {"heldout": own.heldout, "other": own.other, "general": self.general.heldout}
        texts = {}
        for name, documents in named.items():
            if documents:
                items = text_bits(shipped, self.tokenizer, self.part(documents), opening=opening, batch_tokens=16384)
                texts[name] = {BITS: sum(items.bits) / sum(items.bytes), **to_plain(items)}
        return texts


def items_of(row: Mapping[str, Any]) -> TextItems:
    """Read the items of a text from a line."""
    fields = {name: tuple(value) for name, value in row.items() if name != BITS}
    return TextItems(**fields)


def ratio(ours: Mapping[str, Any], reference: Mapping[str, Any], text: str) -> dict[str, float]:
    """Divide the bits per byte of two lines on a text, with the paired interval."""
    pair = [averaged([items_of(line["texts"][text])], BITS) for line in (ours, reference)]
    return dict(to_plain(paired(*pair, BITS, how="ratio")))


def unpruned(bench: Tickets, name: str) -> dict[str, Any]:
    """Measure the parent or the tuned parent."""
    model = bench.models[name]
    return {"remaining": 1.0, "dev": bits_per_byte(model, bench.dev), "texts": bench.measured(model), "seconds": 0.0}


def options_of() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of domain files [the packaged domains]")
    parser.add_argument("--domain", default="medical")
    parser.add_argument("--json", type=Path, required=True, help="JSON lines that arms are added to")
    parser.add_argument("--work", type=Path, required=True, help="folder of tuned parents, rounds and masks")
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--arms", default="imp,random,reinit,magnitude,wanda,sparsegpt", help="comma-separated")
    parser.add_argument("--pattern", default="global", help="global, lamp, layer or N:M such as 2:4")
    parser.add_argument("--remaining", type=float, default=0.3, help="share of the layers' weights that is left")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of pruning (an N:M pattern sets its own)")
    parser.add_argument("--steps", type=int, default=250, help="steps of each round's training")
    parser.add_argument("--last", type=int, default=0, help="steps of the last round's training [as many]")
    parser.add_argument("--criterion", choices=SCORES, default="magnitude", help="of the rounds")
    parser.add_argument("--sampled", type=int, default=0, help="passages of the tuned parent to train on [none]")
    parser.add_argument("--early", type=float, default=0, help="distance of masks that ends a round early [none]")
    parser.add_argument("--rewind", type=int, default=0, help="step that survivors are rewound to")
    parser.add_argument("--rewinding", choices=("weights", "rate"), default="weights")
    parser.add_argument("--start", choices=("parent", "tuned"), default="parent", help="weights that rounds start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heal", type=json.loads, default={}, help='fields of the recipe: {"learning_rate": "1e-3"}')
    parser.add_argument("--tune", type=json.loads, default={"steps": "200", "evaluate_every": "50"})
    parser.add_argument("--tokens", type=int, default=65536, help="of calibration text")
    parser.add_argument("--limit", type=int, help="bytes of each text that is read, for a trial [all]")
    parser.add_argument("--limit-seconds", type=float, default=1e9, help="begin no arm that would end later")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def write_missing(bench: Callable[[], Tickets], options: argparse.Namespace, common: dict[str, Any]) -> None:
    """Run the arms that have no line yet, as long as there is time."""
    rows = read_jsonl(options.json) if options.json.exists() else []
    done = {row["key"]: row for row in rows}
    shared = {name: common[name] for name in ("domain", "base", "limit", "tune", "device")}
    keys = {name: fingerprint(shared, name) for name in ("parent", "tuned")}
    keys |= {name: fingerprint(common, name) for name in options.arms.split(",")}
    if not (missing := [name for name, key in keys.items() if key not in done]):
        print("All arms are there.")
        return
    started, longest, made = time.perf_counter(), 0.0, bench()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for name in missing:
        if time.perf_counter() - started + 1.1 * longest > options.limit_seconds:
            print(f"{name}: no time left", flush=True)
            break
        began = time.perf_counter()
        line = unpruned(made, name) if name in ("parent", "tuned") else made.arm(name)
        row = {"key": keys[name], "arm": name, **(shared if name in ("parent", "tuned") else common), **line}
        with options.json.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        done[keys[name]] = row
        release()
        if name not in ("parent", "tuned"):
            longest = max(longest, time.perf_counter() - began)
        against = ratio(row, done[keys["tuned"]], "heldout") if keys["tuned"] in done else {}
        print(name, {key: round(value, 4) for key, value in against.items()}, f"{row['seconds']} s", flush=True)


def main() -> None:
    """Run the arms that are missing."""
    options = options_of()
    plan = Plan(**{name: getattr(options, name) for name in Plan.__dataclass_fields__})
    if Pattern(plan.pattern).group is not None:
        plan = replace(plan, remaining=plan.levels[-1], rounds=len(plan.levels))
    domain = options.domain if options.data is None else str(options.data / f"{options.domain}.yaml")
    common = {
        "domain": options.domain, "base": options.base, "device": device_name(options.device), "limit": options.limit,
        "tune": options.tune, "heal": options.heal, "plan": plan.said,
    }  # fmt: skip
    work = options.work / options.domain
    kept = work / f"tuned-{fingerprint(options.base, options.tune, options.limit)}.safetensors"
    tuning = Tuning(recipe=options.tune, general=1.0, definitions=3, kept=kept)
    arguments = (domain, options.base, options.device, tuning, options.tokens, options.limit)
    write_missing(lambda: Tickets(plan, options.heal, work, *arguments), options, common)


if __name__ == "__main__":
    main()
