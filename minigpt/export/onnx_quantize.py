"""Weights of a portable ONNX graph in 8 or 4 bits, by ONNX Runtime's own quantizer.

Every matrix is cut into blocks of 32 weights with a scale and a zero point each, which a search fits to the block
(llama.cpp's k-quant rule) rather than its extremes alone. Only weights are stored rounded; where activations are, it is
row by row inside the kernel. A result therefore depends neither on padding nor on what else is in the batch, as it
does with ONNX's dynamic quantization, where one scale serves the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minigpt.errors import ExportError
from minigpt.export.quiet import silence

BLOCK = 32
TURNED = ".transposed"
ACTIVATIONS = {8: 4, 4: 1}
"""ONNX Runtime's `accuracy_level` by bits: 1 multiplies in fp32, 4 rounds activations to int8 as well.

On an AVX-512 processor 4-bit weights decode as fast with either, and with fp32 activations exactly as they prefill; for
8-bit weights ONNX Runtime (1.31) has a fast kernel only with int8 activations.
"""


def settings(bits: int) -> dict[str, str | int | float | bool]:
    """What :func:`quantize` does, for the record."""
    quantizer = f"onnxruntime MatMulNBits {bits} bits, k_quant"
    return {"quantizer": quantizer, "block_size": BLOCK, "accuracy_level": ACTIVATIONS[bits]}


def quantize(graph: Path, data: str, bits: int) -> None:
    """Rewrite a graph in place: MatMuls with constant weights as `MatMulNBits`, the embedding likewise.

    The search of ONNX Runtime 1.31 packs the zero points of an odd number of blocks wrongly; such matrices are rounded
    from their extremes. A tied embedding is stored once: `GatherBlockQuantized` looks up rows of the output
    projection's own blocks.

    Args:
        graph: the .onnx file; its folder holds the weights.
        data: name of the file of weights beside it.
        bits: 8 or 4.

    Raises:
        ExportError: the quantizer found no weights.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        KQuantWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    model = onnx.load(str(graph))
    unfold_transposes(model.graph)
    blocks = {node.name: -(-_rows(model.graph, node) // BLOCK) for node in matmuls(model.graph)}
    if not blocks:
        raise ExportError("The traced graph has no matrix products with constant weights; nothing to quantize.")
    odd = [name for name, count in blocks.items() if bits == 4 and count % 2]
    level = {"accuracy_level": ACTIVATIONS[bits], "block_size": BLOCK}
    searched = KQuantWeightOnlyQuantConfig(customized_weight_config={name: {"bits": bits} for name in blocks})
    plain = DefaultWeightOnlyQuantConfig(**level, bits=bits)
    with silence():
        quantizer = MatMulNBitsQuantizer(model, **level, nodes_to_exclude=odd, algo_config=searched)
        quantizer.process()
        if odd:
            quantizer = MatMulNBitsQuantizer(
                quantizer.model.model, nodes_to_include=odd, bits=bits, **level, algo_config=plain
            )
            quantizer.process()
    found = quantizer.model.model
    tie_embedding(found.graph)
    drop_unused(found.graph)
    if not any(each.domain == "com.microsoft" for each in found.opset_import):
        found.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    for path in (graph, graph.with_name(data)):
        path.unlink()
    onnx.save(found, str(graph), save_as_external_data=True, all_tensors_to_one_file=True, location=data)


def matmuls(graph: Any) -> Iterator[Any]:
    """The products with a constant matrix on the right."""
    constants = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            yield node


def _rows(graph: Any, node: Any) -> int:
    """Length of the inner dimension of a MatMul with a constant."""
    return int(next(tensor.dims[0] for tensor in graph.initializer if tensor.name == node.input[1]))


def unfold_transposes(graph: Any) -> None:
    """Store the transpose of a constant that a MatMul multiplies with, instead of computing it.

    The exporter leaves a tied output projection as `Transpose(embedding)`, which the quantizer does not see through.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    multiplied = {name for node in graph.node if node.op_type == "MatMul" for name in node.input[1:]}
    for node in [each for each in graph.node if each.op_type == "Transpose"]:
        if node.input[0] in constants and node.output[0] in multiplied:
            array = onnx.numpy_helper.to_array(constants[node.input[0]])
            turned = onnx.numpy_helper.from_array(array.T.copy(), f"{node.input[0]}{TURNED}")
            graph.initializer.append(turned)
            graph.node.remove(node)
            for other in graph.node:
                replace_inputs(other, node.output[0], turned.name)


def replace_inputs(node: Any, old: str, new: str) -> None:
    """Let a node read `new` where it read `old`."""
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def tie_embedding(graph: Any) -> None:
    """Look tokens up in the quantized output projection where both are one matrix."""
    import onnx

    heads = {node.input[1].partition(TURNED)[0]: node for node in graph.node if TURNED in "".join(node.input[1:2])}
    for gather in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in heads]:
        head = heads[gather.input[0]]
        shape = {each.name: each.i for each in head.attribute}
        rows = onnx.numpy_helper.from_array(_row_shape(shape), f"{head.input[1]}.rows")
        graph.initializer.append(rows)
        view, position = f"{head.input[1]}.view", list(graph.node).index(gather)
        lookup = onnx.helper.make_node(
            "GatherBlockQuantized",
            [view, gather.input[1], *head.input[2:]],
            list(gather.output),
            name=f"{gather.name}_quantized",
            domain="com.microsoft",
            bits=shape["bits"],
            block_size=shape["block_size"],
            gather_axis=0,
            quantize_axis=1,
        )
        graph.node.remove(gather)
        graph.node.insert(position, lookup)
        graph.node.insert(position, onnx.helper.make_node("Reshape", [head.input[1], rows.name], [view], name=view))


def _row_shape(head: Mapping[str, int]) -> Any:
    """Packed bytes of a token's row: [vocabulary, hidden * bits / 8], the hidden size padded to whole blocks."""
    import numpy as np

    blocks = -(-head["K"] // head["block_size"])
    return np.array([head["N"], blocks * head["block_size"] * head["bits"] // 8], dtype=np.int64)


def drop_unused(graph: Any) -> None:
    """Remove constants that nothing reads."""
    used = {name for node in graph.node for name in node.input}
    for tensor in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(tensor)
