"""Tensors of a model under the names and in the layout of llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from minigpt.exporting.common import Inexpressible
from minigpt.exporting.gguf_families import GgufFamily
from minigpt.exporting.gguf_states import state_layout, state_rows
from minigpt.transformer.arch import arch_of, has_state, head_dim, kv_groups_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Tensors that have no suffix in a file.
_BARE = ("ssm_a", "ssm_d")
# Matrices that llama.cpp reads in fp32 only, whatever the type of the file: routers, learned positions, and of layers
# with a state the convolutions, decays, skips and norms.
_FP32 = (
    "ffn_gate_inp.weight",
    "ffn_gate_inp_shexp.weight",
    "position_embd.weight",
    "conv1d.weight",
    "shortconv.conv.weight",
    *_BARE,
    "ssm_norm.weight",
)


def tensors_of(model: Any, family: GgufFamily) -> Iterator[tuple[str, str, Tensor]]:
    """Yield each tensor's name in llama.cpp, its name in transformers, and its weights in fp32.

    Norms carry the family's offset. Tied tensors come once, unless llama.cpp wants a head in every file of the family.

    Raises:
        ExportError: llama.cpp has no name for a tensor.
    """
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(key for key, value in MODEL_ARCH_NAMES.items() if value == family.arch)
    names = get_tensor_name_map(MODEL_ARCH(arch), model.config.num_hidden_layers)
    for source, parameter in model.named_parameters():
        tensor = parameter.detach().float().cpu()
        if "norm" in source and not (family.plain_norms and family.plain_norms in source):
            tensor = tensor + family.norm_offset
        for piece, part in _pieces(model, source, tensor, family):
            target = names.get_name(piece, try_suffixes=(".weight", ".bias"))
            if target is None:
                raise Inexpressible(f"GGUF has no name for the tensor {source}.")
            yield _suffixed(target, source), source, part
    if family.own_head and model.config.tie_word_embeddings:
        source = next(name for name, value in model.named_parameters() if value is model.get_input_embeddings().weight)
        yield "output.weight", source, model.get_parameter(source).detach().float().cpu()


def _suffixed(target: str, source: str) -> str:
    """Complete a name: parameters of stacked experts and of sinks have no module of their own."""
    if target.endswith((".weight", ".bias", *_BARE)):
        return target
    return f"{target}.{'bias' if source.endswith('_bias') else 'weight'}"


def _pieces(model: Any, source: str, tensor: Tensor, family: GgufFamily) -> list[tuple[str, Tensor]]:
    """Split a stored tensor into those that llama.cpp has, with the names that `gguf` looks up."""
    name = source
    for old, new in family.renames.items():
        name = name.replace(old, new)
    experts = arch_of(model).experts
    if experts is not None and f".{experts.experts}." in source:
        return _expert_pieces(name.removesuffix("_bias"), tensor, experts.alternating)
    if "shared_expert_gate" in source:
        return [(name, tensor.squeeze(0))]
    if has_state(model):
        return [(name, state_layout(source, tensor, model.config, upright=family.upright))]
    return [(name, tensor.T if tensor.ndim == 2 and arch_of(model).stores_transposed(source) else tensor)]


def _expert_pieces(name: str, tensor: Tensor, alternating: bool) -> list[tuple[str, Tensor]]:
    """Split stacked experts [experts, gate and up rows, columns] into gate and up; `alternating` as in the table."""
    tensor = tensor.transpose(1, 2) if alternating and tensor.ndim == 3 else tensor
    if "gate_up" not in name:
        return [(name, tensor)]
    half = tensor.shape[1] // 2
    gate, up = (tensor[:, ::2], tensor[:, 1::2]) if alternating else (tensor[:, :half], tensor[:, half:])
    return [(name.replace("gate_up", "gate"), gate), (name.replace("gate_up", "up"), up)]


def stays_fp32(target: str, tensor: Tensor) -> bool:
    """Return whether llama.cpp reads a tensor in fp32 only: vectors, all biases, routers and learned positions."""
    return tensor.ndim == 1 or target.endswith((".bias", *_FP32))


def row_order(source: str, config: Any, family: GgufFamily) -> slice | NDArray[Any]:
    """Return the order in which llama.cpp wants the rows of a tensor.

    Where rotary pairs, half a head apart in transformers, are neighbors in llama.cpp, the rows of q and k move. Where a
    matrix holds query, key and value of one head after the other, llama.cpp wants those of all heads together.
    """
    import numpy as np

    if has_state(config):
        return state_rows(source, config)
    size, parts = head_dim(config), source.split(".")
    counts = {"q_proj": config.num_attention_heads, "k_proj": kv_groups_of(config)}
    order: NDArray[Any]
    if family.permuted and (heads := counts.get(parts[-2])):
        order = np.arange(heads * size).reshape(heads, 2, size // 2).swapaxes(1, 2).ravel()
        return order
    by_head = [fused for fused in arch_of(config).fused if fused.layout == "by_head"]
    if (fused := next((row for row in by_head if f".{row.path}." in source), None)) is not None:
        count = len(fused.parts)
        rows = np.arange(config.num_attention_heads * count * size)
        order = rows.reshape(-1, count, size).swapaxes(0, 1).ravel()
        return order
    return slice(None)
