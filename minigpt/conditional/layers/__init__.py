"""Conditional feed-forward layers for training and inference, one module for each kind."""

from __future__ import annotations

from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.layers.leaves import LeafSettings, Leaves
from minigpt.conditional.layers.relu import Relu, ReluSettings
from minigpt.conditional.layers.threshold import Threshold, ThresholdSettings
from minigpt.conditional.layers.trees import Trees, TreeSettings

__all__ = [
    "AnySettings",
    "ConditionalFFN",
    "LeafSettings",
    "Leaves",
    "Relu",
    "ReluSettings",
    "Threshold",
    "ThresholdSettings",
    "TreeSettings",
    "Trees",
    "build",
]

AnySettings = TreeSettings | LeafSettings | ReluSettings | ThresholdSettings


def build(settings: AnySettings) -> ConditionalFFN:
    """Return a layer with new random weights for these settings."""
    match settings:
        case TreeSettings():
            return Trees(settings)
        case LeafSettings():
            return Leaves(settings)
        case ReluSettings():
            return Relu(settings)
        case ThresholdSettings():
            return Threshold(settings)
