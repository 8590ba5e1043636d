"""Bytes of an exported file, predicted from the shape of a model, its parent's tokenizer and the layout of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from minigpt.fitting.engines import Layout
from minigpt.parsing import load_json
from minigpt.transformer.arch import arch_of, has_attention, head_dim, heads_per_group, shape_of, unit_costs
from minigpt.transformer.costs import UnitCosts
from minigpt.types import Shape

# Bytes of the length before a string of a GGUF file, and of a token's kind.
LENGTH, TOKEN_KIND = 8, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Bytes of a model's file by what they are.

    Attributes:
        matrices: bytes of the matrices of the layers.
        head: bytes of the matrix that a token's logits come from.
        other: everything else: embedding of an untied model, norms, names, tokenizer.
    """

    matrices: float
    head: float
    other: float

    @property
    def total(self) -> int:
        """Bytes of the whole file."""
        return round(self.matrices + self.head + self.other)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSizes:
    """Predictions of the bytes of files of one parent's specialists.

    Attributes:
        whole: shape of the parent.
        costs: parameters of each unit.
        hidden: width of the residual stream.
        tied: whether the embedding is the head, too.
        cached: numbers of a token's keys and values in one KV group, times the query heads that read each of them.
        angles: rotary angles that a runtime may hold in a table.
        spelled: bytes that the first n tokens take in a file that holds the tokenizer, for n from 0 on.
        template: bytes of the chat template.
    """

    whole: Shape
    costs: UnitCosts
    hidden: int
    tied: bool
    cached: int
    angles: int
    spelled: Sequence[int]
    template: int = 0

    def parts(self, shape: Shape, layout: Layout) -> Parts:
        """Predict the bytes of the file of a model of this shape."""
        costs = self.costs
        weights = shape.intermediate_size * costs.per_neuron + shape.kv_groups * costs.per_kv_group
        weights += shape.experts * costs.per_expert
        rows = shape.vocab_size * self.hidden
        other = (shape.layers * costs.per_layer_fixed + costs.fixed) * layout.vectors
        other += shape.layers * layout.per_layer + layout.fixed + (0.0 if self.tied else rows * layout.table)
        other += self.angles * layout.rotary
        if layout.tokens:
            other += self.spelled[min(shape.vocab_size, len(self.spelled) - 1)] + self.template
        return Parts(
            matrices=shape.layers * weights * layout.matrices,
            head=rows * (layout.tied if self.tied else layout.head),
            other=other,
        )


def file_sizes(config: Any, tokenizer: Any) -> FileSizes:
    """Prepare the prediction for a parent.

    A trimmed vocabulary keeps the tokens that were merged early more often than others, so the first n tokens of the
    parent stand for a vocabulary of n tokens.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    document = load_json(backend.to_str()) if backend is not None else {"model": {}}
    model = document["model"]
    vocab = model.get("vocab", {})
    names = sorted(vocab, key=lambda name: int(vocab[name])) if isinstance(vocab, dict) else [name for name, _ in vocab]
    merges = {"".join(pair): pair for pair in map(_pair, model.get("merges", ()))}
    spelled = list(accumulate((_spelled(name, merges.get(name)) for name in names), initial=0))
    template = getattr(tokenizer, "chat_template", None)
    return of_config(config, spelled, len(str(template).encode()) if template else 0)


def of_config(config: Any, spelled: Sequence[int], template: int = 0) -> FileSizes:
    """Take what a prediction needs from a config, once for all shapes.

    Args:
        config: the parent's config.
        spelled: bytes that the first n tokens take in a file that holds the tokenizer, for n from 0 on.
        template: bytes of the chat template.
    """
    rotary = arch_of(config).positions is None
    return FileSizes(
        whole=shape_of(config),
        costs=unit_costs(config),
        hidden=int(config.hidden_size),
        tied=bool(config.tie_word_embeddings),
        cached=2 * heads_per_group(config) * head_dim(config),
        angles=int(config.max_position_embeddings) * head_dim(config) if rotary and has_attention(config) else 0,
        spelled=spelled,
        template=template,
    )


def _pair(merge: str | Sequence[str]) -> tuple[str, ...]:
    """Return the two parts of a BPE merge, which files spell in two ways."""
    return tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge)


def _spelled(name: str, merge: tuple[str, ...] | None) -> int:
    """Count the bytes of a token in the header of a GGUF file: its text, its kind, and the merge that makes it."""
    text = len(name.encode())
    return text + LENGTH + TOKEN_KIND + (0 if merge is None else text + 1 + LENGTH)
