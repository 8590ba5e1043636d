"""Decoder families as llama.cpp knows them: names, rotary layout, norms and windows, as one table.

llama.cpp has each family's arithmetic written out and reads only numbers from the file. What a config asks for
beyond that is refused here instead of being computed wrongly there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from minigpt.errors import ExportError
from minigpt.transformer.arch import head_dim

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from numpy import float32
    from numpy.typing import NDArray

Window = Literal["none", "cap", "pattern"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFamily:
    """How llama.cpp computes one transformers family.

    `arch` is its name in the file. `permuted`: rotary pairs are neighbors there and half a head apart in
    transformers, so the rows of q and k change places. `norm_offset` is added to norm weights (Gemma's norms scale by
    1 + w). `activation` is the only one it computes. `window`: "none" refuses sliding attention, "cap" has none and is
    exact up to the window, so the context ends there, "pattern" alternates with a period of `period` layers, the last
    of each full. `rope_step`: every such layer has no rotary embedding.
    """

    arch: str
    permuted: bool = False
    norm_offset: float = 0.0
    activation: str = "silu"
    window: Window = "none"
    period: int = 0
    rope_step: int = 0


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
    """The family's row, after checking that llama.cpp computes what this config asks for.

    Raises:
        ExportError: an unknown family, or a setting that llama.cpp has no number for.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ExportError(
            f"Models of type {config.model_type!r} have no GGUF writer; known: {', '.join(FAMILIES)}. "
            "Use --format onnx instead."
        )
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    scale = getattr(config, "query_pre_attn_scalar", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    rotary = list(getattr(config, "no_rope_layers", None) or ())
    problems = {
        f"the activation {activation!r}": activation != family.activation,
        f"a query scale of {scale}": scale is not None and scale != head_dim(config),
        "sliding attention": family.window == "none" and kinds > {"full_attention"},
        "bidirectional attention": bool(getattr(config, "use_bidirectional_attention", False)),
        "layers without rotary embedding in other places": bool(rotary) and rotary != _rotary(family, len(rotary)),
    }
    if found := [text for text, wrong in problems.items() if wrong]:
        raise ExportError(f"llama.cpp does not compute {found[0]} for {family.arch}. Use --format onnx instead.")
    return family


def _rotary(family: GgufFamily, layers: int) -> list[int]:
    return [int(not family.rope_step or (layer + 1) % family.rope_step != 0) for layer in range(layers)]


def add_architecture(writer: GGUFWriter, config: Any) -> None:
    """Every number that llama.cpp needs to compute the decoder, into `writer`.

    Raises:
        ExportError: rotary scaling that the file cannot express.
    """
    family, size = family_of(config), head_dim(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(_context(config, family))
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


def _context(config: Any, family: GgufFamily) -> int:
    window = getattr(config, "sliding_window", None) if family.window == "cap" else None
    return int(min(config.max_position_embeddings, window or config.max_position_embeddings))


def _add_window(writer: GGUFWriter, config: Any, family: GgufFamily) -> None:
    """The sliding window, and which layers have one where pruned layers broke the period."""
    writer.add_sliding_window(config.sliding_window)
    sliding = [kind == "sliding_attention" for kind in config.layer_types]
    if sliding != [(layer + 1) % family.period != 0 for layer in range(len(sliding))]:
        writer.add_sliding_window_pattern(sliding)


def rope_of(config: Any, kind: str = "full_attention") -> Mapping[str, Any]:
    """The rotary settings of one kind of layer (`rope_type`, `rope_theta`, scaling ...)."""
    settings: Mapping[str, Any] = config.rope_parameters
    chosen: Mapping[str, Any] = settings.get(kind, settings)
    return chosen


def _add_rope(writer: GGUFWriter, config: Any) -> None:
    from gguf import RopeScalingType

    rope = rope_of(config)
    sliding = rope_of(config, "sliding_attention")
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if sliding["rope_theta"] != rope["rope_theta"]:
        writer.add_rope_freq_base_swa(float(sliding["rope_theta"]))
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        raise ExportError(f"Rotary scaling {kind!r} cannot be written to GGUF yet; use --format onnx instead.")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def rope_factors(config: Any) -> NDArray[float32] | None:
    """What llama.cpp divides each rotary frequency by, [head size / 2], for Llama 3's scaling; else None.

    Low frequencies are slowed by `factor`, high ones are left, and between the two wavelengths the slowing is
    interpolated (Llama 3.1's scheme, `_compute_llama3_parameters` of transformers).
    """
    import numpy as np

    rope = rope_of(config)
    if rope.get("rope_type") != "llama3":
        return None
    size = head_dim(config)
    wavelength = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, size, 2) / size)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = rope["original_max_position_embeddings"] / wavelength
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: NDArray[float32] = (1 / ((1 - smooth) / float(rope["factor"]) + smooth)).astype(np.float32)
    return factors
