"""Count of the weights that stay in fp32 in a quantized ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from minigpt.exporting.common import VIEWS

# Operators that multiply with a matrix.
PRODUCTS = ("MatMul", "Gemm", "Einsum", "Conv", "CausalConvWithState")
# Operators after which a stacked constant is still a matrix, or several.
PARTS = (*VIEWS, "Split", "Slice", "Squeeze", "Unsqueeze", "Gather")
# Dimensions of a table of rows, whose lookup is no matrix.
TABLE = 2


def weights_left(graph: Any) -> tuple[int, int]:
    """Count the weights of matrices that are multiplied with in fp32, and the weights of all matrices.

    Embeddings that are only looked up in are no such matrices.

    Args:
        graph: an `onnx.GraphProto` after quantization.
    """
    readers: dict[str, list[Any]] = {}
    quantized: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
        if node.op_type == "MatMulNBits":
            sizes = {attribute.name: attribute.i for attribute in node.attribute}
            quantized[node.input[1]] = sizes["K"] * sizes["N"]
    left = sum(
        prod(tensor.dims)
        for tensor in graph.initializer
        if len(tensor.dims) >= TABLE and _is_float(tensor) and _multiplies(tensor.name, len(tensor.dims), readers)
    )
    return left, left + sum(quantized.values())


def _is_float(tensor: Any) -> bool:
    """Return whether a constant holds numbers that are not rounded."""
    from onnx import TensorProto

    return tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def _multiplies(name: str, dimensions: int, readers: Mapping[str, list[Any]]) -> bool:
    """Return whether a value, or a part or another view of it, is multiplied with."""
    for node in readers.get(name, []):
        is_lookup = node.op_type == "Gather" and dimensions == TABLE
        is_part = node.op_type in PARTS and name == node.input[0] and not is_lookup
        if node.op_type in PRODUCTS or (
            is_part and any(_multiplies(output, dimensions, readers) for output in node.output)
        ):
            return True
    return False
