"""Pruning of experts by domain: a small mixture of experts made from a dense parent, half of them cut by each ranking.

Part `make` copies every FFN of the parent into experts, adds noise and routers, and trains the mixture on the text of
all domains. Part `prune` measures the experts on a domain's calibration text and on general text, keeps half of them
by each ranking, heals all alike, and reports held-out text with paired intervals against the mixture and against REAP
on general text. The mixture with the same healing is the control. One JSON line an arm; arms whose line stands in the
results are not made again, and a call that runs out of time saves its checkpoint, so that parts fit into short calls.
With several cards, part `make` runs first, then part `prune` in a process for each domain, with a card of its own
(CUDA_VISIBLE_DEVICES), results of its own and the same `--work`.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from reading import BATCH_TOKENS, WINDOW, Reader, training_text
from upcycle_model import upcycle

from minigpt import assets
from minigpt.corpus.selection import training_documents
from minigpt.evaluation import ItemScores, evaluate, load_scores, save_scores, suite_for, summarize
from minigpt.files import fingerprint, read_jsonl
from minigpt.healing import Recipe, train
from minigpt.healing.tokenized import token_text
from minigpt.machine import device_name, release
from minigpt.methods import METHODS
from minigpt.methods.cut import cut_units
from minigpt.methods.material import Material
from minigpt.methods.norms import weight_norms
from minigpt.methods.ranking import choose, rank
from minigpt.transformer import stats
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.transformer.calibration import calibration_batches

PARTS = ("make", "prune")
# Arms of a domain: the method, and the text that its statistics are of; "tuned" keeps every expert.
ARMS: Mapping[str, tuple[str, str]] = {
    "tuned": ("", ""),
    "reap-general": ("reap", "general"),
    "contextual-domain": ("contextual", "domain"),
    "reap-domain": ("reap", "domain"),
    "frequency-domain": ("expert-frequency", "domain"),
    "frequency-general": ("expert-frequency", "general"),
    "contextual-general": ("contextual", "general"),
    "random": ("random", "domain"),
    "m-smoe-domain": ("m-smoe", "domain"),
    "hc-smoe-domain": ("hc-smoe", "domain"),
}
# Arms that every arm is compared with.
REFERENCES = ("mixture", "tuned", "reap-general")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Options of a run that its results depend on, and where it works."""

    base: str
    experts: int
    per_token: int
    noise: float
    make: Recipe
    heal: Recipe
    tokens: int
    limit: int | None
    questions: int
    seed: int
    device: str
    work: Path
    kernel: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that the results depend on."""
        names = ("base", "experts", "per_token", "noise", "make", "heal", "tokens", "limit", "questions", "seed")
        return {name: getattr(self, name) for name in names}


class Mixture:
    """The mixture of experts in a folder of its own.

    Args:
        setup: options of the run.
        domains: files or names of the domains whose text it is trained on.
    """

    def __init__(self, setup: Setup, domains: tuple[str, ...]) -> None:
        self.setup, self.domains = setup, domains
        self.folder = setup.work / "mixture"

    def make(self) -> dict[str, Any]:
        """Upcycle the parent and train the mixture; a call that was interrupted goes on from its checkpoint."""
        setup = self.setup
        readers = [Reader(domain, setup.base, setup.device, setup.limit) for domain in self.domains]
        dense = readers[0].model()
        model = upcycle(dense, experts=setup.experts, per_token=setup.per_token, noise=setup.noise, seed=setup.seed)
        model.generation_config = dense.generation_config
        self.use_kernel(model)
        tokenizer, documents, dev = readers[0].tokenizer, [], []
        for reader in readers:
            documents += reader.part(tuple(training_documents(reader.corpora.domain, reader.general, 1.0)))
            dev += reader.part(reader.corpora.domain.dev)[:200]
        text = training_text(tokenizer, dense, documents, setup.make.window)
        training = train(
            model,
            text,
            token_text(tokenizer, dev, setup.make.window),
            setup.make,
            seed=setup.seed,
            checkpoint=setup.work / "mixture.checkpoint",
            title="Mixture",
        )
        model.save_pretrained(self.folder)
        tokenizer.save_pretrained(self.folder)
        return {"parameters": parameters_of(model), "dense": parameters_of(dense), "dev": training.dev_losses}

    def load(self) -> Any:
        """Load the trained mixture in fp32."""
        model = assets.load_model(self.folder, dtype=torch.float32, device=self.setup.device)
        self.use_kernel(model)
        return model

    def use_kernel(self, model: Any) -> None:
        """Let transformers compute the experts as the options say."""
        if self.setup.kernel is not None:
            model.set_experts_implementation(self.setup.kernel)


class Bench(Reader):
    """A domain's texts, and the statistics of the mixture on its calibration text and on general text."""

    def __init__(self, domain: str, mixture: Mixture) -> None:
        setup = mixture.setup
        super().__init__(domain, setup.base, setup.device, setup.limit)
        self.mixture, self.setup, self.name = mixture, setup, self.corpora.domain.domain
        self.work = setup.work / self.name
        self.work.mkdir(parents=True, exist_ok=True)
        documents = self.part(tuple(training_documents(self.corpora.domain, self.general, 1.0)))
        self.text = training_text(self.tokenizer, self.mixture.load(), documents, setup.heal.window)
        self.dev = token_text(self.tokenizer, self.part(self.corpora.domain.dev), setup.heal.window)
        suite = suite_for(
            self.corpora.domain, self.general, max_heldout_bytes=setup.limit, max_questions=setup.questions
        )
        self.suite = replace(suite, recitations={})

    def statistics(self, text: str, model: Any) -> stats.ActivationStats:
        """Measure the mixture on the domain's calibration text ("domain") or on general text, once."""
        path = self.work / f"{text}.safetensors"
        if not path.exists():
            corpus = self.corpora.domain if text == "domain" else self.general
            stats.save(stats.collect(model, self.batches(corpus)), path)
        return stats.load(path)

    def batches(self, corpus: Any) -> list[Any]:
        """Pack calibration text of a corpus."""
        return calibration_batches(
            self.tokenizer, corpus.calibration, window=WINDOW, tokens=self.setup.tokens, batch_tokens=BATCH_TOKENS
        )

    def pruned(self, arm: str) -> tuple[Any, list[list[int]]]:
        """Return the mixture with half of its experts, by the arm's ranking, and the experts that were kept."""
        method, text = ARMS[arm]
        model = self.mixture.load()
        if not method:
            return model, []
        row, parent = METHODS[method], shape_of(model)
        material = Material(
            model=model,
            batches=self.batches(self.corpora.domain if text == "domain" else self.general) if row.transform else (),
            statistics=self.statistics(text, model),
            norms=weight_norms(model),
            seed=self.setup.seed,
        )
        shape = replace(parent, experts=max(self.setup.per_token, parent.experts // 2))
        plan = choose(row, material, shape, rank(row, material), base_model=self.setup.base)
        return cut_units(model, plan, row, material=material)[0], [list(kept) for kept in plan.experts]

    def scores(self, arm: str, model: Any) -> ItemScores:
        """Score a model on the suite, and keep the scores for comparisons."""
        path = self.work / f"{arm}.scores.json"
        save_scores(evaluate(model, self.tokenizer, self.suite, batch_tokens=BATCH_TOKENS, window=2 * WINDOW), path)
        return load_scores(path)

    def row(self, arm: str) -> dict[str, Any]:
        """Make one arm: prune, measure, heal, measure."""
        if arm == "mixture":
            return {"measured": self.against(self.scores(arm, self.mixture.load()))}
        model, experts = self.pruned(arm)
        before = self.against(self.scores(f"{arm}.pruned", model)) if experts else {}
        training = train(
            model,
            self.text,
            self.dev,
            self.setup.heal,
            seed=self.setup.seed,
            # On a GPU an arm takes a minute or two, about as long as writing its weights and moments.
            checkpoint=None if "cuda" in self.setup.device else self.work / f"{arm}.checkpoint",
            title=arm,
        )
        return {
            "experts": experts,
            "parameters": parameters_of(model),
            "pruned": before,
            "measured": self.against(self.scores(arm, model)),
            "dev": training.dev_losses,
        }

    def against(self, scores: ItemScores) -> dict[str, Any]:
        """Return every task with its interval, and ratio and paired difference to each reference measured so far."""
        rows: dict[str, Any] = {}
        for reference in REFERENCES:
            path = self.work / f"{reference}.scores.json"
            if not path.exists():
                continue
            items = load_scores(path)
            values = {(result.task, result.metric): result.value for result in summarize(items)}
            for result in summarize(scores, parent=items):
                paired = result.paired_difference_vs_parent
                if result.metric not in ("bits_per_byte", "accuracy") or paired is None:
                    continue
                row = rows.setdefault(f"{result.task} {result.metric}", {"value": result.value, "n": result.n})
                row |= {"low": result.low, "high": result.high}
                ratio = result.value / max(values[result.task, result.metric], 1e-12)
                row[reference] = {"ratio": ratio, "difference": [paired.value, paired.low, paired.high]}
        return rows


def describe(row: Mapping[str, Any]) -> str:
    """Write an arm's bits per byte with the ratio to each reference, and the paired interval of the difference."""
    lines = []
    for stage in ("pruned", "measured"):
        for task, values in row.get(stage, {}).items():
            if "bits_per_byte" in task:
                parts = [
                    f"{name} {values[name]['ratio']:.4f} [{values[name]['difference'][1]:+.4f}, "
                    f"{values[name]['difference'][2]:+.4f}]"
                    for name in REFERENCES
                    if name in values
                ]
                lines.append(f"{stage} {task} {values['value']:.4f}: {', '.join(parts)}")
    return "\n  ".join(lines)


def run(setup: Setup, domains: tuple[str, ...], parts: list[str], arms: list[str], results: Path, until: float) -> None:
    """Make what has no line in the results yet, as long as there is time."""
    mixture = Mixture(setup, domains)
    rows = {row["key"]: row for row in read_jsonl(results)} if results.exists() else {}
    longest = max((row["seconds"] for row in rows.values() if row["arm"] != "make"), default=30.0)

    def get(domain: str, arm: str, make: Any) -> bool:
        nonlocal longest
        key, started = fingerprint(setup.facts, domain, arm), time.perf_counter()
        if key in rows:
            return True
        if started + 1.2 * longest > until:
            print(f"{domain} {arm}: no time left", flush=True)
            return False
        row = {"key": key, "domain": domain, "arm": arm, "device": device_name(setup.device), **make()}
        release()
        seconds = time.perf_counter() - started
        longest, rows[key] = max(longest, seconds), row | {"seconds": round(seconds, 1)}
        with results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(rows[key]) + "\n")
        print(f"{domain} {arm} ({seconds:.0f} s)\n  {describe(row)}", flush=True)
        return True

    results.parent.mkdir(parents=True, exist_ok=True)
    setup.work.mkdir(parents=True, exist_ok=True)
    if "make" in parts and not get("all", "make", mixture.make):
        return
    for domain in domains if "prune" in parts else ():
        bench = Bench(domain, mixture)
        for arm in ("mixture", *arms):
            if not get(bench.name, arm, lambda arm=arm, bench=bench: bench.row(arm)):
                return


def main() -> None:
    """Run the parts; at the end of the time an interrupt lets the training that runs save its checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", default="medical,law,finance", help="names or YAML files of the domains")
    parser.add_argument("--json", type=Path, required=True, help="JSON lines of the results")
    parser.add_argument("--work", type=Path, required=True, help="folder of the mixture, statistics and scores")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--per-token", type=int, default=2)
    parser.add_argument("--noise", type=float, default=0.1, help="of an expert, in standard deviations of its matrix")
    parser.add_argument("--make-steps", type=int, default=600)
    parser.add_argument("--heal-steps", type=int, default=250)
    parser.add_argument("--make", type=json.loads, default={}, help="fields of the Recipe that trains the mixture")
    parser.add_argument("--heal", type=json.loads, default={}, help="fields of the Recipe that heals every arm")
    parser.add_argument("--tokens", type=int, default=65536, help="tokens of calibration text")
    parser.add_argument("--limit", type=int, help="bytes of each text that is read, for a trial [all]")
    parser.add_argument("--questions", type=int, default=200, help="most questions of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kernel", choices=("eager", "batched_mm", "grouped_mm"), help="of the experts")
    parser.add_argument("--limit-seconds", type=float, default=1e9, help="start no arm that would end later")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    if "cuda" in given.device:
        torch.set_float32_matmul_precision("high")  # autocast leaves stacked experts in fp32
    parts, arms = given.parts.split(","), given.arms.split(",")
    if strange := {*parts, *arms} - {*PARTS, *ARMS}:
        parser.error(f"no such part or arm: {', '.join(sorted(strange))}")
    setup = Setup(
        base=given.base,
        experts=given.experts,
        per_token=given.per_token,
        noise=given.noise,
        make=Recipe(**{"steps": given.make_steps, "learning_rate": 3e-4, **given.make}),
        heal=Recipe(**{"steps": given.heal_steps, "learning_rate": 2e-4, **given.heal}),
        tokens=given.tokens,
        limit=given.limit,
        questions=given.questions,
        seed=given.seed,
        device=given.device,
        work=given.work,
        kernel=given.kernel,
    )
    until = time.perf_counter() + given.limit_seconds
    if given.limit_seconds < 1e6:
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, given.limit_seconds)
    try:
        run(setup, tuple(given.domains.split(",")), parts, arms, given.json, until)
    except KeyboardInterrupt:
        print("The time is over; the same command goes on from the checkpoint.", flush=True)


if __name__ == "__main__":
    main()
