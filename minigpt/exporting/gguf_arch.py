"""Table of the decoder families that llama.cpp computes: names, rotary layout, norms and windows.

llama.cpp has each family's arithmetic written out and reads only numbers from the file. What a config asks for
beyond that is refused here instead of being computed wrongly there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from minigpt.exporting.common import Inexpressible
from minigpt.transformer.arch import head_dim

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from numpy import float32
    from numpy.typing import NDArray

# How llama.cpp treats sliding windows in a family, see `GgufFamily.window`.
Window = Literal["none", "cap", "pattern"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFamily:
    """One family of transformers as llama.cpp computes it.

    Attributes:
        arch: name of the family in the file.
        permuted: whether rotary pairs are neighbors in llama.cpp. In transformers they are half a head apart, so the
            rows of q and k change places.
        norm_offset: number added to norm weights (Gemma's norms scale by 1 + w).
        activation: the only activation that llama.cpp computes for the family.
        window: "none" refuses sliding attention. "cap" has no window and is exact up to its length, so the context
            ends there. "pattern" alternates sliding and full layers.
        period: length of the pattern in layers; the last layer of each period is full.
        rope_step: every layer whose number is a multiple of this has no rotary embedding; 0 means all layers have one.
    """

    arch: str
    permuted: bool = False
    norm_offset: float = 0.0
    activation: str = "silu"
    window: Window = "none"
    period: int = 0
    rope_step: int = 0


# Families by `model_type` of their config.
FAMILIES: Mapping[str, GgufFamily] = {
    "llama": GgufFamily(arch="llama", permuted=True),
    "mistral": GgufFamily(arch="llama", permuted=True, window="cap"),
    "qwen2": GgufFamily(arch="qwen2"),
    "qwen3": GgufFamily(arch="qwen3"),
    "smollm3": GgufFamily(arch="smollm3", permuted=True, rope_step=4),
    "gemma": GgufFamily(arch="gemma", norm_offset=1.0, activation="gelu_pytorch_tanh"),
    "gemma2": GgufFamily(arch="gemma2", norm_offset=1.0, activation="gelu_pytorch_tanh", window="pattern", period=2),
    "gemma3_text": GgufFamily(
        arch="gemma3", norm_offset=1.0, activation="gelu_pytorch_tanh", window="pattern", period=6
    ),
}


def family_of(config: Any) -> GgufFamily:
    """Look up the family of a config, and check that llama.cpp computes what the config asks for.

    Raises:
        ExportError: the family is unknown, or the config has a setting that llama.cpp cannot express.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise Inexpressible(f"Models of type {config.model_type!r} have no GGUF writer; known: {', '.join(FAMILIES)}.")
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    scale = getattr(config, "query_pre_attn_scalar", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    rotary = list(getattr(config, "no_rope_layers", None) or ())
    problems = {
        f"the activation {activation!r}": activation != family.activation,
        f"a query scale of {scale}": scale is not None and scale != head_dim(config),
        "sliding attention": family.window == "none" and kinds > {"full_attention"},
        "bidirectional attention": bool(getattr(config, "use_bidirectional_attention", False)),
        "layers without rotary embedding in other places": bool(rotary)
        and rotary != _rotary_layers(family, len(rotary)),
    }
    if refused := [text for text, wrong in problems.items() if wrong]:
        raise Inexpressible(f"llama.cpp does not compute {refused[0]} for {family.arch}.")
    return family


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
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    for name, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if value := getattr(config, name, None):
            add(float(value))
    if family.window == "pattern":
        _add_window(writer, config, family)
    _add_rope(writer, config)


def _context_length(config: Any, family: GgufFamily) -> int:
    """Return the longest context that llama.cpp computes exactly."""
    window = getattr(config, "sliding_window", None) if family.window == "cap" else None
    return int(min(config.max_position_embeddings, window or config.max_position_embeddings))


def _add_window(writer: GGUFWriter, config: Any, family: GgufFamily) -> None:
    """Write the sliding window, and also which layers have one where pruned layers broke the period."""
    writer.add_sliding_window(config.sliding_window)
    sliding = [kind == "sliding_attention" for kind in config.layer_types]
    if sliding != [(layer + 1) % family.period != 0 for layer in range(len(sliding))]:
        writer.add_sliding_window_pattern(sliding)


def rope_settings(config: Any, kind: str = "full_attention") -> Mapping[str, Any]:
    """Return the rotary settings (`rope_type`, `rope_theta`, scaling ...) of one kind of layer."""
    parameters: Mapping[str, Any] = config.rope_parameters
    settings: Mapping[str, Any] = parameters.get(kind, parameters)
    return settings


def _add_rope(writer: GGUFWriter, config: Any) -> None:
    """Write base and scaling of the rotary embedding."""
    from gguf import RopeScalingType

    rope = rope_settings(config)
    sliding = rope_settings(config, "sliding_attention")
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if sliding["rope_theta"] != rope["rope_theta"]:
        writer.add_rope_freq_base_swa(float(sliding["rope_theta"]))
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        raise Inexpressible(f"Rotary scaling {kind!r} cannot be written to GGUF yet.")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


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
