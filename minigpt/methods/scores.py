"""Records of importance: the weight norms that formulas read, and the scores that they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from minigpt.errors import ConfigError
from minigpt.types import Ints

if TYPE_CHECKING:
    from torch import Tensor

# The kinds of evidence that may rank FFN neurons (`--kinds`; "embedding" is about tokens and ranks nothing).
KINDS = ("linear", "activation")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightNorms:
    """Norms of the weights of every unit, fp32 on the CPU; L layers, I neurons, G KV groups, A = heads x head size.

    Attributes:
        rows: squared norms of the rows of gate and up, [L, I].
        down: squared norms of the columns of down, [L, I].
        output: squared norms of the columns of o, [L, A].
        group: squared norms of everything a KV group owns in q, k, v and o, [L, G].
        down_abs: sums of magnitudes of the columns of down, [L, I].
        output_abs: sums of magnitudes of the columns of o, [L, A].
    """

    rows: Tensor
    down: Tensor
    output: Tensor
    group: Tensor
    down_abs: Tensor
    output_abs: Tensor

    @property
    def groups(self) -> int:
        """Number of KV groups in a layer."""
        return int(self.group.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Importance of every unit, fp32 on the CPU; units with higher scores are kept.

    Attributes:
        ffn: FFN neurons, [L, I].
        kv_groups: KV groups with their query heads, [L, G].
        layers: whole layers, [L].
        experts: experts, [L, E]; None if the method ranks none.
        method: name of the method that ranks; filled in by :func:`minigpt.methods.ranking.rank`.
        fixed: layers that are kept whatever their scores are; filled in by the same function.
    """

    ffn: Tensor
    kv_groups: Tensor
    layers: Tensor
    experts: Tensor | None = None
    method: str = ""
    fixed: Ints = ()


def checked(scores: Scores) -> Scores:
    """Return the scores after checking that all of them are finite numbers.

    Raises:
        ConfigError: a score is not finite, because the pass over the calibration text overflowed or saw no text.
    """
    ranked = (scores.ffn, scores.kv_groups, scores.layers, scores.experts)
    if not all(bool(values.isfinite().all()) for values in ranked if values is not None):
        raise ConfigError(
            f"Method {scores.method!r} gave scores that are not finite; calibrate in float32, or on more text."
        )
    return scores
