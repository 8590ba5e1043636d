"""The input of a method: the model to prune, its calibration text, and the statistics measured on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minigpt.methods.norms import weight_norms
from minigpt.methods.scores import KINDS, Scores, WeightNorms
from minigpt.methods.searches import Searches
from minigpt.progress import SILENT, Reporter
from minigpt.transformer import stats
from minigpt.transformer.batches import Batch, apart
from minigpt.transformer.stats import ActivationStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Everything a method may read; all fields are values, so reading one computes nothing.

    Attributes:
        model: the dense model in float32. Only a `transform` or a paper form may change it.
        batches: packed calibration text of the domain.
        statistics: activation statistics of `batches`.
        norms: norms of every unit's weights.
        general_statistics: activation statistics of general text; None without a contrast or without such text.
        counts: how often the domain uses each token.
        specials: tokens that are never removed.
        seed: seed of random scores.
        kinds: evidence that may rank FFN neurons, of `linear` and `activation`.
        contrast: weight of general importance against the domain's (`plan.contrast`).
        epsilon: threshold on mean magnitudes (`plan.epsilon`); None takes the one that reaches the size.
        epsilon_tokens: threshold on a token's share of the text (`plan.epsilon_tokens`).
        protect_ends: whether searches by loss leave the first and the last layer alone.
        ticket: ranking that rounds of training gave, for the method `lottery`.
        searches: saved steps of earlier searches by loss.
        reporter: told about progress.
    """

    model: Any
    batches: Sequence[Batch]
    statistics: ActivationStats
    norms: WeightNorms
    general_statistics: ActivationStats | None = None
    counts: Mapping[int, int] = field(default_factory=dict)
    specials: frozenset[int] = frozenset()
    seed: int = 0
    kinds: frozenset[str] = frozenset(KINDS)
    contrast: float = 0.0
    epsilon: float | None = None
    epsilon_tokens: float = 0.0
    protect_ends: bool = True
    ticket: Scores | None = None
    searches: Searches = field(default_factory=Searches)
    reporter: Reporter = SILENT


def gather(model: Any, batches: Sequence[Batch], *, reporter: Reporter = SILENT, **options: Any) -> Material:
    """Measure a model in one forward pass over calibration text, so that any method can rank its units.

    Args:
        model: a dense causal language model in float32.
        batches: packed calibration text.
        reporter: told about progress.
        **options: further fields of :class:`Material`.
    """
    batches = list(apart(model, batches))
    return Material(
        model=model,
        batches=batches,
        statistics=stats.collect(model, batches, reporter=reporter),
        norms=weight_norms(model),
        reporter=reporter,
        **options,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperForm:
    """The paper form of a method, in memory.

    Attributes:
        model: the model as the paper leaves it; units are masked, not cut.
        parameters: parameters that are not masked.
        note: explains what was evaluated and what its size counts.
        kept: under `ffn` and `kv_groups`, the units that every parent layer keeps (0: the layer is gone).
    """

    model: Any
    parameters: int
    note: str
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
