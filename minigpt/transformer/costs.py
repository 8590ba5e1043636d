"""Parameter counts of the units of a model, and those of families whose layers carry a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigpt.transformer.mixers import COUNTS
from minigpt.transformer.specs import ArchSpec
from minigpt.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCosts:
    """Exact parameter counts of one unit of each kind; tied embeddings count once.

    Total = `fixed` + tokens x `per_token` + layers x (`per_layer_fixed` + neurons x `per_neuron` + groups x
    `per_kv_group` + experts x (`per_expert` + neurons x `per_expert_neuron`)), where neurons, groups and experts are
    those of one layer.

    Attributes:
        per_token: parameters of one token of the vocabulary.
        per_neuron: parameters of one FFN neuron of one layer; 0 where layers have experts.
        per_kv_group: parameters of one KV group of one layer, with its query heads.
        per_layer_fixed: parameters of a layer that no width changes: norms and biases.
        fixed: parameters outside of layers and vocabulary: the final norm and learned positions.
        per_expert: parameters of one expert of one layer without its neurons: its row of the router, and a bias.
        per_expert_neuron: parameters of one neuron of one expert of one layer.
    """

    per_token: int
    per_neuron: int
    per_kv_group: int
    per_layer_fixed: int
    fixed: int
    per_expert: int = 0
    per_expert_neuron: int = 0

    def experts(self, shape: Shape) -> int:
        """Return the parameter count of all experts of one layer of this shape, with the router."""
        return shape.experts * (self.per_expert + shape.intermediate_size * self.per_expert_neuron)

    def layer(self, shape: Shape) -> int:
        """Return the parameter count of one layer of this shape."""
        attention = self.per_layer_fixed + shape.kv_groups * self.per_kv_group
        return attention + shape.intermediate_size * self.per_neuron + self.experts(shape)

    def total(self, shape: Shape) -> int:
        """Return the parameter count of a model of this shape."""
        return self.fixed + shape.vocab_size * self.per_token + shape.layers * self.layer(shape)

    def breakdown(self, shape: Shape) -> dict[str, int]:
        """Return the total split into embedding, attention, ffn and other (norms and some biases)."""
        parts = {
            "embedding": shape.vocab_size * self.per_token,
            "attention": shape.layers * shape.kv_groups * self.per_kv_group,
            "ffn": shape.layers * (shape.intermediate_size * self.per_neuron + self.experts(shape)),
        }
        return {**parts, "other": self.total(shape) - sum(parts.values())}


def state_costs(config: Any, spec: ArchSpec, fixed: int) -> UnitCosts:
    """Return the costs of a family with a state, whose removable layers are all of one kind.

    What a layer of another kind has more or less is part of `fixed`, since such layers stay.

    Args:
        config: the config.
        spec: the family, which has a state.
        fixed: number of layers that are never removed.
    """
    state, hidden = spec.state, int(config.hidden_size)
    assert state is not None
    norm, mixer = hidden * (1 + spec.norm_bias), COUNTS[state.mixer](config)
    surplus = fixed * (COUNTS[state.attention](config) - mixer) if state.kind else 0
    return UnitCosts(
        per_token=hidden * (1 if config.tie_word_embeddings else 2),
        per_neuron=hidden * (len(spec.ffn_rows) + 1) if spec.ffn_columns else 0,
        per_kv_group=0,
        per_layer_fixed=spec.norms * norm + mixer,
        fixed=norm * (1 + state.first) + surplus,
    )
