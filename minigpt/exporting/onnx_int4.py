"""Block-rounded four-bit matrices in the layout of ONNX Runtime's operator `MatMulNBits`.

`onnx` belongs to the extra of that name, so functions import it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minigpt.exporting.rounding import matrices_by_input, stack_rows
from minigpt.exporting.rounding.model import matrix_of
from minigpt.transformer.arch import arch_of
from minigpt.transformer.fused import part_sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minigpt.exporting.rounding import RoundedMatrix

# ONNX Runtime's `accuracy_level` at which activations stay in fp32.
FP32_ACTIVATIONS = 1


def index_by_content(model: Any, rounded: Mapping[str, RoundedMatrix]) -> dict[str, RoundedMatrix]:
    """Index rounded matrices by the content of the originals, so that they are found again in a graph.

    Exporters rename the matrices of a graph; some fuse those of queries, keys and values, and some take stored matrices
    apart. The content identifies a matrix whatever its name is.

    Args:
        model: the model that was rounded.
        rounded: its rounded matrices by name, see :mod:`minigpt.exporting.rounding.model`.

    Returns:
        Rounded matrices by the digest of the original as [inputs, outputs]. Matrices with the same input stand there
        twice: each for itself, and all of them as one. So do those that hold several projections: whole, and in parts.
    """
    originals = {name: matrix_of(model, name).T.cpu().numpy() for name in rounded}
    index = {tensor_digest(originals[name]): matrix for name, matrix in rounded.items()}
    for names in matrices_by_input(model, transposed=True).values():
        if len(names) > 1 and all(name in rounded for name in names):
            fused = np.concatenate([originals[name] for name in names], axis=1)
            index[tensor_digest(fused)] = stack_rows([rounded[name] for name in names])
    for name, matrix in rounded.items():
        sizes = _sizes(model, name, len(matrix.codes))
        if len(sizes) == 1:
            continue
        columns = np.split(originals[name], np.cumsum(sizes)[:-1], axis=1)
        index |= {tensor_digest(part): rows for part, rows in zip(columns, matrix.split(sizes), strict=True)}
    return index


def _sizes(model: Any, name: str, rows: int) -> list[int]:
    """Return the rows of the projections that a stored matrix holds one after the other, all in one if it holds one."""
    stored = (fused for fused in arch_of(model).fused if fused.parts and fused.layout != "by_head")
    fused = next((fused for fused in stored if name.endswith(f".{fused.path}.weight")), None)
    return [rows] if fused is None else list(part_sizes(model.config, fused, rows))


def tensor_digest(array: NDArray[Any]) -> str:
    """Hash the shape and the bytes of a tensor."""
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def encode_matmuls(graph: Any, rounded: Mapping[str, RoundedMatrix]) -> list[RoundedMatrix]:
    """Replace the products with known matrices by `MatMulNBits`, in place.

    Blocks run along the inner dimension. The grid w' = scale x (code - 8) is the operator's own without zero points.

    Args:
        graph: an `onnx.GraphProto`.
        rounded: the rounded matrices, see :func:`index_by_content`.

    Returns:
        The matrix of each product that was replaced.
    """
    import onnx

    arrays = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    replaced: list[RoundedMatrix] = []
    # Products that share a matrix share its codes.
    added = set[str]()
    for position, node in enumerate(graph.node):
        tensor = arrays.get(node.input[1]) if node.op_type == "MatMul" else None
        matrix = rounded.get(tensor_digest(onnx.numpy_helper.to_array(tensor))) if tensor is not None else None
        if matrix is None:
            continue
        codes, scales = f"{node.input[1]}_codes", f"{node.input[1]}_scales"
        if codes not in added:
            added.add(codes)
            graph.initializer.append(onnx.numpy_helper.from_array(pack_codes(matrix), codes))
            graph.initializer.append(onnx.numpy_helper.from_array(matrix.scales.float().cpu().numpy(), scales))
        rows, columns = matrix.codes.shape
        product = onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], codes, scales],
            list(node.output),
            name=f"{node.name}_4bits",
            domain="com.microsoft",
            K=columns,
            N=rows,
            bits=4,
            block_size=columns // matrix.scales.shape[1],
            accuracy_level=FP32_ACTIVATIONS,
        )
        graph.node[position].CopyFrom(product)
        replaced.append(matrix)
    return replaced


def pack_codes(matrix: RoundedMatrix) -> NDArray[Any]:
    """Pack two codes into a byte, the earlier one in the low bits: uint8 [rows, blocks, block / 2]."""
    codes = matrix.codes.cpu().numpy()
    pairs: NDArray[Any] = codes[:, ::2] | codes[:, 1::2] << 4
    return pairs.reshape(len(codes), matrix.scales.shape[1], -1)
