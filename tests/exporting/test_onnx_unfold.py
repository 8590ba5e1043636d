"""Graphs are rewritten so that the quantizer sees each matrix, compute the same, and are refused where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigpt.errors import ExportError
from minigpt.exporting.onnx_left import weights_left
from minigpt.exporting.onnx_quantize import quantize
from minigpt.exporting.onnx_unfold import unfold

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RANDOM = np.random.default_rng(0)
WIDTH = 64


def graph_of(nodes: list[Any], constants: dict[str, np.ndarray]) -> Any:
    """Make a model from `x` [rows, 64] to `y`."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", WIDTH])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def numbers(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def outputs(model: Any) -> np.ndarray:
    """Run a model on fixed numbers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values: np.ndarray = session.run(None, {"x": np.linspace(-1, 1, 3 * WIDTH, dtype=np.float32).reshape(3, WIDTH)})[0]
    return values


def gemms(**options: float) -> Any:
    """Two Gemms, one with a matrix the other way round and a bias, one with neither."""
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "a", "bias"], ["h"], transB=1, **options),
        onnx.helper.make_node("Gemm", ["h", "b"], ["y"]),
    ]
    return graph_of(nodes, {"a": numbers(WIDTH, WIDTH), "b": numbers(WIDTH, WIDTH), "bias": numbers(WIDTH)})


def experts() -> Any:
    """Three matrices in one constant, taken apart and multiplied one after the other."""
    helper = onnx.helper
    nodes = [helper.make_node("Split", ["stack"], ["s0", "s1", "s2"], axis=0, num_outputs=3)]
    for number, (before, after) in enumerate((("x", "h0"), ("h0", "h1"), ("h1", "y"))):
        nodes.append(helper.make_node("Squeeze", [f"s{number}", "axis"], [f"m{number}"]))
        nodes.append(helper.make_node("MatMul", [before, f"m{number}"], [after]))
    return graph_of(nodes, {"stack": numbers(3, WIDTH, WIDTH), "axis": np.array([0], dtype=np.int64)})


@pytest.mark.parametrize("make", [gemms, experts])
def test_products_are_plain_and_give_the_same(make: Any) -> None:
    model = make()
    expected, left = outputs(model), weights_left(model.graph)
    unfold(model.graph)
    kinds = [node.op_type for node in model.graph.node]
    assert set(kinds) <= {"MatMul", "Add"} and kinds.count("MatMul") == (3 if make is experts else 2)
    np.testing.assert_allclose(outputs(model), expected, rtol=1e-4, atol=1e-3)
    assert left == (kinds.count("MatMul") * WIDTH**2,) * 2
    onnx.checker.check_model(model)


@pytest.mark.parametrize("make", [gemms, experts])
def test_all_matrices_are_quantized(make: Any, tmp_path: Path) -> None:
    model = make()
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.data")
    settings = quantize(tmp_path / "m.onnx", "m.data", {})
    assert settings["matrices_in_8_bits"] == (3 if make is experts else 2) and settings["weights_in_fp32"] == 0


@pytest.mark.parametrize(("kind", "precisions"), [("onnx", "fp32 or fp16"), ("onnx-genai", "fp32")])
def test_a_graph_that_would_stay_in_fp32_is_refused_with_precisions_of_its_format(
    kind: str, precisions: str, tmp_path: Path
) -> None:
    """A Gemm with a factor is left as it is, so half of the weights would not be rounded."""
    model = gemms(alpha=0.5)
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.data")
    with pytest.raises(ExportError, match=rf"50% of the weights .* fp32; export it with --precision {precisions}, or"):
        quantize(tmp_path / "m.onnx", "m.data", {}, kind=kind)
    with pytest.raises(ExportError, match=rf"matrices as they are; export it with --precision {precisions}, or"):
        quantize(tmp_path / "m.onnx", "m.data", {}, weights=1, kind=kind)


def test_tables_that_are_only_looked_up_in_do_not_count() -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["row"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "row"], ["y"]),
    ]
    constants = {"table": numbers(9, WIDTH), "ids": np.array([1], dtype=np.int64), "w": numbers(WIDTH, WIDTH)}
    assert weights_left(graph_of(nodes, constants).graph) == (WIDTH**2, WIDTH**2)
