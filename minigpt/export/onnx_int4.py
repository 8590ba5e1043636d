"""Four-bit matrices for ONNX Runtime whose codes were chosen on calibration text, as `MatMulNBits` stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minigpt.export.gguf_int4 import calibration_grams
from minigpt.export.run import ExportRequest
from minigpt.progress import Reporter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minigpt.quantize import Rounded

FP32_ACTIVATIONS = 1


def rounded_matrices(model: Any, tokenizer: Any, request: ExportRequest, reporter: Reporter) -> Mapping[str, Rounded]:
    """Every matrix of the decoder layers with error compensation (GPTQ), by the digest of its transpose.

    The exporter gives the matrices of its graph names of its own; what they hold tells which is which. A matrix whose
    inner dimension is no whole number of blocks is left out.
    """
    from minigpt.quantize import BLOCK, compensated

    grams = calibration_grams(model, tokenizer, request, reporter)
    parameters = dict(model.named_parameters())
    named = reporter.track(grams.items(), title="Rounding to 4 bits", total=len(grams))
    found = {}
    for name, gram in named:
        weight = parameters[name].detach()
        if weight.shape[1] % BLOCK:
            continue
        found[digest(weight.T.contiguous().cpu().numpy())] = compensated(weight, gram)
    return found


def digest(array: NDArray[Any]) -> str:
    """Names a tensor by its shape and bytes."""
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def encode_matmuls(graph: Any, rounded: Mapping[str, Rounded]) -> int:
    """Replace the products with known matrices by `MatMulNBits`, in place; how many there were.

    Blocks run along the inner dimension. The grid w' = scale x (code - 8) is the operator's own without zero points.
    """
    import onnx

    arrays = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    replaced, added = 0, set[str]()
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
        replaced += 1
    return replaced


def packed(known: Rounded) -> NDArray[Any]:
    """Two codes a byte, the earlier in the low bits: uint8 [rows, blocks, block / 2]."""
    codes = known.codes.cpu().numpy()
    pairs: NDArray[Any] = codes[:, ::2] | codes[:, 1::2] << 4
    return pairs.reshape(len(codes), known.scales.shape[1], -1)
