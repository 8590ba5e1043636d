"""A whole small world to build in: a domain with questions, its general control, and a tiny parent on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from minigpt.pipeline import BuildOptions
from tests.support import tiny

SMALL = {
    "heal.steps": "6",
    "heal.tokens_per_step": "256",
    "heal.window": "64",
    "heal.warmup": "1",
    "heal.evaluate_every": "3",
    "plan.tokens": "1024",
    "plan.probe_tokens": "256",
    "repair.tokens": "1024",
    "evaluation.heldout_bytes": "null",
    "evaluation.questions": "6",
    "evaluation.batch_tokens": "512",
    "evaluation.sample_tokens": "4",
    "evaluation.chat_tokens": "0",
    "text.dev_bytes": "1500",
    "text.general": "0",
    "text.plan_general": "false",
}
CONTROL = {
    "control": "true",
    "tune.steps": "4",
    "tune.tokens_per_step": "192",
    "tune.window": "64",
    "tune.warmup": "1",
    "tune.evaluate_every": "2",
    "tune.shorter": "[]",
    "tune.longer": "0",
    "tune.muon": "[]",
    "heal.distill": "0.5",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where the domain file and the parent lie."""

    root: Path
    domain: Path
    base: Path

    def options(self, folder: str, *, overrides: dict[str, str] | None = None, **changes: Any) -> BuildOptions:
        """A small build into `folder`."""
        values: dict[str, Any] = {
            "domains": (str(self.domain),),
            "base": str(self.base),
            "device": "cpu",
            "output_dir": self.root / folder,
        }
        return BuildOptions(**(values | changes), overrides={**SMALL, **(overrides or {})})


def words(draw: Random, count: int) -> list[str]:
    """Made-up words of two to four syllables."""
    syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    return ["".join(draw.choices(syllables, k=draw.randint(2, 4))) for _ in range(count)]


def documents(draw: Random, lexicon: list[str], count: int) -> list[str]:
    """Texts of five sentences over a lexicon, the early words being the frequent ones."""
    weights = [1 / (place + 5) for place in range(len(lexicon))]
    return [
        " ".join(" ".join(draw.choices(lexicon, weights, k=20)).capitalize() + "." for _ in range(5))
        for _ in range(count)
    ]


def make_world(root: Path) -> World:
    """Write everything under `root`."""
    draw = Random(0)
    lexicon = words(draw, 900)
    texts, general = documents(draw, lexicon, 48), documents(draw, lexicon[450:], 16)
    (root / "docs").mkdir(parents=True)
    (root / "general").mkdir()
    rows = [{"text": text, "source": f"doc{number}"} for number, text in enumerate(texts)]
    (root / "docs" / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, text in enumerate(general):
        (root / "general" / f"{number}.txt").write_text(text)
    asked = [
        {"question": f"What follows {lexicon[place]}?", "choices": lexicon[place + 1 : place + 5], "answer": place % 4}
        for place in range(8)
    ]
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    general_text = {
        "name": "plain",
        "general_text": True,
        "corpus": [{"name": "plain", "file": "general", "license": "CC0"}],
    }
    (root / "plain.yaml").write_text(yaml.safe_dump(general_text))
    domain = {
        "name": "words",
        "general": "plain.yaml",
        "prompts": [" ".join(lexicon[:4])],
        "corpus": [{"name": "texts", "file": "docs", "license": "CC0", "citation": "Made up."}],
        "questions": [{"name": "next", "file": "questions.jsonl"}],
    }
    (root / "words.yaml").write_text(yaml.safe_dump(domain))
    make_parent(root / "parent", [*texts, *general])
    return World(root=root, domain=root / "words.yaml", base=root / "parent")


def make_parent(folder: Path, texts: list[str]) -> None:
    """A llama of hidden size 32 with 2,048 tokens, FFN 256, 4 layers and 2 KV groups, saved in float32."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=tiny.tiny_tokenizer().chat_template,
    )
    assert len(fast) == 2048
    config = tiny.tiny_config("llama", vocab_size=2048)
    config.intermediate_size = 256
    import torch

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    fast.save_pretrained(folder)
