"""What a specialist loses on text of its own field from other sources, and what brings it back.

Every variant is cut to one size, healed for one budget of steps, and read on dev text of its own sources, on text of
the same field from sources that are never trained on, and on general text. Each model is read behind the opening token
that suits it best on its own dev text. One JSON line a variant; lines that stand in the results are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from elimination import elimination_scores
from healing import Bench, Cut, Tuning, ranked
from reading import BATCH_TOKENS, WINDOW, ratios, training_text
from variants import Variant

from minigpt import assets
from minigpt.corpus.selection import interleave, take_bytes
from minigpt.evaluation import choose_opening
from minigpt.files import fingerprint, read_jsonl
from minigpt.healing import TokenText, train
from minigpt.healing.blend import blend_weights
from minigpt.healing.teacher import Teacher
from minigpt.healing.tokenized import behind, token_text
from minigpt.machine import device_name, measuring_dtype, release
from minigpt.methods.scores import Scores
from minigpt.pipeline.read import clear_of_tests
from minigpt.pipeline.sampling import write_passages
from minigpt.transformer.calibration import calibration_batches, token_counts
from minigpt.types import Document

OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend(Variant):
    """A variant with what is tried against the loss on other sources.

    Attributes:
        counts: text that tokens are counted in: the domain's, or as much general text beside it.
        blend: share of the untuned parent in the weights of the model that is cut from and of the teacher.
        calibrate: text of statistics and repair: the domain's, or as much general text in turns with it.
        writer: model that writes the sampled passages.
        prompts: text that the passages go on from: the domain's, or as much general text beside it.
        averages: shares of the weights before healing in averages that are read besides the healed model.
        tokens: tokens of calibration text (0: those of the whole run).
        method: method that ranks the units, or "elimination" (`benchmarks/elimination.py`).
        fresh: draw all weights anew after the cut: what the shape alone is worth with this healing.
        on_policy: passages that the student writes after half of the steps, which it then reads besides the text.
        seed: of healing.
    """

    counts: str = "domain"
    blend: float = 0.0
    calibrate: str = "domain"
    writer: str = "tuned"
    prompts: str = "domain"
    averages: tuple[float, ...] = ()
    tokens: int = 0
    method: str = "contextual"
    fresh: bool = False
    on_policy: int = 0
    seed: int = 0


class Models(dict[str, Any]):
    """The parent, its tuned form, and on demand `blend-SHARE`: SHARE of the parent's weights, the rest the tuned's."""

    def __missing__(self, name: str) -> Any:
        share = float(name.removeprefix("blend-"))
        model = deepcopy(self["tuned"])
        blend_weights(model, self["parent"], share)
        self[name] = model
        return model


class FieldBench(Bench):
    """A bench that also reads text of the field from other sources."""

    def __init__(self, other: Path, *arguments: Any) -> None:
        self.reading: Any = None  # tokenizer of a trimmed model while that is read
        self.others = tuple(Document(**row) for row in read_jsonl(other))
        super().__init__(*arguments)
        self.models = Models(self.models)
        self.written_by: dict[tuple[int, str, str], list[Document]] = {}
        size = sum(len(document.text.encode()) for document in self.corpora.domain.train)
        general = take_bytes(self.general.train, size)
        domain = [*self.corpora.domain.calibration, *self.corpora.domain.train]
        mixed = interleave(self.corpora.domain.calibration, self.general.calibration)
        self.calibration_text = {"domain": list(self.corpora.domain.calibration), "mixed": mixed}
        self.calibrated: dict[tuple[str, int], Any] = {}
        self.scored_on: dict[tuple[str, int], dict[str, Any]] = {}
        self.counted = {"domain": self.counts, "mixed": token_counts(self.tokenizer, [*domain, *general])}

    def texts(self, tokenizer: Any) -> dict[str, TokenText]:
        """Dev, held-out and general held-out text, and text of other sources."""
        texts = super().texts(tokenizer)
        texts[OTHER] = token_text(tokenizer, self.part(self.others), WINDOW)
        return texts

    def read(self, model: Any, texts: dict[str, TokenText]) -> dict[str, float]:
        """Bits per byte on each text, behind the opening that suits the model best on dev text."""
        dev = self.part(self.corpora.domain.dev)
        opening = choose_opening(model, self.reading or self.tokenizer, dev, batch_tokens=BATCH_TOKENS)
        self.opening = opening.text
        return super().read(model, {name: behind(text, opening.token) for name, text in texts.items()})

    def scored(self, variant: Variant, left: Cut | None) -> tuple[list[Any], Scores]:
        """Score the source by the variant's method; scores are kept."""
        method = variant.method if isinstance(variant, Mend) else "contextual"
        key = f"{method} {variant.source}"
        if key not in self.scores:
            model, plain = self.models[variant.source], "contextual" if method == "elimination" else method
            self.scores[key] = ranked(model, self.batches, plain)
            if method == "elimination":
                self.scores[key] = replace(self.scores[key], ffn=elimination_scores(model, self.batches))
        return self.batches, self.scores[key]

    def passages(self, count: int, writer: str, prompts: str) -> list[Document]:
        """Passages that a model writes; with prompts of "both", half of them go on from general text."""
        key = (count, writer, prompts)
        if count and key not in self.written_by:
            model: Any = deepcopy(self.models[writer]).to(measuring_dtype(self.device))
            texts = [self.corpora.domain.train] + ([self.general.train] if prompts == "both" else [])
            passages: list[Document] = []
            for seed, documents in enumerate(texts):
                windows = token_text(self.tokenizer, documents, WINDOW).windows
                passages += write_passages(model, self.tokenizer, windows, count // len(texts), seed=seed)
            self.written_by[key] = clear_of_tests(passages, self.corpora)
        return self.written_by.get(key, [])

    def mend(self, variant: Mend) -> dict[str, Any]:
        """Cut, heal and read one variant."""
        started = time.perf_counter()
        self.counts = self.counted[variant.counts]
        read = (variant.calibrate, variant.tokens or self.tokens)
        if read not in self.calibrated:
            self.calibrated[read] = packed(self.tokenizer, self.calibration_text[read[0]], read[1])
        self.batches, self.scores = self.calibrated[read], self.scored_on.setdefault(read, {})
        source = f"blend-{variant.blend:g}" if variant.blend else variant.source
        teacher = f"blend-{variant.blend:g}" if variant.blend else variant.teacher
        left = self.cut(replace(variant, source=source))
        if variant.fresh:
            torch.manual_seed(variant.seed)
            left = replace(left, model=type(left.model)(left.model.config).to(self.device).float())
        self.reading = left.tokenizer
        texts = self.texts(left.tokenizer)
        before = {name: tensor.detach().clone() for name, tensor in left.model.state_dict().items()}
        pruned = self.read(left.model, texts)
        training = self._heal(variant, left, teacher)
        healed, opening = self.read(left.model, texts), self.opening
        accuracy = self.ask(left.model, left.tokenizer)
        averages = {}
        after = {name: tensor.detach().clone() for name, tensor in left.model.state_dict().items()}
        for share in variant.averages:
            left.model.load_state_dict({name: after[name].lerp(before[name], share) for name in after})
            averages[f"{share:g}"] = self.against(self.read(left.model, texts))
        self.reading = None
        return {
            "tag": variant.tag,
            "variant": asdict(variant),
            "shape": [left.model.config.num_hidden_layers, left.model.config.intermediate_size,
                      left.model.config.num_key_value_heads, left.model.config.vocab_size],
            "pruned": self.against(pruned),
            "healed": self.against(healed),
            "averages": averages,
            "accuracy": accuracy,
            "opening": opening,
            "best_step": training.best_step,
            "tokens": training.tokens,
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip

    def against(self, bits: dict[str, float]) -> dict[str, dict[str, float]]:
        """Ratios to the parent and to the tuned parent."""
        return {name: ratios(bits, self.before[name]) for name in ("parent", "tuned")}

    def _heal(self, variant: Mend, left: Cut, teacher: str) -> Any:
        recipe = variant.recipe()
        documents = self.documents(variant.general, variant.definitions)
        documents = [*documents, *self.passages(variant.sampled, variant.writer, variant.prompts)]
        model: Any = deepcopy(self.models[teacher])
        told = Teacher(model=model.to(torch.bfloat16).requires_grad_(False), parent_ids=left.ids)
        answers = told if recipe.distill else None
        dev = token_text(left.tokenizer, self.part(self.corpora.domain.dev), WINDOW)
        if variant.on_policy:
            recipe = replace(recipe, steps=recipe.steps // 2)
            text = training_text(left.tokenizer, left.model, documents, recipe.window)
            train(left.model, text, dev, recipe, teacher=answers, seed=variant.seed)
            student: Any = deepcopy(left.model).to(measuring_dtype(self.device))
            for seed, written in enumerate([self.corpora.domain.train, self.general.train]):
                windows = token_text(left.tokenizer, written, WINDOW).windows
                passages = write_passages(student, left.tokenizer, windows, variant.on_policy // 2, seed=seed)
                documents += clear_of_tests(passages, self.corpora)
            del student
        text = training_text(left.tokenizer, left.model, documents, recipe.window)
        return train(left.model, text, dev, recipe, teacher=answers, seed=variant.seed)


def packed(tokenizer: Any, documents: list[Document], tokens: int) -> list[Any]:
    """Calibration batches of documents."""
    return calibration_batches(tokenizer, documents, window=WINDOW, tokens=tokens, batch_tokens=BATCH_TOKENS)


def variants_of(rows: Iterable[Mapping[str, Any]]) -> list[Mend]:
    """Variants from rows of a JSON file; a row may say `like` another row's tag and what differs from it."""
    known: dict[str, dict[str, Any]] = {}
    names = {field.name for field in fields(Mend)}
    for row in rows:
        values = {**known.get(str(row.get("like", "")), {}), **{name: row[name] for name in row if name != "like"}}
        if strange := values.keys() - names:
            raise SystemExit(f"{row.get('tag')}: no such field: {', '.join(sorted(strange))}")
        known[str(values["tag"])] = values
    return [Mend(**{**values, "averages": tuple(values.get("averages", ()))}) for values in known.values()]


def controls(bench: FieldBench, shares: Iterable[float], widths: Iterable[int] = ()) -> list[dict[str, Any]]:
    """Lines of the unpruned models: the parent, the tuned parent, averages of both, and the tuned parent rounded.

    A specialist of half the size has the bytes of the tuned parent at half the bits.
    """
    lines = []
    texts = bench.texts(bench.tokenizer)
    for name in (
        "parent",
        "tuned",
        *(f"blend-{share:g}" for share in shares),
        *(f"tuned-int{bits}" for bits in widths),
    ):
        if name.startswith("tuned-int"):
            bench.models[name] = rounded(bench.models["tuned"], int(name.removeprefix("tuned-int")))
        bits = bench.read(bench.models[name], texts)
        accuracy = bench.ask(bench.models[name], bench.tokenizer)
        line = {"tag": name, "bits": bits, "healed": bench.against(bits), "opening": bench.opening}
        lines.append({**line, "accuracy": accuracy})
    return lines


@torch.no_grad()
def rounded(model: Any, bits: int, *, block: int = 32) -> Any:
    """Copy a model with its matrices rounded to so many bits, each block of a row by its own scale (as Q8_0 and Q4_0).

    Args:
        model: the model; vectors stay as they are.
        bits: bits of a number.
        block: numbers that share a scale.
    """
    model, most = deepcopy(model), 2 ** (bits - 1) - 1
    for weight in model.parameters():
        if weight.ndim == 2 and weight.shape[1] % block == 0:
            blocks = weight.view(weight.shape[0], -1, block)
            scale = (blocks.abs().amax(-1, keepdim=True) / most).clamp_min(1e-12)
            weight.copy_(((blocks / scale).round() * scale).view_as(weight))
    return model


def main() -> None:
    """Run every variant that has no line in the results yet, as long as there is time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--other", type=Path, required=True, help="JSON lines of text from other sources of the field")
    parser.add_argument("--variants", type=Path, required=True, help="JSON lines, see Mend")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--tuned", type=Path, required=True, help="weights of the tuned parent, written once")
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--tune", type=json.loads, default={}, help='fields of the tuning recipe: {"steps": "100"}')
    parser.add_argument("--blends", type=json.loads, default=[0.25, 0.5, 0.75])
    parser.add_argument("--widths", type=json.loads, default=[], help="bits that the tuned parent is rounded to")
    parser.add_argument("--tokens", type=int, default=65536, help="of calibration text")
    parser.add_argument("--limit", type=int, help="bytes of each text that is read, for a trial [all]")
    parser.add_argument("--limit-seconds", type=float, default=1e9, help="start no variant that would end later")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    started, longest = time.perf_counter(), 60.0
    common = {"domain": Path(chosen.domain).stem, "base": chosen.base, "device": device_name(chosen.device)}
    done = {row["key"] for row in read_jsonl(chosen.results)} if chosen.results.exists() else set()
    wanted = {fingerprint(common, asdict(variant)): variant for variant in variants_of(read_jsonl(chosen.variants))}
    tuning = Tuning(recipe=chosen.tune, general=1.0, definitions=3, kept=chosen.tuned)
    arguments = (chosen.domain, chosen.base, chosen.device, tuning, chosen.tokens, chosen.limit)
    bench = FieldBench(chosen.other, *arguments)
    with chosen.results.open("a", encoding="utf-8") as stream:

        def write(row: dict[str, Any]) -> None:
            stream.write(json.dumps({**common, **row}) + "\n")
            stream.flush()
            print(common["domain"], row["tag"], json.dumps(row["healed"]), row.get("seconds", ""), flush=True)

        for line in controls(bench, chosen.blends, chosen.widths):
            if (key := fingerprint(common, line["tag"])) not in done:
                write({"key": key, **line})
        for key, variant in wanted.items():
            if key in done:
                continue
            if time.perf_counter() - started + 1.15 * longest > chosen.limit_seconds:
                print(f"{variant.tag}: no time left", flush=True)
                break
            begun = time.perf_counter()
            write({"key": key, **bench.mend(variant)})
            longest = max(longest, time.perf_counter() - begun)
            release()


if __name__ == "__main__":
    main()
