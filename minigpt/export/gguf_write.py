"""GGUF files out of Hugging Face models: tensors under llama.cpp's names, in its layout, at a chosen precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from minigpt.arch import head_dim
from minigpt.errors import ExportError
from minigpt.export.gguf_arch import GgufFamily, add_architecture, family_of, rope_factors
from minigpt.export.gguf_vocab import add_vocabulary, vocabulary_of
from minigpt.files import atomic_path

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray
    from torch import Tensor

GgufType = Literal["F32", "F16", "Q8_0", "Q4_0"]
Encoder = Callable[[str, "Tensor"], "NDArray[Any] | None"]
FILE_TYPES: Mapping[GgufType, str] = {
    "F32": "ALL_F32",
    "F16": "MOSTLY_F16",
    "Q8_0": "MOSTLY_Q8_0",
    "Q4_0": "MOSTLY_Q4_0",
}
BLOCK = 32
LARGEST_HALF = 65504.0


def write_gguf(
    model: Any,
    tokenizer: Any,
    path: Path,
    *,
    kind: GgufType,
    name: str,
    embedding: GgufType | None = None,
    encode: Encoder | None = None,
) -> None:
    """Write a causal model with its tokenizer as one GGUF file.

    Vectors (norms, biases) stay F32, as llama.cpp needs them. Matrices whose rows are no multiple of 32 long stay
    F16 in quantized files.

    Args:
        model: a `transformers` causal language model of a family in `gguf_arch.FAMILIES`.
        tokenizer: its fast tokenizer.
        path: the file to write, atomically.
        kind: the type of the matrices.
        name: `general.name`.
        embedding: another type for the token embedding (and the head, if it is not tied).
        encode: gives a matrix, by its `transformers` name, as Q4_0 bytes [rows, row bytes]; None for one that is to
            be rounded plainly.

    Raises:
        ExportError: something that llama.cpp does not compute or read, or a weight too large for F16.
    """
    from gguf import GGUFWriter, LlamaFileType

    config = model.config
    family = family_of(config)
    vocabulary = vocabulary_of(tokenizer, config.vocab_size)
    with atomic_path(path) as temporary:
        writer = GGUFWriter(temporary, family.arch)
        writer.add_type("model")
        writer.add_name(name)
        writer.add_file_type(LlamaFileType[FILE_TYPES[kind]])
        if kind.startswith("Q"):
            writer.add_quantization_version(2)
        add_architecture(writer, config)
        add_vocabulary(writer, vocabulary)
        for target, source, tensor in _tensors(model, family):
            wanted = (embedding or kind) if target in ("token_embd.weight", "output.weight") else kind
            stored, data = _encoded(source, tensor, wanted, encode)
            writer.add_tensor(target, data[_row_order(source, config, family)], raw_dtype=stored)
        if (factors := rope_factors(config)) is not None:
            writer.add_tensor("rope_freqs.weight", factors)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _tensors(model: Any, family: GgufFamily) -> Iterator[tuple[str, str, Tensor]]:
    """Name in llama.cpp, name in transformers and weights (fp32, norms with their offset); tied tensors come once."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(key for key, value in MODEL_ARCH_NAMES.items() if value == family.arch)
    names = get_tensor_name_map(MODEL_ARCH(arch), model.config.num_hidden_layers)
    for source, parameter in model.named_parameters():
        target = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ExportError(f"GGUF has no name for the tensor {source}; use --format onnx instead.")
        tensor = parameter.detach().float().cpu()
        yield target, source, tensor + family.norm_offset if "norm" in source else tensor


def _encoded(
    source: str, tensor: Tensor, kind: GgufType, encode: Encoder | None
) -> tuple[GGMLQuantizationType, NDArray[Any]]:
    """The type a tensor is stored in, and its bytes or numbers, one row of the matrix a row."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    if tensor.ndim == 1:
        return GGMLQuantizationType.F32, tensor.numpy()
    stored = "F16" if kind.startswith("Q") and tensor.shape[-1] % BLOCK else kind
    if stored == "F16" and float(tensor.abs().max()) > LARGEST_HALF:
        raise ExportError(f"{source} holds weights too large for F16; export with --precision fp32.")
    given = encode(source, tensor) if encode is not None and stored == "Q4_0" else None
    type_ = GGMLQuantizationType[stored]
    return type_, quantize(tensor.numpy(), type_) if given is None else given


def _row_order(source: str, config: Any, family: GgufFamily) -> slice | NDArray[Any]:
    """Where the rows of q and k go: rotary pairs, half a head apart in transformers, become neighbors."""
    import numpy as np

    counts = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    heads = counts.get(source.split(".")[-2]) if family.permuted else None
    if heads is None:
        return slice(None)
    size = head_dim(config)
    order: NDArray[Any] = np.arange(heads * size).reshape(heads, 2, size // 2).swapaxes(1, 2).ravel()
    return order
