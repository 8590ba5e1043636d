"""Lottery: units rank by the rounds of training and pruning that they survived (Frankle and Carbin 2019)."""

from __future__ import annotations

from minigpt.errors import ConfigError
from minigpt.methods.material import Material
from minigpt.methods.scores import Scores


def rank(material: Material) -> Scores:
    """Return the ranking that the rounds of a build gave.

    Raises:
        ConfigError: there were no rounds, because nothing but a build trains before it plans.
    """
    if material.ticket is None:
        raise ConfigError(
            "Method 'lottery' ranks units by rounds of training, which only a build runs: use minigpt build or "
            "minigpt.build, or choose another method."
        )
    return material.ticket
