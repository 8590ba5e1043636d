"""Records of conditional forms: what became of the layers of a finished model, and what decided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalLayer:
    """One feed-forward layer of a model's conditional form, and what decided about it.

    Attributes:
        layer: Number of the layer, from 0.
        conditional: True if it became conditional; False if it stayed dense.
        neurons: Neurons of the layer as it is now.
        visited: Neurons that add to a token's output, the mean over dev text.
        weights_share: Weights that a token reads, relative to those of the dense layer, the mean over dev text.
        error: Squared error after conversion over the variance of the dense outputs, on text it was not converted on.
        loss: Bits per byte that the layer alone costs on dev text before healing.
        dense_us: Microseconds of the dense layer for one token.
        conditional_us: Microseconds of the conditional layer for one token.
    """

    layer: int
    conditional: bool
    neurons: int
    visited: float
    weights_share: float
    error: float
    loss: float
    dense_us: float
    conditional_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalForm:
    """The conditional form of a finished model.

    Attributes:
        kind: Kind of its conditional layers.
        layers: All feed-forward layers, by number.
        probe: Bits per byte of the dense model on the dev text that decided.
        probe_before_healing: Bits per byte of the conditional form on it, before healing.
        visited_share: Feed-forward neurons that a token visits, relative to those of the dense model.
    """

    kind: str
    layers: tuple[ConditionalLayer, ...]
    probe: float
    probe_before_healing: float
    visited_share: float

    @property
    def dense(self) -> tuple[int, ...]:
        """Numbers of the layers that stayed dense."""
        return tuple(entry.layer for entry in self.layers if not entry.conditional)
