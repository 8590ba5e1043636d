"""Writer of GGUF files: tensors of a Hugging Face model under the names and in the layout of llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from minigpt.errors import ExportError
from minigpt.exporting.formats import BLOCK
from minigpt.exporting.gguf_arch import add_architecture, family_of, rope_factors
from minigpt.exporting.gguf_tensors import row_order, stays_fp32, tensors_of
from minigpt.exporting.gguf_vocab import add_vocabulary, vocabulary_of
from minigpt.files import atomic_path

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from numpy import uint8
    from numpy.typing import NDArray
    from torch import Tensor

    from minigpt.exporting.rounding import RoundedMatrix

GgufType = Literal["F32", "F16", "Q8_0", "Q4_0"]
# Name of the file type in `gguf.LlamaFileType` for each type of the matrices.
FILE_TYPES: Mapping[GgufType, str] = {
    "F32": "ALL_F32",
    "F16": "MOSTLY_F16",
    "Q8_0": "MOSTLY_Q8_0",
    "Q4_0": "MOSTLY_Q4_0",
}
# Largest number that F16 holds.
LARGEST_HALF = 65504.0
# No rounded matrices: an immutable default.
_NO_MATRICES: Mapping[str, NDArray[uint8]] = MappingProxyType({})


def write_gguf(
    model: Any,
    tokenizer: Any,
    path: Path,
    *,
    kind: GgufType,
    name: str,
    embedding: GgufType | None = None,
    rounded: Mapping[str, NDArray[uint8]] = _NO_MATRICES,
) -> None:
    """Write a causal model with its tokenizer as one GGUF file.

    Vectors (norms, biases) stay F32, as llama.cpp needs them. Matrices whose number of columns is no multiple of 32
    stay F16 in quantized files.

    Args:
        model: a `transformers` causal language model of a family in `gguf_families.FAMILIES`.
        tokenizer: its fast tokenizer.
        path: the file to write, atomically.
        kind: the type of the matrices.
        name: `general.name`.
        embedding: another type for the token embedding (and the head, if it is not tied).
        rounded: matrices by their names in `transformers`, as Q4_0 bytes [rows, row bytes]. Matrices that are not
            listed are rounded to the nearest code.

    Raises:
        ExportError: llama.cpp cannot compute or read the model, or a weight is too large for F16.
    """
    from gguf import GGUFWriter, LlamaFileType

    config = model.config
    family = family_of(config)
    vocabulary = vocabulary_of(tokenizer, config.vocab_size, config, getattr(model, "generation_config", None))
    with atomic_path(path) as temporary:
        writer = GGUFWriter(temporary, family.arch)
        writer.add_type("model")
        writer.add_name(name)
        writer.add_file_type(LlamaFileType[FILE_TYPES[kind]])
        if kind.startswith("Q"):
            writer.add_quantization_version(2)
        add_architecture(writer, config)
        add_vocabulary(writer, vocabulary)
        for target, source, tensor in tensors_of(model, family):
            tensor_kind = (embedding or kind) if target in ("token_embd.weight", "output.weight") else kind
            tensor_kind = "F32" if stays_fp32(target, tensor) else tensor_kind
            stored, data = _encode(source, tensor, tensor_kind, rounded.get(source))
            writer.add_tensor(target, data[row_order(source, config, family)], raw_dtype=stored)
        if (factors := rope_factors(config)) is not None:
            writer.add_tensor("rope_freqs.weight", factors)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _encode(
    source: str, tensor: Tensor, kind: GgufType, rounded: NDArray[uint8] | None
) -> tuple[GGMLQuantizationType, NDArray[Any]]:
    """Return the type in which a tensor is stored, and its bytes or numbers row by row.

    Bytes in `rounded` take the place of plain rounding where the tensor is stored as Q4_0.
    """
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    if kind == "F32":
        return GGMLQuantizationType.F32, tensor.numpy()
    stored = "F16" if kind.startswith("Q") and tensor.shape[-1] % BLOCK else kind
    if stored == "F16" and float(tensor.abs().max()) > LARGEST_HALF:
        raise ExportError(f"{source} holds weights too large for F16; export with --precision fp32.")
    type_ = GGMLQuantizationType[stored]
    return type_, quantize(tensor.numpy(), type_) if rounded is None or stored != "Q4_0" else rounded


def q4_0_bytes(matrix: RoundedMatrix) -> NDArray[uint8]:
    """Lay out a rounded matrix as ggml's Q4_0.

    A block is its scale, then 16 bytes with weights 0-15 in the low and 16-31 in the high bits.

    Returns:
        Bytes [rows, columns / 32 x 18].
    """
    import numpy as np

    codes = matrix.codes.cpu().numpy().reshape(len(matrix.codes), -1, 2, 16)
    scales = matrix.scales.contiguous().cpu().numpy().view(np.uint8).reshape(*codes.shape[:2], 2)
    packed = codes[:, :, 0] | (codes[:, :, 1] << np.uint8(4))
    layout: NDArray[uint8] = np.concatenate([scales, packed], axis=-1).reshape(len(codes), -1)
    return layout
