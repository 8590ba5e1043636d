"""Columns of the table of decoder families: the records that describe a family, its fused matrices and its experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Numbers of heads that stock transformers loads for a family; see `ArchSpec.head_rule`.
HeadRule = Literal["none", "divides", "any"]
# Dimensions of the tensor that holds a matrix of every expert of a layer.
STACKED = 3
# Order of the rows of a fused projection; see `FusedProjection.layout`.
Layout = Literal["even", "heads", "by_head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedProjection:
    """One stored matrix that holds several projections, or one projection the other way round.

    Attributes:
        path: the stored module inside of a layer. Its parts have the paths `path.part`.
        parts: names of the projections in it, in order; none if the matrix is one projection, under its own path.
        layout: "even" (the parts have the same number of rows, one part after the other), "heads" (the rows of all
            query heads, then those of all key heads, then those of all value heads) or "by_head" (head by head, and in
            each head one part after the other).
        transposed: whether the matrix is stored as [inputs, outputs], as GPT-2's `Conv1D` does.
    """

    path: str
    parts: tuple[str, ...] = ()
    layout: Layout = "even"
    transposed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertSpec:
    """Experts in place of a layer's FFN: a router picks a few of them for each token.

    transformers stores all experts of a layer in parameters whose first axis is the expert; they are cut along it.

    Attributes:
        block: module whose output the layer takes from its experts.
        router: module that gives (logits, weights, indices) of the experts of each token; its rows belong to experts.
        experts: module that computes the experts from (states, indices, weights).
        count: config field with the number of experts of a layer.
        per_token: config field with the number of experts that each token goes to, so that fewer cannot be kept.
        counts: attributes of modules, and of the model, that repeat the number of experts.
        bias: whether router and experts have biases.
        shared: config field with the width of an expert that every token goes to, behind a gate; it is always kept.
        gives_routing: whether the block gives its routing beside its output.
        alternating: whether gate and up alternate in their matrix, and matrices are stored as [inputs, outputs];
            otherwise all of gate stands before up, as [outputs, inputs].
    """

    block: str = "mlp"
    router: str = "mlp.gate"
    experts: str = "mlp.experts"
    count: str = "num_local_experts"
    per_token: str = "num_experts_per_tok"
    counts: tuple[str, ...] = ("num_experts",)
    bias: bool = False
    shared: str = ""
    gives_routing: bool = False
    alternating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpec:
    """Layers that carry a state from token to token in place of attention.

    A state sees all text before it, so documents never share a window. Only such layers are removed: those with
    attention beside them have another size.

    Attributes:
        mixer: what such a layer has in place of attention, by its name in `minigpt.transformer.mixers`.
        kind: name of such layers in the config's `layer_types`; empty if all layers are such.
        attention: what the other layers have, by its name in the same table.
        cache: keyword under which a model takes its state, and under which its output gives it.
        first: norms that only the first layer has, so that it stays.
        outputs: values that a layer gives; its states come first.
        batches: whether texts are decoded together: padding is left out, and steps keep rows apart, which those of RWKV
            in transformers do not (one token of each row is mixed with the tokens before of all rows).
        bare: names of linear layers whose matrix the mixer multiplies by itself, so that it is never held in 4 bits.
        in_kernels: names of further ones whose matrix kernels for training take, so that no adapter can stand there.
    """

    mixer: str
    kind: str = ""
    attention: str = ""
    cache: str = "past_key_values"
    first: int = 0
    outputs: int = 1
    batches: bool = True
    bare: tuple[str, ...] = ()
    in_kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchSpec:
    """Description of a decoder family: module paths in a layer, their coupling, and what the family's config allows.

    Norms on queries and keys that work on one head stay as they are. A bias is True, False or the name of the config
    field that switches it.

    Attributes:
        name: the `model_type` of the family's configs.
        layers: path of the list of decoder layers in the model. All other paths are inside of a layer.
        ffn_rows: projections into the FFN, the gate first; row i belongs to neuron i.
        ffn_columns: projection out of the FFN; column i belongs to neuron i. Empty where neurons cannot be removed.
        ffn_activation: activation function of the FFN; empty where it is SiLU and no module.
        ffn: module whose output the layer takes from the FFN; an empty string means the one that holds `ffn_columns`.
        query: query projection; its rows belong to the query heads of KV groups.
        key_value: key and value projections; their rows belong to KV groups.
        output: output projection of attention; its columns belong to the query heads of KV groups.
        per_head: parameters of a layer with one number for each query head.
        experts: the experts of a layer, in families that have them in place of one FFN; the FFN's paths are not there.
        state: layers with a state, in families that have them in place of attention; attention stays as it is.
        fused: stored matrices that hold several of these projections.
        head_rule: numbers of heads that stock transformers loads: "none" (the head size is the hidden size over the
            heads and cannot be set, or a norm runs over all heads), "divides" (the number of query heads must divide
            the hidden size) or "any".
        norms: norms of hidden size in front of a layer's projections.
        norms_after: norms of hidden size behind a layer's attention and FFN.
        norm_bias: whether these norms and the final one have a bias.
        query_key_norms: norms of head size in a layer.
        wide_norms: whether queries and keys have a norm over all heads together.
        query_bias: bias of the query, key and value projections.
        output_bias: bias of the output projection.
        ffn_bias: bias of the FFN's projections.
        head_bias: bias of the language-model head.
        positions: rows of the table of learned positions beyond the longest context; None if there is no such table.
        residual_scale: config field with the factor on everything that a layer adds to the stream.
        rotates: whether a rotation of the residual stream can be moved into the weights (SliceGPT): RMS norms stand in
            front of attention and FFN, which follow one another.
        width: config field with the number of neurons of a layer.
        width_adjusted: config field that says whether the config adjusts that number.
        groups: config field with the number of KV groups.
        per_layer: config fields that are lists with one entry a layer.
        numbered: config fields that are lists of layers by their numbers.
        requires: values that config fields must have for this description to hold; a string names another field.
        indifferent: those of `requires` that change how a model computes and not what, so that a config may be edited.
    """

    name: str
    layers: str = "model.layers"
    ffn_rows: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    ffn_columns: str = "mlp.down_proj"
    ffn_activation: str = "mlp.act_fn"
    ffn: str = ""
    query: str = "self_attn.q_proj"
    key_value: tuple[str, ...] = ("self_attn.k_proj", "self_attn.v_proj")
    output: str = "self_attn.o_proj"
    per_head: tuple[str, ...] = ()
    experts: ExpertSpec | None = None
    state: StateSpec | None = None
    fused: tuple[FusedProjection, ...] = ()
    head_rule: HeadRule = "any"
    norms: int = 2
    norms_after: int = 0
    norm_bias: bool = False
    query_key_norms: int = 0
    wide_norms: bool = False
    query_bias: bool | str = "attention_bias"
    output_bias: bool | str = "attention_bias"
    ffn_bias: bool | str = False
    head_bias: bool = False
    positions: int | None = None
    residual_scale: str = ""
    rotates: bool = False
    width: str = "intermediate_size"
    width_adjusted: str = ""
    groups: str = "num_key_value_heads"
    per_layer: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()
    requires: Mapping[str, object] = field(default_factory=dict)
    indifferent: tuple[str, ...] = ()

    @property
    def axes(self) -> frozenset[str]:
        """Axes along which a model of the family can get smaller, of :data:`minigpt.types.AXES`."""
        experts = "experts" if self.experts is not None else ""
        neurons = "ffn" if self.ffn_columns else ""
        heads = "kv_groups" if self.state is None else ""
        return frozenset({"vocab", "layers", experts, neurons, heads} - {""})

    @property
    def ffn_module(self) -> str:
        """Path of the module whose output the layer takes from the FFN or its experts."""
        return self.experts.block if self.experts is not None else self.ffn or self.ffn_columns.rpartition(".")[0]

    @property
    def ffn_outside(self) -> tuple[str, ...]:
        """Paths of the projections into the FFN that are not inside of `ffn_module`; none if there are experts."""
        if self.experts is not None:
            return ()
        return tuple(path for path in self.ffn_rows if not path.startswith(f"{self.ffn_module}."))

    @property
    def attention_module(self) -> str:
        """Path of the module that holds attention."""
        return self.output.rpartition(".")[0]

    def stored(self, path: str) -> str:
        """Return the path of the stored module that holds a projection."""
        return next((fused.path for fused in self.fused if path.startswith(f"{fused.path}.")), path)

    def is_transposed(self, path: str) -> bool:
        """Return whether a projection is stored as [inputs, outputs]."""
        return any(fused.transposed and fused.path == self.stored(path) for fused in self.fused)

    def stores_transposed(self, parameter: str) -> bool:
        """Return whether a parameter of a decoder layer, by its name in the model, is stored as [inputs, outputs]."""
        path = parameter.removeprefix(f"{self.layers}.").partition(".")[2].rpartition(".")[0]
        return parameter.startswith(f"{self.layers}.") and self.is_transposed(path)
