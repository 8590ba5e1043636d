"""Recipes: the settings of a training run, and the healing recipes of papers.

The defaults are those that were measured; see docs/results/quality.md and LOG.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from minigpt.ranges import PART, SHARE, Range, above, at_least, check_ranges

# Precision of the arithmetic; "auto" takes bf16 where the hardware is faster at it.
Precision = Literal["auto", "fp32", "bf16"]
# Value of `Recipe.targets` that stands for the FFN projections of any family.
FFN = "ffn"


# Ranges of a recipe's fields.
RANGES: Mapping[str, Range] = {
    "steps": at_least(0),
    "tokens_per_step": at_least(1),
    "window": at_least(2),
    "learning_rate": above(0, 1e6),
    "growth": above(0, 1e6),
    "warmup": at_least(0),
    "final": SHARE,
    "distill": SHARE,
    "bare": PART,
    "noise": PART,
    "temperature": above(0, 1e6),
    "average": PART,
    "evaluate_every": at_least(1),
    "patience": at_least(0),
    "rank": at_least(1),
    "alpha": above(0),
    "dropout": PART,
    "weight_decay": at_least(0, 1000),
    "clip": above(0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of one training run: tuning a parent, or healing a pruned model with or without a teacher.

    Attributes:
        steps: Number of optimizer steps, over which the learning rate falls; more steps read more text and take longer
            in proportion.
        tokens_per_step: Most tokens of one step (padding counts, where windows are padded); larger steps have gradients
            with less noise and need more memory.
        window: Longest piece of a document, in tokens, that the model sees at once; a longer window gives more context
            and needs more memory.
        learning_rate: Peak of the learning rate, which is reached after `warmup` steps; a larger value changes the
            weights more per step, and too large a value does harm.
        growth: Factor on the peak learning rate of healing when half of the decoder was removed (see
            :meth:`after_pruning`); a larger value raises the rate more, the more was pruned, and 1 turns this off.
        warmup: Number of steps in which the learning rate rises linearly to its peak; more steps make a gentler start.
        final: Learning rate at the last step, as a share of the peak; it is reached on a cosine, and 0 lets the rate
            fall to nothing.
        distill: Weight of the KL divergence from the teacher in the loss, 0 to 1; a larger weight follows the teacher
            more and the text less, whose cross-entropy is the rest of the loss (all of it without a teacher).
        bare: Share of the windows, 0 or more and below 1, that are shown without their opening token; a larger share
            prepares the model more for runtimes that do not add this token.
        noise: Share of the tokens, 0 or more and below 1, that are replaced by other tokens of the batch; it acts only
            where `distill` is 1, and a larger share makes a small corpus harder to learn by heart.
        temperature: Divisor of the logits of teacher and student in the KL divergence; a value above 1 gives unlikely
            tokens more weight, and the gradient is scaled back by the square of the value.
        average: Decay of the exponential moving average of the weights, 0 or more and below 1, which is what is
            evaluated and kept; a larger value averages over more steps, and 0 turns the average off.
        evaluate_every: Number of steps between two evaluations on the dev text; a smaller value finds the best weights
            more exactly and takes more time.
        patience: Number of steps without a lower dev loss after which the run stops; 0 means that it never stops early.
        adapter: Weights that are trained: "full" for all of them, "lora" for low-rank adapters that are merged into the
            weights at the end, and "qlora" for adapters on weights that are frozen in 4 bits (NF4, with bitsandbytes)
            and dequantized when the adapters are merged.
        rank: Rank of the adapters; a larger value trains more parameters.
        alpha: Numerator of the scale alpha / rank of the adapters' product; a larger value gives the adapters more
            effect, and None stands for the rank, a scale of 1.
        dropout: Share of the adapters' inputs, 0 or more and below 1, that is dropped at random in training; a larger
            share counters overfitting.
        targets: Modules that get adapters, in the form that peft takes them, or "ffn" for the FFN projections of the
            family.
        router: Routers of models with experts: "trained" with the other weights, or "frozen", so that tokens are routed
            by the weights that the router began with.
        weight_decay: Share of each weight, times the learning rate, that every step takes off; a larger value holds the
            weights closer to zero.
        optimizer: Rule of the steps: "adamw", or "muon" for the matrices of the decoder layers with AdamW for the rest;
            adapters are always trained by AdamW.
        clip: Largest norm of the gradient of a step; a longer gradient is scaled down to it, and a larger value allows
            larger steps.
        precision: Precision of the arithmetic, while the trained weights stay in fp32: "fp32", "bf16", or "auto" for
            bf16 where the hardware is faster at it.

    Raises:
        ConfigError: a value is outside its range.
    """

    steps: int = 600
    tokens_per_step: int = 8192
    window: int = 512
    learning_rate: float = 5e-4
    growth: float = 1.0
    warmup: int = 30
    final: float = 0.1
    distill: float = 0.0
    bare: float = 0.2
    noise: float = 0.0
    temperature: float = 1.0
    average: float = 0.99
    evaluate_every: int = 50
    patience: int = 0
    adapter: Literal["full", "lora", "qlora"] = "full"
    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.05
    targets: str = "all-linear"
    router: Literal["trained", "frozen"] = "trained"
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    clip: float = 1.0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, RANGES, named="{} of a training recipe")

    @property
    def is_noisy(self) -> bool:
        """True if `noise` is used, which is only where the loss is the divergence from a teacher alone."""
        return self.noise > 0 and self.distill == 1

    def at(self, learning_rate: float) -> Recipe:
        """Return the recipe with another peak learning rate."""
        return replace(self, learning_rate=learning_rate)

    def after_pruning(self, removed: float) -> Recipe:
        """Return the recipe for healing after pruning, whose peak learning rate grows with what was removed.

        The rate is multiplied by `growth` to the power of 2 x `removed`: by `growth` itself if half of the decoder was
        removed, by its square root if a quarter was. Beyond two thirds the rate no longer grows.

        Args:
            removed: share of the decoder's parameters that was removed, 0 to 1. The vocabulary does not count, because
                the weights that are left need not change for a removed token.
        """
        # No rate was measured beyond two thirds.
        return self.at(self.learning_rate * self.growth ** (2 * min(removed, 2 / 3)))

    def describe(self) -> str:
        """Return one line about the recipe for the report."""
        kinds = {"full": "all weights", "lora": f"LoRA rank {self.rank}", "qlora": f"QLoRA (NF4) rank {self.rank}"}
        on_ffn = self.adapter != "full" and self.targets == FFN
        weights = kinds[self.adapter] + (f" on {self.targets}" if on_ffn else "")
        weights += ", routers frozen" if self.router == "frozen" else ""
        loss = "cross-entropy"
        if self.distill == 1:
            loss = "KL to the teacher"
        elif self.distill:
            loss = f"{self.distill:g} KL to the teacher + {1 - self.distill:g} cross-entropy"
        name = "Muon" if self.optimizer == "muon" and self.adapter == "full" else "AdamW"
        return f"{weights}, {loss}, {name} {self.learning_rate:g} cosine, {self.tokens_per_step} tokens a step"


def schedule(step: int, recipe: Recipe) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then a cosine down to `recipe.final`."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final + (1 - recipe.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


# Healing recipes of papers, by name.
#
# "deeper-layers" is the recipe of Gromov et al. 2024 (appendix A): QLoRA on the FFN with alpha equal to the rank and
# dropout 0.05, 5,000 steps of 16 sequences of 2,048 tokens, and a cosine from 3e-4 to zero after 100 warm-up steps. The
# paper searches for the rank, starting at 64, and ends at 2 for Llama-2-7B, 8 for Llama-2-70B (at 3e-5) and 4 for
# Mistral-7B (at 3e-6).
RECIPES: Mapping[str, Recipe] = {
    "deeper-layers": Recipe(
        steps=5000,
        tokens_per_step=16 * 2048,
        window=2048,
        learning_rate=3e-4,
        warmup=100,
        final=0.0,
        average=0.0,
        evaluate_every=250,
        adapter="qlora",
        rank=64,
        targets=FFN,
    ),
}
