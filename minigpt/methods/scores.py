"""What scores are made of and what they are: records without torch at import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("linear", "activation")


class Statistics(Protocol):
    """The part of `minigpt.transformer.stats.ActivationStats` that scores are made of."""

    @property
    def gate_abs(self) -> Tensor: ...  # noqa: D102
    @property
    def up_abs(self) -> Tensor: ...  # noqa: D102
    @property
    def act_abs(self) -> Tensor: ...  # noqa: D102
    @property
    def ffn_abs(self) -> Tensor: ...  # noqa: D102
    @property
    def ffn_sq(self) -> Tensor: ...  # noqa: D102
    @property
    def ffn_mean(self) -> Tensor: ...  # noqa: D102
    @property
    def head_abs(self) -> Tensor: ...  # noqa: D102
    @property
    def column_sq(self) -> Tensor: ...  # noqa: D102
    @property
    def column_mean(self) -> Tensor: ...  # noqa: D102
    @property
    def layer_cos(self) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightNorms:
    """Norms of the weights of each unit, fp32 on the CPU.

    Squared: `rows` [L, I]: rows of gate and up; `down` [L, I]: column of down; `output` [L, heads x head_dim]:
    columns of o; `group` [L, G]: everything a KV group owns in q, k, v and o; `groups` is G. Sums of magnitudes:
    `down_abs` [L, I] and `output_abs` [L, heads x head_dim] of the columns of down and o.
    """

    rows: Tensor
    down: Tensor
    output: Tensor
    group: Tensor
    down_abs: Tensor
    output_abs: Tensor

    @property
    def groups(self) -> int:
        """KV groups a layer."""
        return int(self.group.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Importance of every unit, fp32 on the CPU, higher is kept: `ffn` [L, I], `kv_groups` [L, G], `layers` [L]."""

    method: str
    ffn: Tensor
    kv_groups: Tensor
    layers: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a method may be told: the seed of `random`, and which kinds of evidence may speak (contract `--kinds`)."""

    seed: int = 0
    kinds: frozenset[str] = field(default_factory=lambda: frozenset(KINDS))


ScoreFunction = Callable[[Statistics, WeightNorms, Options], tuple["Tensor", "Tensor", "Tensor"]]
