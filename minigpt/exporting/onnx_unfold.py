"""Rewrites of an ONNX graph after which every product with a constant matrix is a plain MatMul with a 2-D constant.

Exporters leave products in forms that ONNX Runtime's quantizer does not see: with a computed transpose, as `Gemm`, or
with one of several experts that stand in one constant.

`onnx` belongs to the extra of that name, so functions import it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from minigpt.transformer.specs import STACKED

# Suffix of the name of a constant whose transpose is stored; tied matrices are recognized by it.
TRANSPOSED = ".transposed"


def unfold(graph: Any) -> None:
    """Rewrite all products with constant matrices, and the lookups of tied ones, in place.

    Args:
        graph: an `onnx.GraphProto`.
    """
    unfold_gemms(graph)
    unfold_experts(graph)
    unfold_transposes(graph)
    unfold_lookups(graph)
    name_products(graph)


def name_products(graph: Any) -> None:
    """Name the products that have no name: the quantizer knows them by it."""
    for node in graph.node:
        if node.op_type == "MatMul" and not node.name:
            node.name = f"{node.output[0]}_matmul"


def unfold_gemms(graph: Any) -> None:
    """Write products with a constant matrix and the sum with their bias as MatMul and Add, where they are a Gemm."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    nodes, stored = list[Any](), set[str]()
    for node in graph.node:
        options = _options(node) if node.op_type == "Gemm" else {}
        if node.op_type != "Gemm" or node.input[1] not in constants or not _is_plain(options):
            nodes.append(node)
            continue
        matrix, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if options.get("transB"):
            matrix = f"{matrix}{TRANSPOSED}"
            if matrix not in stored:
                array = onnx.numpy_helper.to_array(constants[node.input[1]])
                graph.initializer.append(onnx.numpy_helper.from_array(array.T.copy(), matrix))
                stored.add(matrix)
        product = f"{node.output[0]}_product" if bias else node.output[0]
        name = node.name or node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], matrix], [product], name=f"{name}_matmul"))
        if bias:
            nodes.append(onnx.helper.make_node("Add", [product, bias], [node.output[0]], name=f"{name}_add"))
    del graph.node[:]
    graph.node.extend(nodes)


def _options(node: Any) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _is_plain(options: dict[str, Any]) -> bool:
    """Return whether a Gemm is a product and a sum with nothing else."""
    return options.get("alpha", 1.0) == 1.0 == options.get("beta", 1.0) and not options.get("transA", 0)


def unfold_experts(graph: Any) -> None:
    """Store the matrix of each expert as a constant of its own, where a graph splits the constant that holds all."""
    import onnx

    arrays = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == STACKED}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    renamed, gone = dict[str, str](), set[str]()
    for split in _expert_splits(graph, arrays):
        array = onnx.numpy_helper.to_array(arrays[split.input[0]])
        for number, output in enumerate(split.output):
            name = f"{split.input[0]}.{number}"
            squeezes = [node.output[0] for node in readers.get(output, []) if node.op_type == "Squeeze"]
            if squeezes:
                graph.initializer.append(onnx.numpy_helper.from_array(array[number].copy(), name))
                renamed |= dict.fromkeys(squeezes, name)
        if all(node.output[0] in renamed for output in split.output for node in readers.get(output, [])):
            gone.add(split.output[0])
    _rename(graph, renamed, gone)


def _rename(graph: Any, renamed: Mapping[str, str], gone: Collection[str]) -> None:
    """Read other values in place of some, and remove the nodes that gave those, and others by their first output."""
    nodes = [node for node in graph.node if node.output[0] not in renamed and node.output[0] not in gone]
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    del graph.node[:]
    graph.node.extend(nodes)


def _expert_splits(graph: Any, arrays: dict[str, Any]) -> Iterator[Any]:
    """Yield the nodes that split a stacked constant into the matrices of single experts."""
    for node in graph.node:
        is_split = node.op_type == "Split" and node.input[0] in arrays and _options(node).get("axis", 0) == 0
        if is_split and len(node.output) == arrays[node.input[0]].dims[0]:
            yield node


def unfold_transposes(graph: Any) -> None:
    """Store the transpose of a constant that a MatMul multiplies with, instead of computing it.

    The exporter leaves a tied output projection as `Transpose(embedding)`, which the quantizer does not recognize as a
    constant.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    multiplied = {name for node in graph.node if node.op_type == "MatMul" for name in node.input[1:]}
    renamed = dict[str, str]()
    for node in _transposes(graph):
        if node.input[0] in constants and node.output[0] in multiplied:
            name = f"{node.input[0]}{TRANSPOSED}"
            if name not in constants:
                array = onnx.numpy_helper.to_array(constants[node.input[0]])
                constants[name] = onnx.numpy_helper.from_array(array.T.copy(), name)
                graph.initializer.append(constants[name])
            renamed[node.output[0]] = name
    _rename(graph, renamed, ())


def unfold_lookups(graph: Any) -> None:
    """Store the transpose of a constant that a Gather looks tokens up in, instead of computing it.

    GenAI's builder looks tokens up in `Transpose(output projection)`.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    for node in _transposes(graph):
        if node.input[0] in constants and node.output[0] in looked_up:
            tensor, name = constants[node.input[0]], f"{node.input[0]}.rows"
            graph.initializer.append(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).T.copy(), name))
            graph.node.remove(node)
            for other in graph.node:
                replace_inputs(other, node.output[0], name)
                replace_inputs(other, tensor.name, f"{name}{TRANSPOSED}")
            tensor.name = f"{name}{TRANSPOSED}"


def _transposes(graph: Any) -> list[Any]:
    """List the Transpose nodes, so that a loop over them may remove nodes from the graph."""
    return [node for node in graph.node if node.op_type == "Transpose"]


def replace_inputs(node: Any, old: str, new: str) -> None:
    """Make a node read the value `new` wherever it read `old`."""
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new
