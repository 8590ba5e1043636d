"""Quantization of an ONNX graph to 8 or 4 bits, in ONNX Runtime's block format.

Every matrix is cut into blocks of 32 weights with a scale each. In 4 bits the matrices of the decoder layers are
rounded by :mod:`minigpt.exporting.rounding`. Everything else, which in 8 bits is everything, goes through ONNX
Runtime's own quantizer, with zero points and a search for each block's scale (llama.cpp's k-quant rule).

Only weights are stored rounded; where a kernel rounds activations, it does so row by row. A result therefore depends
neither on padding nor on the rest of the batch, as it would with ONNX's dynamic quantization, where one scale serves
the whole batch.

`onnx` and `onnxruntime` belong to the extra `onnx`, so functions import them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minigpt.errors import ExportError
from minigpt.exporting.formats import BLOCK, format_of
from minigpt.exporting.onnx_int4 import encode_matmuls
from minigpt.exporting.onnx_left import weights_left
from minigpt.exporting.onnx_unfold import TRANSPOSED, unfold
from minigpt.exporting.quiet import silence

if TYPE_CHECKING:
    from minigpt.exporting.rounding import RoundedMatrix

# Share of the weights of all matrices that may stay in fp32 in a graph that is called quantized.
MOST_LEFT = 0.03
# ONNX Runtime's `accuracy_level` at which activations are rounded to int8: its only fast kernel for 8-bit weights.
INT8_ACTIVATIONS = 4


def quantize(
    graph: Path, data: str, rounded: Mapping[str, RoundedMatrix], *, weights: int = 0, kind: str = "onnx"
) -> dict[str, str | int | float | bool]:
    """Quantize a graph in place: products with constant weights become `MatMulNBits`, and the embedding likewise.

    A tied embedding is stored once: `GatherBlockQuantized` looks up rows of the output projection's own blocks. The
    embedding of an untied model stays in fp32.

    Args:
        graph: the .onnx file; its folder holds the weights.
        data: name of the file of weights beside it.
        rounded: the matrices that get 4 bits, see :func:`minigpt.exporting.onnx_int4.index_by_content`.
        weights: number of weights that have to get 4 bits.
        kind: the export format, for the message.

    Returns:
        Block size, numbers of matrices and of weights that stay in fp32, and rounding rule, for the record.

    Raises:
        ExportError: no matrices were found, or fewer weights than have to get 4 bits, or too many stay in fp32.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import KQuantWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = onnx.load(str(graph))
    unfold(model.graph)
    four_bit = encode_matmuls(model.graph, rounded)
    eight_bit = {node.name: {"bits": 8} for node in constant_matmuls(model.graph)}
    if sum(matrix.codes.numel() for matrix in four_bit) < weights or not eight_bit:
        raise ExportError(f"The graph does not hold the model's matrices as they are; {_unrounded(kind)}.")
    level = {"accuracy_level": INT8_ACTIVATIONS, "block_size": BLOCK}
    with silence():
        quantizer = MatMulNBitsQuantizer(
            model, **level, algo_config=KQuantWeightOnlyQuantConfig(customized_weight_config=eight_bit)
        )
        quantizer.process()
    quantized = quantizer.model.model
    tie_embedding(quantized.graph)
    drop_unused(quantized.graph)
    left, everything = weights_left(quantized.graph)
    if left > MOST_LEFT * everything:
        raise ExportError(
            f"{left / everything:.0%} of the weights of the graph's matrices cannot be rounded and would stay in fp32; "
            f"{_unrounded(kind)}."
        )
    if not any(opset.domain == "com.microsoft" for opset in quantized.opset_import):
        quantized.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    for path in (graph, graph.with_name(data)):
        path.unlink()
    onnx.save(quantized, str(graph), save_as_external_data=True, all_tensors_to_one_file=True, location=data)
    return {
        "block_size": BLOCK,
        "matrices_in_4_bits": len(four_bit),
        "matrices_in_8_bits": len(eight_bit),
        "weights_in_fp32": left,
        "int8_rounding": "k_quant",
    }


def _unrounded(kind: str) -> str:
    """Return what to do where a graph cannot be rounded."""
    precisions = [name for name in format_of(kind, None)[0].precisions if not name.startswith("int")]
    return f"export it with --precision {' or '.join(precisions)}, or in another format"


def constant_matmuls(graph: Any) -> Iterator[Any]:
    """Yield the products with a constant matrix on the right."""
    constants = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            yield node


def tie_embedding(graph: Any) -> None:
    """Look tokens up in the quantized output projection where embedding and projection are one matrix."""
    import onnx

    heads = {
        node.input[1].partition(TRANSPOSED)[0]: node for node in graph.node if TRANSPOSED in "".join(node.input[1:2])
    }
    for gather in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in heads]:
        head = heads[gather.input[0]]
        attributes = {attribute.name: attribute.i for attribute in head.attribute}
        rows = onnx.numpy_helper.from_array(_row_shape(attributes), f"{head.input[1]}.rows")
        graph.initializer.append(rows)
        view, position = f"{head.input[1]}.view", list(graph.node).index(gather)
        lookup = onnx.helper.make_node(
            "GatherBlockQuantized",
            [view, gather.input[1], *head.input[2:]],
            list(gather.output),
            name=f"{gather.name}_quantized",
            domain="com.microsoft",
            bits=attributes["bits"],
            block_size=attributes["block_size"],
            gather_axis=0,
            quantize_axis=1,
        )
        graph.node.remove(gather)
        graph.node.insert(position, lookup)
        graph.node.insert(position, onnx.helper.make_node("Reshape", [head.input[1], rows.name], [view], name=view))


def _row_shape(head: Mapping[str, int]) -> Any:
    """Return the shape of the packed embedding: [vocabulary, bytes of a row], a row padded to whole blocks."""
    blocks = -(-head["K"] // head["block_size"])
    return np.array([head["N"], blocks * head["block_size"] * head["bits"] // 8], dtype=np.int64)


def drop_unused(graph: Any) -> None:
    """Remove the constants that no node reads."""
    used = {name for node in graph.node for name in node.input}
    # By position: `remove` would compare tensors with all that stand before them.
    for position in reversed(range(len(graph.initializer))):
        if graph.initializer[position].name not in used:
            del graph.initializer[position]
