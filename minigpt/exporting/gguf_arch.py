"""Numbers of a decoder's config as llama.cpp reads them, and refusals of what it does not compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from minigpt.exporting.common import Inexpressible
from minigpt.exporting.gguf_families import FAMILIES, GgufFamily
from minigpt.transformer.arch import experts_of, ffn_width, head_dim, kv_groups_of

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from numpy import float32
    from numpy.typing import NDArray

# Context of models without a longest one, as llama.cpp's converter writes it for Mamba.
ENDLESS = 2**20


def family_of(config: Any) -> GgufFamily:
    """Look up the family of a config, and check that llama.cpp computes what the config asks for.

    Raises:
        ExportError: the family is unknown, or the config has a setting that llama.cpp cannot express.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise Inexpressible(f"Models of type {config.model_type!r} have no GGUF writer; known: {', '.join(FAMILIES)}.")
    kinds = set(getattr(config, "layer_types", None) or ())
    rotary = list(getattr(config, "no_rope_layers", None) or ())
    scale = getattr(config, "query_pre_attn_scalar", None)
    problems = {
        f"the activation {activation_of(config)!r}": bool(family.activations)
        and activation_of(config) not in family.activations,
        f"a query scale of {scale}": scale is not None and scale != head_dim(config),
        "sliding attention": family.window == "none" and "sliding_attention" in kinds,
        f"{config.num_hidden_layers} layers without windows": config.num_hidden_layers == family.windowed_at,
        "bidirectional attention": bool(getattr(config, "use_bidirectional_attention", False)),
        "layers without rotary embedding in other places": bool(rotary)
        and rotary != _rotary_layers(family, len(rotary)),
        "heads that are not as wide as the hidden size (heads were cut)": family.is_square
        and head_dim(config) * config.num_attention_heads != config.hidden_size,
    }
    for name, wanted in family.requires.items():
        value = _number(config, wanted) if isinstance(wanted, str) or callable(wanted) else wanted
        own = getattr(config, name, None)
        problems[f"{name}={own}"] = (tuple(own) if isinstance(own, list) else own) != value
    if refused := [text for text, wrong in problems.items() if wrong]:
        raise Inexpressible(f"llama.cpp does not compute {refused[0]} for {family.arch}.")
    return family


def activation_of(config: Any) -> Any:
    """Return the name of the activation of a config's FFN."""
    names = ("hidden_activation", "hidden_act", "activation_function")
    return next((value for name in names if (value := getattr(config, name, None))), None)


def _rotary_layers(family: GgufFamily, layers: int) -> list[int]:
    """Mark the layers that have a rotary embedding with 1, as `no_rope_layers` of a config does."""
    return [int(not family.rope_step or (layer + 1) % family.rope_step != 0) for layer in range(layers)]


def add_architecture(writer: GGUFWriter, config: Any) -> None:
    """Write every number that llama.cpp needs to compute the decoder.

    Args:
        writer: the open GGUF file.
        config: config of a `transformers` model.

    Raises:
        ExportError: the config has rotary scaling that the file cannot express.
    """
    family, size = family_of(config), head_dim(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(_context_length(config, family))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    add_epsilon = writer.add_layer_norm_eps if family.layer_norms else writer.add_layer_norm_rms_eps
    add_epsilon(getattr(config, family.epsilon))
    if size:
        writer.add_key_length(size)
        writer.add_value_length(size)
    if experts := experts_of(config):
        writer.add_expert_count(experts)
    _add_numbers(writer, config, family)
    for name, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if value := getattr(config, name, None):
            add(float(value))
    if family.window == "pattern":
        _add_window(writer, config, family)
    if rope_settings(config):
        _add_rope(writer, config)


def _add_numbers(writer: GGUFWriter, config: Any, family: GgufFamily) -> None:
    """Write the numbers that families name themselves, and those of attention and FFN where a family does not."""
    usual: Mapping[str, Callable[[Any], Any]] = {
        "add_feed_forward_length": ffn_width,
        "add_head_count": lambda config: config.num_attention_heads,
        "add_head_count_kv": kv_groups_of,
    }
    for method, value in {**usual, **family.numbers}.items():
        getattr(writer, method)(_number(config, value))
    for key, flags in family.flags.items():
        if (values := flags(config)) is not None:
            writer.add_array(f"{family.arch}.{key}", values)


def _number(config: Any, source: str | Callable[[Any], Any]) -> Any:
    """Return the value of a config's field, or of a function of the config."""
    return source(config) if callable(source) else getattr(config, source)


def _context_length(config: Any, family: GgufFamily) -> int:
    """Return the longest context that llama.cpp computes exactly; a state has no end, but the file wants a number."""
    longest = getattr(config, "max_position_embeddings", None) or ENDLESS
    window = getattr(config, "sliding_window", None) if family.window == "cap" else None
    return int(min(longest, window or longest))


def _add_window(writer: GGUFWriter, config: Any, family: GgufFamily) -> None:
    """Write the sliding window, and also which layers have one where pruned layers broke the period."""
    writer.add_sliding_window(config.sliding_window)
    sliding = [kind == "sliding_attention" for kind in config.layer_types]
    if sliding != [(layer + 1) % family.period != 0 for layer in range(len(sliding))]:
        writer.add_sliding_window_pattern(sliding)


def rope_settings(config: Any, kind: str = "full_attention") -> Mapping[str, Any]:
    """Return the rotary settings (`rope_type`, `rope_theta`, scaling ...) of one kind of layer."""
    parameters: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    settings: Mapping[str, Any] = parameters.get(kind, parameters)
    return settings


def _add_rope(writer: GGUFWriter, config: Any) -> None:
    """Write base and scaling of the rotary embedding."""
    from gguf import RopeScalingType

    rope = rope_settings(config)
    sliding = rope_settings(config, "sliding_attention")
    partial = rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    writer.add_rope_dimension_count(int(head_dim(config) * partial))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if sliding["rope_theta"] != rope["rope_theta"]:
        writer.add_rope_freq_base_swa(float(sliding["rope_theta"]))
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise Inexpressible(f"Rotary scaling {kind!r} cannot be written to GGUF yet.")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(kind))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn":
        _add_yarn(writer, rope, config.max_position_embeddings)


def _add_yarn(writer: GGUFWriter, rope: Mapping[str, Any], longest: int) -> None:
    """Write what YaRN needs beyond its factor; llama.cpp has one temperature, 0.1 ln(factor) + 1, and whole dimensions.

    Raises:
        ExportError: the config has another temperature, or boundaries between dimensions that are not rounded.
    """
    usual = 0.1 * math.log(float(rope["factor"])) + 1
    temperature = rope.get("attention_factor") or usual
    if abs(temperature - usual) > 1e-6 or rope.get("mscale") or rope.get("mscale_all_dim"):
        raise Inexpressible("llama.cpp does not compute YaRN with a temperature of its own.")
    if rope.get("truncate", True) is False:
        raise Inexpressible("llama.cpp does not compute YaRN with boundaries that are not rounded (truncate=False).")
    writer.add_rope_scaling_orig_ctx_len(int(rope.get("original_max_position_embeddings") or longest))
    writer.add_rope_scaling_yarn_beta_fast(float(rope.get("beta_fast") or 32.0))
    writer.add_rope_scaling_yarn_beta_slow(float(rope.get("beta_slow") or 1.0))


def rope_factors(config: Any) -> NDArray[float32] | None:
    """Compute the number by which llama.cpp divides each rotary frequency.

    Low frequencies are slowed by `factor`, high ones are left, and between the two wavelengths the slowing is
    interpolated (Llama 3.1's scheme, `_compute_llama3_parameters` of transformers).

    Returns:
        [head size / 2], or None where the config does not use Llama 3's scaling.
    """
    import numpy as np

    rope = rope_settings(config)
    if rope.get("rope_type") != "llama3":
        return None
    size = head_dim(config)
    wavelength = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, size, 2) / size)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = rope["original_max_position_embeddings"] / wavelength
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: NDArray[float32] = (1 / ((1 - smooth) / float(rope["factor"]) + smooth)).astype(np.float32)
    return factors
