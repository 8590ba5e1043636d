"""What a training run may be told. The defaults are the measured ones; see docs/results and LOG.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from minigpt.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]
FFN = "ffn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run: tuning a parent (no teacher) or healing a pruned model (with or without a teacher).

    Attributes:
        steps: optimizer steps; the cosine schedule spans all of them.
        tokens_per_step: tokens of one step, padding included.
        window: longest piece of a document, in tokens.
        learning_rate: peak, after `warmup` steps, falling to `final` times it; times what `growth` adds to it.
        growth: of the peak in healing with what was pruned, which leaves more to move: see :meth:`after_pruning`.
        distill: weight of the KL divergence to the teacher; the rest is cross-entropy to the text.
        bare: share of the windows learnt without their opening token, which not every runtime puts there.
        noise: share of the tokens replaced by others while learning from a teacher alone (`distill` 1).
        temperature: softens both sides of the KL divergence, whose gradient is scaled back by its square.
        average: decay of the exponential moving average of the weights, which is what is evaluated and kept (0: off).
        evaluate_every: steps between two looks at the dev text.
        patience: stop after this many steps without a better dev loss (0: never).
        adapter: train all weights, or LoRA adapters that are merged at the end; "qlora" puts them on weights that are
            frozen in 4 bits (NF4, bitsandbytes), and merges them into what is left of these.
        rank: rank of the adapters.
        alpha: the adapters' product is scaled by alpha / rank (None: by 1).
        dropout: of what goes into the adapters.
        targets: modules the adapters sit on, as peft takes them, or "ffn": the projections of the FFN.
        weight_decay: of the optimizer.
        optimizer: "adamw", or "muon" for the matrices of the decoder and AdamW for the rest; adapters, which are no
            matrices of the decoder, are always trained by AdamW.
        clip: largest norm of the gradient.
        precision: of the arithmetic over fp32 weights; "auto" is bf16 where the hardware is faster at it.

    Raises:
        ConfigError: a value outside its range.
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
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    clip: float = 1.0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        allowed = {
            "steps": (self.steps >= 0, "0 or more"),
            "tokens_per_step": (self.tokens_per_step > 0, "1 or more"),
            "window": (self.window > 1, "2 or more"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "growth": (self.growth > 0, "above 0"),
            "warmup": (self.warmup >= 0, "0 or more"),
            "distill": (0 <= self.distill <= 1, "between 0 and 1"),
            "bare": (0 <= self.bare < 1, "0 or more and below 1"),
            "noise": (0 <= self.noise < 1, "0 or more and below 1"),
            "temperature": (self.temperature > 0, "above 0"),
            "average": (0 <= self.average < 1, "0 or more and below 1"),
            "evaluate_every": (self.evaluate_every > 0, "1 or more"),
            "patience": (self.patience >= 0, "0 or more"),
            "rank": (self.rank > 0, "1 or more"),
            "alpha": (self.alpha is None or self.alpha > 0, "above 0"),
            "dropout": (0 <= self.dropout < 1, "0 or more and below 1"),
            "clip": (self.clip > 0, "above 0"),
        }
        for name, (holds, range_) in allowed.items():
            if not holds:
                raise ConfigError(f"{name} of a training recipe must be {range_}, not {getattr(self, name)!r}.")

    @property
    def is_noisy(self) -> bool:
        """Whether `noise` is put into the text: only where the text itself is not learnt."""
        return self.noise > 0 and self.distill == 1

    def at(self, learning_rate: float) -> Recipe:
        """The same recipe with another peak learning rate."""
        return replace(self, learning_rate=learning_rate)

    def after_pruning(self, removed: float) -> Recipe:
        """The recipe to heal with: the peak rate times `growth` where half of the decoder was removed.

        Args:
            removed: share of the decoder's parameters, 0 to 1 (tokens leave nothing to move); for a quarter the rate
                goes up by the root of `growth`. Beyond two thirds nothing was measured, and it stays.
        """
        return self.at(self.learning_rate * self.growth ** (2 * min(removed, 2 / 3)))

    def describe(self) -> str:
        """One line for the report."""
        kinds = {"full": "all weights", "lora": f"LoRA rank {self.rank}", "qlora": f"QLoRA (NF4) rank {self.rank}"}
        how = kinds[self.adapter] + (f" on {self.targets}" if self.adapter != "full" and self.targets == FFN else "")
        loss = "cross-entropy"
        if self.distill:
            loss = f"{self.distill:g} KL to the teacher + {1 - self.distill:g} cross-entropy"
        name = "Muon" if self.optimizer == "muon" and self.adapter == "full" else "AdamW"
        return f"{how}, {loss}, {name} {self.learning_rate:g} cosine, {self.tokens_per_step} tokens a step"


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
"""Healing recipes of papers, by name.

"deeper-layers" (Gromov et al. 2024, appendix A): QLoRA on the FFN, alpha = rank, dropout 0.05, 5,000 steps of 16
sequences of 2,048 tokens, cosine to zero after 100 warm-up steps, 3e-4. Their search for the rank begins at 64; for
Llama-2-7B, -70B and Mistral-7B they went down to 2, 8 and 4 (70B with 3e-5, Mistral with 3e-6).
"""
