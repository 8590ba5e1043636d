"""Shapes and sizes of models by the table of families: what can be cut from a parent, and what transformers loads.

Everything here reads Hugging Face configs and needs no torch, so a plan is checked before any compute is spent on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigpt.errors import ConfigError, PlanError, UnsupportedModel
from minigpt.transformer.costs import UnitCosts, state_costs
from minigpt.transformer.families import ARCHITECTURES, UNDESCRIBED, ArchSpec
from minigpt.transformer.mixers import adjusted_width
from minigpt.types import Ints, Shape

if TYPE_CHECKING:
    from torch import nn

# What to do where a method cannot rank a family with a state.
OTHER_METHOD = "choose another method (shortgpt removes layers, contextual neurons and tokens, too), or another parent"


def _config(model_or_config: Any) -> Any:
    """Return the config of a model, or the config itself."""
    return getattr(model_or_config, "config", model_or_config)


def arch_of(model_or_config: Any) -> ArchSpec:
    """Return the description of a model's family.

    Raises:
        UnsupportedModel: the family is not in the table (experts, encoder-decoders ...), or the config asks for a
            variant of it that the table does not describe.
    """
    config = _config(model_or_config)
    model_type = str(getattr(config, "model_type", "unknown"))
    spec = ARCHITECTURES.get(model_type)
    if spec is None:
        known = ", ".join(sorted(ARCHITECTURES))
        reason = UNDESCRIBED.get(model_type, "their layers are not described in minigpt.transformer.families")
        raise UnsupportedModel(
            f"Models of type {model_type!r} cannot be pruned: {reason}. Choose a parent of one of these types: {known}."
        )
    for name, wanted in spec.requires.items():
        value = getattr(config, wanted) if isinstance(wanted, str) else wanted
        if getattr(config, name, value) != value:
            advice = f"choose a parent of this type with {name}={value}"
            if name in spec.indifferent:
                advice = f"set {name} to {value} in its config.json, by which it computes the same"
            raise UnsupportedModel(
                f"Models of type {model_type!r} with {name}={getattr(config, name)} cannot be pruned; {advice}."
            )
    return spec


def decoder_layers(model: Any) -> nn.ModuleList:
    """Return the decoder layers of a causal language model, in order."""
    layers: nn.ModuleList = model.get_submodule(arch_of(model).layers)
    return layers


def base_model(model: Any) -> Any:
    """Return the decoder below the language-model head: embeddings, layers and final norm."""
    return model.get_submodule(arch_of(model).layers.rpartition(".")[0])


def has_attention(config: Any) -> bool:
    """Return whether layers of a model, or some of them, have attention."""
    row = ARCHITECTURES.get(str(getattr(config, "model_type", "unknown")))
    return row is None or row.state is None or bool(row.state.kind)


def head_dim(config: Any) -> int:
    """Return the size of one attention head, also where the config does not name it; 0 where layers have none."""
    if not has_attention(config):
        return 0
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def kv_groups_of(config: Any) -> int:
    """Return the number of KV groups; where all heads have their own keys and values, each head is one.

    Families with a state count as one group, since nothing of their heads is removed.
    """
    spec = arch_of(config)
    return 1 if spec.state is not None else int(getattr(config, spec.groups, None) or config.num_attention_heads)


def ffn_width(config: Any) -> int:
    """Return the number of neurons of a layer, 1 where none is removed.

    GPT-2's configs may leave it out and mean four times the hidden size; LFM2's may mean another number.
    """
    spec = arch_of(config)
    if not spec.ffn_columns:
        return 1
    if spec.width_adjusted and getattr(config, spec.width_adjusted):
        return adjusted_width(config)
    return int(getattr(config, spec.width, None) or 4 * config.hidden_size)


def fixed_layers(model_or_config: Any) -> Ints:
    """List the layers that are never removed: in families with a state, those with attention, or with own norms."""
    config = _config(model_or_config)
    state = arch_of(config).state if has_state(config) else None
    if state is None:
        return ()
    first = (0,) if state.first else ()
    return first if not state.kind else tuple(i for i, kind in enumerate(config.layer_types) if kind != state.kind)


def experts_of(config: Any) -> int:
    """Return the number of experts of a layer; 0 if layers have one FFN each."""
    experts = arch_of(config).experts
    return 0 if experts is None else int(getattr(config, experts.count))


def legal_experts(model_or_config: Any) -> Ints:
    """Return the numbers of experts, ascending, that leave enough for every token; (0,) if the family has none."""
    config = _config(model_or_config)
    experts = arch_of(config).experts
    if experts is None:
        return (0,)
    return tuple(range(int(getattr(config, experts.per_token)), experts_of(config) + 1))


def refuse_experts(model_or_config: Any, work: str) -> None:
    """Refuse work on the FFNs and heads of a model whose layers have experts, or a state, instead.

    Args:
        model_or_config: a model or its config.
        work: what cannot be done, as the subject of a sentence: "Method flap".

    Raises:
        UnsupportedModel: the family has experts or a state.
    """
    spec = arch_of(model_or_config)
    refuse_state(model_or_config, work)
    if spec.experts is not None:
        raise UnsupportedModel(
            f"{work} needs one FFN in each layer, and layers of {spec.name} have experts; choose another method "
            "(contextual, reap and expert-frequency remove experts), or a parent without experts."
        )


def has_state(model_or_config: Any) -> bool:
    """Return whether layers of a model carry a state from token to token, so that documents cannot share a window."""
    row = ARCHITECTURES.get(str(getattr(_config(model_or_config), "model_type", "unknown")))
    return row is not None and row.state is not None


def decodes_batches(config: Any) -> bool:
    """Return whether a model continues several texts together, padded on the left, as each of them alone."""
    row = ARCHITECTURES.get(str(getattr(config, "model_type", "unknown")))
    return row is None or row.state is None or row.state.batches


def bare_matrices(config: Any, *, training: bool = False) -> tuple[str, ...]:
    """Return the names of linear layers whose matrix a model takes by itself: nothing else can stand in their place.

    Args:
        config: the config.
        training: whether kernels for training count, which take more of them.
    """
    row = ARCHITECTURES.get(str(getattr(config, "model_type", "unknown")))
    if row is None or row.state is None:
        return ()
    return (*row.state.bare, *(row.state.in_kernels if training else ()))


def cache_name(config: Any) -> str:
    """Return the keyword under which a model takes what it remembers of the tokens before."""
    row = ARCHITECTURES.get(str(getattr(config, "model_type", "unknown")))
    return "past_key_values" if row is None or row.state is None else row.state.cache


def refuse_state(model_or_config: Any, work: str, *, advice: str = OTHER_METHOD) -> None:
    """Refuse work that needs attention in every layer.

    Args:
        model_or_config: a model or its config.
        work: what cannot be done, as the subject of a sentence.
        advice: what to do instead, as the end of the sentence.

    Raises:
        UnsupportedModel: layers of the family carry a state instead.
    """
    if has_state(model_or_config):
        raise UnsupportedModel(
            f"{work} needs attention in each layer, and layers of {arch_of(model_or_config).name} carry a state "
            f"instead; {advice}."
        )


def has_fixed_work(config: Any) -> bool:
    """Say whether every token is the same work for a model, with plain attention, as replayed steps need."""
    spec = ARCHITECTURES.get(str(getattr(config, "model_type", "unknown")))
    return spec is None or (spec.experts is None and spec.state is None and not spec.per_head)


def residual_scale(config: Any) -> float:
    """Return the factor on everything that a layer adds to the residual stream."""
    name = arch_of(config).residual_scale
    return float(getattr(config, name)) if name else 1.0


def heads_per_group(config: Any) -> int:
    """Return the number of query heads that share one key-value head; pruning keeps it."""
    if has_state(config):
        return 1
    return int(config.num_attention_heads // kv_groups_of(config))


def shape_of(model_or_config: Any) -> Shape:
    """Return the widths of a model that minigpt may change."""
    config = _config(model_or_config)
    return Shape(
        layers=int(config.num_hidden_layers),
        intermediate_size=ffn_width(config),
        kv_groups=kv_groups_of(config),
        vocab_size=int(config.vocab_size),
        experts=experts_of(config),
    )


def legal_kv_groups(model_or_config: Any) -> Ints:
    """Return the numbers of KV groups, ascending, that stock transformers loads for this family and hidden size."""
    config = _config(model_or_config)
    spec, groups, ratio = arch_of(config), kv_groups_of(config), heads_per_group(config)
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
        "experts": (shape.experts, parent.experts),
    }
    fewest = dict.fromkeys(limits, 1) | {"experts": legal_experts(config)[0]}
    fewest["layers"] = max(1, len(fixed_layers(config)))
    for name, (wanted, most) in limits.items():
        if not fewest[name] <= wanted <= most:
            raise PlanError(
                f"{name}={wanted} cannot be cut from a parent with {name}={most}; choose {fewest[name]} to {most}."
            )
    legal = legal_kv_groups(config)
    if shape.kv_groups not in legal:
        heads = shape.kv_groups * heads_per_group(config)
        raise PlanError(
            f"{shape.kv_groups} KV groups mean {heads} query heads, which a {config.model_type} with hidden size "
            f"{config.hidden_size} does not load; choose one of {', '.join(map(str, legal))}."
        )


def window_of(config: Any) -> int | None:
    """Return the most tokens that a model reads; None where layers only hold a state, or the config does not say."""
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit and has_attention(config) else None


def learned_positions(config: Any) -> int | None:
    """Return the length of a family's table of learned positions, beyond which it computes nothing; None without."""
    spec = ARCHITECTURES.get(str(getattr(config, "model_type", "unknown")))
    return None if spec is None or spec.positions is None else window_of(config)


def check_window(model_or_config: Any, tokens: int) -> None:
    """Refuse windows of text that are longer than a family's table of learned positions.

    Raises:
        ConfigError: says the longest window and the setting.
    """
    config = _config(model_or_config)
    most = learned_positions(config)
    if most is not None and tokens > most:
        raise ConfigError(
            f"This {config.model_type} model has positions for {most} tokens, and windows of {tokens} are longer; set "
            f"heal.window={most} (and tune.window and evaluation.window, where they are longer)."
        )


def _flag(config: Any, value: bool | str) -> bool:
    """Return a flag of the table: the value itself, or that of the config field that it names."""
    return value if isinstance(value, bool) else bool(getattr(config, value, False))


def unit_costs(model_or_config: Any) -> UnitCosts:
    """Return the exact parameter counts of a token, a neuron, a KV group and the rest of a layer, from the config."""
    config = _config(model_or_config)
    if arch_of(config).state is not None:
        return state_costs(config, arch_of(config), len(fixed_layers(config)))
    spec, hidden, head, ratio = arch_of(config), int(config.hidden_size), head_dim(config), heads_per_group(config)
    ffn_bias, rows = _flag(config, spec.ffn_bias), len(spec.ffn_rows)
    heads, norm = ratio + len(spec.key_value), hidden * (1 + spec.norm_bias)
    positions = 0 if spec.positions is None else int(config.max_position_embeddings) + spec.positions
    per_neuron, per_layer = hidden * (rows + 1) + rows * ffn_bias, hidden * ffn_bias
    per_expert = per_expert_neuron = 0
    if spec.experts is not None:
        bias = spec.experts.bias
        shared = int(getattr(config, spec.experts.shared)) if spec.experts.shared else 0
        per_expert, per_expert_neuron = hidden + bias * (hidden + 1), 3 * hidden + 2 * bias
        per_neuron, per_layer = 0, hidden * (3 * shared + 1) if shared else 0
    return UnitCosts(
        per_token=hidden * (1 if config.tie_word_embeddings else 2) + spec.head_bias,
        per_neuron=per_neuron,
        per_kv_group=head
        * (hidden * (heads + ratio) + heads * _flag(config, spec.query_bias) + (ratio + 1) * spec.wide_norms)
        + ratio * len(spec.per_head),
        per_layer_fixed=(spec.norms + spec.norms_after) * norm
        + spec.query_key_norms * head
        + hidden * _flag(config, spec.output_bias)
        + per_layer,
        fixed=norm + positions * hidden,
        per_expert=per_expert,
        per_expert_neuron=per_expert_neuron,
    )


def parameters_of(model_or_config: Any, shape: Shape | None = None) -> int:
    """Return the parameter count of a model of this family; tied weights count once.

    Args:
        model_or_config: a model or its config.
        shape: the widths of the model (None: those of the config).
    """
    return unit_costs(model_or_config).total(shape or shape_of(model_or_config))
