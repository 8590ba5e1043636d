"""Which units matter: pure functions from statistics and weight norms to scores, by method.

Scores rank the units of one layer; thresholds across layers are a trap (measured: mean |activation| at 30 % of the
neurons costs 3.10x the parent's bits per byte with a global threshold and 1.31x with uniform widths). What a method
may remove, and methods that need more than statistics, are in :mod:`minigpt.methods`.
"""

from __future__ import annotations

from collections.abc import Mapping

from minigpt.errors import ConfigError, UnknownName
from minigpt.methods import formulas
from minigpt.methods.formulas import contrasted, ffn_activation, ffn_linear, standardized
from minigpt.methods.norms import weight_norms
from minigpt.methods.scores import KINDS, Options, ScoreFunction, Scores, Statistics, WeightNorms

__all__ = [
    "IMPORTANCE",
    "KINDS",
    "Options",
    "ScoreFunction",
    "Scores",
    "Statistics",
    "WeightNorms",
    "checked",
    "contrasted",
    "ffn_activation",
    "ffn_linear",
    "score",
    "standardized",
    "weight_norms",
]

IMPORTANCE: Mapping[str, ScoreFunction] = {
    "contextual": formulas.contextual,
    "linear": formulas.linear,
    "activation": formulas.activation,
    "wanda": formulas.wanda,
    "flap": formulas.flap,
    "magnitude": formulas.magnitude,
    "random": formulas.random,
}


def score(
    name: str, stats: Statistics, weights: WeightNorms, *, seed: int = 0, kinds: frozenset[str] = frozenset(KINDS)
) -> Scores:
    """Score every unit with the named method.

    Args:
        name: a key of `IMPORTANCE`.
        stats: activation statistics of the domain's calibration text.
        weights: `weight_norms(model)`.
        seed: for `random`.
        kinds: the evidence allowed to rank FFN neurons; other kinds of the contract ("embedding") are ignored.

    Raises:
        UnknownName: no such method.
        ConfigError: a score is not a finite number, so the calibration pass overflowed or saw no text.
    """
    if name not in IMPORTANCE:
        raise UnknownName("method", name, IMPORTANCE)
    options = Options(seed=seed, kinds=frozenset(kinds) & frozenset(KINDS))
    ffn, groups, layers = IMPORTANCE[name](stats, weights, options)
    return checked(Scores(method=name, ffn=ffn.float(), kv_groups=groups.float(), layers=layers.float()))


def checked(scores: Scores) -> Scores:
    """The scores, if all of them are finite numbers.

    Raises:
        ConfigError: one is not.
    """
    if not all(bool(values.isfinite().all()) for values in (scores.ffn, scores.kv_groups, scores.layers)):
        raise ConfigError(
            f"Method {scores.method!r} gave scores that are not finite; calibrate in float32, or on more text."
        )
    return scores
