"""Four-bit matrices for ONNX Runtime whose codes were chosen on calibration text, as `MatMulNBits` stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minigpt.exporting.rounding import Rounded

FP32_ACTIVATIONS = 1


def by_content(model: Any, rounded: Mapping[str, Rounded]) -> dict[str, Rounded]:
    """Rounded matrices by the digest of the transpose of what they were, alone and below others with the same input.

    Exporters give the matrices of a graph names of their own, and some fuse those of queries, keys and values; what
    they hold tells which is which.
    """
    from minigpt.exporting.rounding import matrices_of, stacked

    weights = {name: model.get_parameter(name).detach().T.cpu().numpy() for name in rounded}
    found = {digest(weights[name]): each for name, each in rounded.items()}
    for names in matrices_of(model).values():
        if len(names) > 1 and all(name in rounded for name in names):
            whole = np.concatenate([weights[name] for name in names], axis=1)
            found[digest(whole)] = stacked([rounded[name] for name in names])
    return found


def digest(array: NDArray[Any]) -> str:
    """Names a tensor by its shape and bytes."""
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def encode_matmuls(graph: Any, rounded: Mapping[str, Rounded]) -> list[Rounded]:
    """Replace the products with known matrices by `MatMulNBits`, in place; the matrix of each.

    Blocks run along the inner dimension. The grid w' = scale x (code - 8) is the operator's own without zero points.
    """
    import onnx

    arrays = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    replaced: list[Rounded] = []
    added = set[str]()
    for position, node in enumerate(graph.node):
        tensor = arrays.get(node.input[1]) if node.op_type == "MatMul" else None
        known = rounded.get(digest(onnx.numpy_helper.to_array(tensor))) if tensor is not None else None
        if known is None:
            continue
        codes, scales = f"{node.input[1]}_codes", f"{node.input[1]}_scales"
        if codes not in added:
            added.add(codes)
            graph.initializer.append(onnx.numpy_helper.from_array(packed(known), codes))
            graph.initializer.append(onnx.numpy_helper.from_array(known.scales.float().cpu().numpy(), scales))
        rows, columns = known.codes.shape
        made = onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], codes, scales],
            list(node.output),
            name=f"{node.name}_4bits",
            domain="com.microsoft",
            K=columns,
            N=rows,
            bits=4,
            block_size=columns // known.scales.shape[1],
            accuracy_level=FP32_ACTIVATIONS,
        )
        graph.node[position].CopyFrom(made)
        replaced.append(known)
    return replaced


def packed(known: Rounded) -> NDArray[Any]:
    """Two codes a byte, the earlier in the low bits: uint8 [rows, blocks, block / 2]."""
    codes = known.codes.cpu().numpy()
    pairs: NDArray[Any] = codes[:, ::2] | codes[:, 1::2] << 4
    return pairs.reshape(len(codes), known.scales.shape[1], -1)
