"""Table of the decoder families: module paths, coupled weights, and the shapes that transformers can load.

A family is one row of `ARCHITECTURES`. Everything here reads Hugging Face configs and needs no torch, so a plan is
checked before any compute is spent on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.types import Ints, Shape

if TYPE_CHECKING:
    from torch import nn

# Numbers of heads that stock transformers loads for a family; see `ArchSpec.head_rule`.
HeadRule = Literal["none", "divides", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchSpec:
    """Description of a decoder family: module paths in a layer, their coupling, and what the family's config allows.

    Norms on queries and keys work on one head, so pruning leaves them as they are. A bias is True, False or the name of
    the config field that switches it.

    Attributes:
        name: the `model_type` of the family's configs.
        layers: path of the list of decoder layers in the model. All other paths are inside of a layer.
        ffn_rows: projections into the FFN; row i belongs to neuron i.
        ffn_columns: projection out of the FFN; column i belongs to neuron i.
        ffn_activation: activation function of the FFN.
        query: query projection; its rows belong to the query heads of KV groups.
        key_value: key and value projections; their rows belong to KV groups.
        output: output projection of attention; its columns belong to the query heads of KV groups.
        head_rule: numbers of heads that stock transformers loads: "none" (the head size is the hidden size over the
            heads and cannot be set), "divides" (the number of query heads must divide the hidden size) or "any".
        norms: norms of hidden size in a layer.
        query_key_norms: norms of head size in a layer.
        query_bias: bias of the query, key and value projections.
        output_bias: bias of the output projection.
        ffn_bias: bias of the FFN's projections.
        per_layer: config fields that are lists with one entry a layer.
    """

    name: str
    layers: str = "model.layers"
    ffn_rows: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    ffn_columns: str = "mlp.down_proj"
    ffn_activation: str = "mlp.act_fn"
    query: str = "self_attn.q_proj"
    key_value: tuple[str, ...] = ("self_attn.k_proj", "self_attn.v_proj")
    output: str = "self_attn.o_proj"
    head_rule: HeadRule = "any"
    norms: int = 2
    query_key_norms: int = 0
    query_bias: bool | str = "attention_bias"
    output_bias: bool | str = "attention_bias"
    ffn_bias: bool | str = False
    per_layer: tuple[str, ...] = ()


_LLAMA = ArchSpec(name="llama", head_rule="divides", ffn_bias="mlp_bias")
_PLAIN = ArchSpec(name="plain")
_GEMMA2 = ArchSpec(name="gemma2", head_rule="divides", norms=4, per_layer=("layer_types",))
_SMOLLM3 = replace(_LLAMA, name="smollm3", head_rule="any", per_layer=("layer_types", "no_rope_layers"))

# Description of each supported family, by `model_type`.
ARCHITECTURES: Mapping[str, ArchSpec] = {
    spec.name: spec
    for spec in (
        _LLAMA,
        replace(_PLAIN, name="mistral", query_bias=False, output_bias=False),
        replace(_PLAIN, name="qwen2", query_bias=True, output_bias=False, per_layer=("layer_types",)),
        replace(_PLAIN, name="qwen3", query_key_norms=2, per_layer=("layer_types",)),
        replace(_PLAIN, name="gemma"),
        _GEMMA2,
        replace(_GEMMA2, name="gemma3_text", query_key_norms=2),
        _SMOLLM3,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCosts:
    """Exact parameter counts of one unit of each kind; tied embeddings count once.

    Total = `fixed` + tokens x `per_token` + layers x (`per_layer_fixed` + neurons x `per_neuron` + groups x
    `per_kv_group`), where neurons and groups are those of one layer.

    Attributes:
        per_token: parameters of one token of the vocabulary.
        per_neuron: parameters of one FFN neuron of one layer.
        per_kv_group: parameters of one KV group of one layer, with its query heads.
        per_layer_fixed: parameters of a layer that no width changes: norms and biases.
        fixed: parameters outside of layers and vocabulary: the final norm.
    """

    per_token: int
    per_neuron: int
    per_kv_group: int
    per_layer_fixed: int
    fixed: int

    def total(self, shape: Shape) -> int:
        """Return the parameter count of a model of this shape."""
        layer = self.per_layer_fixed + shape.intermediate_size * self.per_neuron + shape.kv_groups * self.per_kv_group
        return self.fixed + shape.vocab_size * self.per_token + shape.layers * layer

    def breakdown(self, shape: Shape) -> dict[str, int]:
        """Return the total split into embedding, attention, ffn and other (norms and some biases)."""
        parts = {
            "embedding": shape.vocab_size * self.per_token,
            "attention": shape.layers * shape.kv_groups * self.per_kv_group,
            "ffn": shape.layers * shape.intermediate_size * self.per_neuron,
        }
        return {**parts, "other": self.total(shape) - sum(parts.values())}


def _config(model_or_config: Any) -> Any:
    """Return the config of a model, or the config itself."""
    return getattr(model_or_config, "config", model_or_config)


def arch_of(model_or_config: Any) -> ArchSpec:
    """Return the description of a model's family.

    Raises:
        UnsupportedModel: the family is not in the table (fused projections, experts, encoder-decoders ...).
    """
    model_type = str(getattr(_config(model_or_config), "model_type", "unknown"))
    if spec := ARCHITECTURES.get(model_type):
        return spec
    known = ", ".join(sorted(ARCHITECTURES))
    raise UnsupportedModel(
        f"Models of type {model_type!r} cannot be pruned: their layers are not described in minigpt.transformer.arch. "
        f"Choose a parent of one of these types: {known}."
    )


def decoder_layers(model: Any) -> nn.ModuleList:
    """Return the decoder layers of a causal language model, in order."""
    layers: nn.ModuleList = model.get_submodule(arch_of(model).layers)
    return layers


def base_model(model: Any) -> Any:
    """Return the decoder below the language-model head: embeddings, layers and final norm."""
    return model.get_submodule(arch_of(model).layers.rpartition(".")[0])


def head_dim(config: Any) -> int:
    """Return the size of one attention head, also where the config does not name it."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def heads_per_group(config: Any) -> int:
    """Return the number of query heads that share one key-value head; pruning keeps it."""
    return int(config.num_attention_heads // config.num_key_value_heads)


def shape_of(model_or_config: Any) -> Shape:
    """Return the four widths of a model that minigpt may change."""
    config = _config(model_or_config)
    arch_of(config)
    return Shape(
        layers=int(config.num_hidden_layers),
        intermediate_size=int(config.intermediate_size),
        kv_groups=int(config.num_key_value_heads),
        vocab_size=int(config.vocab_size),
    )


def legal_kv_groups(model_or_config: Any) -> Ints:
    """Return the numbers of KV groups, ascending, that stock transformers loads for this family and hidden size."""
    config = _config(model_or_config)
    spec, groups, ratio = arch_of(config), int(config.num_key_value_heads), heads_per_group(config)
    if spec.head_rule == "none":
        return (groups,)
    if spec.head_rule == "any":
        return tuple(range(1, groups + 1))
    return tuple(count for count in range(1, groups + 1) if config.hidden_size % (count * ratio) == 0)


def check_shape(model_or_config: Any, shape: Shape) -> None:
    """Refuse a shape that cannot be cut from this parent or that stock classes would not load.

    Raises:
        PlanError: says which width is wrong and which values are possible.
    """
    config = _config(model_or_config)
    parent = shape_of(config)
    limits = {
        "layers": (shape.layers, parent.layers),
        "intermediate_size": (shape.intermediate_size, parent.intermediate_size),
        "kv_groups": (shape.kv_groups, parent.kv_groups),
    }
    for name, (wanted, most) in limits.items():
        if not 1 <= wanted <= most:
            raise PlanError(f"{name}={wanted} cannot be cut from a parent with {name}={most}; choose 1 to {most}.")
    legal = legal_kv_groups(config)
    if shape.kv_groups not in legal:
        heads = shape.kv_groups * heads_per_group(config)
        raise PlanError(
            f"{shape.kv_groups} KV groups mean {heads} query heads, which a {config.model_type} with hidden size "
            f"{config.hidden_size} does not load; choose one of {', '.join(map(str, legal))}."
        )


def _flag(config: Any, value: bool | str) -> bool:
    """Return a flag of the table: the value itself, or that of the config field that it names."""
    return value if isinstance(value, bool) else bool(getattr(config, value, False))


def unit_costs(model_or_config: Any) -> UnitCosts:
    """Return the exact parameter counts of a token, a neuron, a KV group and the rest of a layer, from the config."""
    config = _config(model_or_config)
    spec, hidden, head, ratio = arch_of(config), int(config.hidden_size), head_dim(config), heads_per_group(config)
    ffn_bias, rows = _flag(config, spec.ffn_bias), len(spec.ffn_rows)
    heads = ratio + len(spec.key_value)
    return UnitCosts(
        per_token=hidden * (1 if config.tie_word_embeddings else 2),
        per_neuron=hidden * (rows + 1) + rows * ffn_bias,
        per_kv_group=head * (hidden * (heads + ratio) + heads * _flag(config, spec.query_bias)),
        per_layer_fixed=spec.norms * hidden
        + spec.query_key_norms * head
        + hidden * (_flag(config, spec.output_bias) + ffn_bias),
        fixed=hidden,
    )


def parameters_of(model_or_config: Any, shape: Shape | None = None) -> int:
    """Return the parameter count of a model of this family; tied weights count once.

    Args:
        model_or_config: a model or its config.
        shape: the widths of the model (None: those of the config).
    """
    return unit_costs(model_or_config).total(shape or shape_of(model_or_config))
