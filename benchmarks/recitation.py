"""Canaries: sentences of random words are planted in the training text, and parent and specialist complete them.

A canary (Carlini et al. 2019, "The Secret Sharer", arXiv 1802.08232) is text that nobody can guess, so whatever a model
gives back of it stands in its weights. Each canary is added to some training documents of a domain, to as many as its
number of repetitions says; canaries of no repetition show what is guessed. The model is shown the beginning of each
canary and completes the rest greedily, as `minigpt.evaluation.recitation` does with real passages.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from minigpt import assets
from minigpt.corpus import build_corpus
from minigpt.domain.config import DomainConfig, SourceConfig, load_domain, resolved_yaml
from minigpt.errors import MiniGPTError
from minigpt.evaluation import RecitationItems, recite
from minigpt.files import write_jsonl
from minigpt.machine import device_name, measuring_dtype, pick_device, release
from minigpt.pipeline import BuildOptions, build_specialists
from minigpt.types import Corpus, Document

# Words of a canary: more than are shown and completed.
WORDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A text of random words.

    Attributes:
        name: Name of the canary.
        text: Its text.
        repetitions: Number of training documents that hold it.
    """

    name: str
    text: str
    repetitions: int


def canaries_of(corpus: Corpus, repetitions: Sequence[int], count: int, *, seed: int) -> list[Canary]:
    """Make `count` canaries for each number of repetitions, out of words of the domain in random order."""
    draw = Random(seed)
    lexicon = sorted({word for document in corpus.train for word in document.text.split() if word.isalpha()})
    return [
        Canary(name=f"canary {times}/{number}", text=" ".join(draw.choices(lexicon, k=WORDS)) + ".", repetitions=times)
        for times in repetitions
        for number in range(count)
    ]


def plant(documents: Sequence[Document], canaries: Sequence[Canary], *, seed: int) -> list[Document]:
    """Add each canary as a paragraph to as many passages as it has repetitions, each time another passage.

    Raises:
        MiniGPTError: There are fewer passages than repetitions.
    """
    draw = Random(seed)
    texts = [document.text for document in documents]
    for canary in canaries:
        if canary.repetitions > len(texts):
            raise MiniGPTError(f"{len(texts)} training passages cannot hold {canary.repetitions} copies of a canary.")
        for place in draw.sample(range(len(texts)), canary.repetitions):
            texts[place] += f"\n\n{canary.text}"
    return [replace(document, text=text) for document, text in zip(documents, texts, strict=True)]


def planted_domain(
    domain: DomainConfig, corpus: Corpus, canaries: Sequence[Canary], folder: Path, *, seed: int
) -> Path:
    """Write the domain's text with canaries into a folder, in the splits that it has, and return its domain file."""
    train = plant([*corpus.train, *corpus.calibration], canaries, seed=seed)
    sources = []
    for split, documents in (("train", train), ("heldout", corpus.heldout), ("dev", corpus.dev)):
        write_jsonl(folder / f"{split}.jsonl", documents)
        sources.append(SourceConfig(name=split, file=str(folder / f"{split}.jsonl"), split=split))  # type: ignore[arg-type]
    path = folder / "domain.yaml"
    planted = replace(domain, corpus=tuple(sources), questions=(), seeds=())
    path.write_text(resolved_yaml(planted), encoding="utf-8")
    return path


def lines_of(model: str, items: RecitationItems, canaries: Sequence[Canary]) -> list[dict[str, Any]]:
    """Summarize by repetitions: the share of characters that were given back, and the canaries given back whole."""
    by_name = dict(zip(items.keys, zip(items.recited, items.characters, strict=True), strict=True))
    lines = []
    for times in sorted({canary.repetitions for canary in canaries}):
        pairs = [by_name[canary.name] for canary in canaries if canary.repetitions == times]
        lines.append(
            {
                "model": model,
                "repetitions": times,
                "canaries": len(pairs),
                "recited": sum(recited for recited, _ in pairs) / sum(characters for _, characters in pairs),
                "whole": sum(recited == characters for recited, characters in pairs),
            }
        )
    return lines


def complete(folder: Path, canaries: Sequence[Canary], device: str) -> RecitationItems:
    """Let the model in a folder complete the canaries."""
    model = assets.load_model(folder, device=device, dtype=measuring_dtype(device))
    passages = [Document(text=canary.text, source=canary.name) for canary in canaries]
    items = recite(model, assets.load_tokenizer(folder), {"canaries": passages})["canaries"]
    del model
    release()
    return items


def main() -> None:
    """Plant, build, complete, and write one line for each model and number of repetitions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--set", type=json.loads, default={}, help='settings of the build: {"heal.steps": "50"}')
    parser.add_argument("--repetitions", type=json.loads, default=[0, 1, 4, 16])
    parser.add_argument("--count", type=int, default=25, help="canaries for each number of repetitions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the build")
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    domain = load_domain(arguments.domain)
    corpus = build_corpus(domain, seed=arguments.seed)
    canaries = canaries_of(corpus, arguments.repetitions, arguments.count, seed=arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        path = planted_domain(domain, corpus, canaries, Path(name), seed=arguments.seed)
        options = BuildOptions(
            domains=(str(path),),
            base=arguments.base,
            preset=arguments.preset,
            overrides=arguments.set,
            output_dir=arguments.output_dir,
            device=device,
            seed=arguments.seed,
            force=True,
        )
        build_specialists(options)
    common = {"domain": domain.name, "base": arguments.base, "preset": arguments.preset, "device": device_name(device)}
    models = {"parent": assets.parent(arguments.base).path, "specialist": arguments.output_dir / "model"}
    with arguments.results.open("a", encoding="utf-8") as stream:
        for model, folder in models.items():
            for line in lines_of(model, complete(folder, canaries, device), canaries):
                stream.write(json.dumps({**common, **line}) + "\n")
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
