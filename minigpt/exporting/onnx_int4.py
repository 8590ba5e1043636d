"""Block-rounded four-bit matrices in the layout of ONNX Runtime's operator `MatMulNBits`.

`onnx` belongs to the extra of that name, so functions import it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minigpt.exporting.rounding import matrices_by_input, stack_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minigpt.exporting.rounding import RoundedMatrix

# ONNX Runtime's `accuracy_level` at which activations stay in fp32.
FP32_ACTIVATIONS = 1


def index_by_content(model: Any, rounded: Mapping[str, RoundedMatrix]) -> dict[str, RoundedMatrix]:
    """Index rounded matrices by the content of the originals, so that they are found again in a graph.

    Exporters rename the matrices of a graph, and some fuse those of queries, keys and values. The content identifies a
    matrix whatever its name is.

    Args:
        model: the model that was rounded.
        rounded: its rounded matrices by parameter name.

    Returns:
        Rounded matrices by the digest of the transposed original. Matrices with the same input stand there twice: each
        for itself, and all of them as one.
    """
    originals = {name: model.get_parameter(name).detach().T.cpu().numpy() for name in rounded}
    index = {tensor_digest(originals[name]): matrix for name, matrix in rounded.items()}
    for names in matrices_by_input(model).values():
        if len(names) > 1 and all(name in rounded for name in names):
            fused = np.concatenate([originals[name] for name in names], axis=1)
            index[tensor_digest(fused)] = stack_rows([rounded[name] for name in names])
    return index


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
