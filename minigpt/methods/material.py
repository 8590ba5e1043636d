"""What a method may look at, computed when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from minigpt.errors import ConfigError
from minigpt.methods.depth.greedy import Searches
from minigpt.methods.importance import KINDS, WeightNorms, weight_norms
from minigpt.progress import SILENT, Reporter
from minigpt.transformer import stats
from minigpt.transformer.batches import Batch
from minigpt.transformer.stats import ActivationStats

DOMAIN, GENERAL = "statistics", "statistics_general"


@dataclass(frozen=True, kw_only=True)
class Material:
    """The model to prune and the text to judge it by.

    `model` is the dense model in float32; methods leave it as it is, except a `transform` and a `faithful` form,
    which own it. `batches` are calibration text, `general` calibration text of the control domain (empty: there is
    none). `counts` says how often the domain uses each token, `specials` which tokens are never removed. `contrast`,
    `epsilon` and `epsilon_tokens` are the plan's settings of those names, `protect_ends` keeps a search by loss from
    the first and last layer, `searches` remembers how far such a search went, `kinds` is the evidence that may rank
    neurons. `collect` (name, batches) takes the statistics of a text, or finds them where they were taken before.
    """

    method: str
    model: Any
    batches: Sequence[Batch]
    general: Sequence[Batch] = ()
    counts: Mapping[int, int] = field(default_factory=dict)
    specials: frozenset[int] = frozenset()
    seed: int = 0
    kinds: frozenset[str] = frozenset(KINDS)
    contrast: float = 0.0
    epsilon: float | None = None
    epsilon_tokens: float = 0.0
    protect_ends: bool = True
    searches: Searches = field(default_factory=Searches)
    collect: Callable[[str, Sequence[Batch]], ActivationStats] | None = None
    reporter: Reporter = SILENT

    def _statistics(self, name: str, batches: Sequence[Batch]) -> ActivationStats:
        if self.collect is not None:
            return self.collect(name, batches)
        return stats.collect(self.model, batches, reporter=self.reporter)

    @cached_property
    def stats(self) -> ActivationStats:
        """Activation statistics of the calibration text."""
        return self._statistics(DOMAIN, self.batches)

    @cached_property
    def general_stats(self) -> ActivationStats:
        """The same on general text.

        Raises:
            ConfigError: there is no general text.
        """
        if not self.general:
            raise ConfigError(
                "plan.contrast compares with general text, and this build has none; give the domain a control "
                "(`general:`) and leave evaluation.general on, or set plan.contrast=0."
            )
        return self._statistics(GENERAL, self.general)

    @cached_property
    def norms(self) -> WeightNorms:
        """Squared norms of every unit's weights."""
        return weight_norms(self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A method's faithful form in memory.

    `parameters` counts what is not masked; `kept` holds under `ffn` and `kv_groups` what every parent layer keeps
    (0: the layer is gone); `note` says what was evaluated and what stands for its size.
    """

    model: Any
    parameters: int
    note: str
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
