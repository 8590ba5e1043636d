"""The ONNX formats in their real runtimes: names, parity, and one stored matrix where a model has one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from minigpt import runtimes
from minigpt.errors import AssetError
from minigpt.exporting import export
from minigpt.exporting.onnx_quantize import quantize
from minigpt.integrity import read_signed, write_signed
from minigpt.progress import SILENT
from minigpt.runtimes import RECORD, ExportRecord
from tests.support.exports import Shop, make_shop

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def portable(shop: Shop) -> Path:
    record = export(shop.request("onnx", "portable"))
    assert record.greedy and record.greedy.agreeing == 64
    return shop.root / "portable"


@pytest.fixture(scope="module")
def rounded(shop: Shop) -> Any:
    import torch

    from minigpt import assets
    from minigpt.exporting.onnx_int4 import index_by_content
    from minigpt.exporting.rounding.layers import round_layers

    model = assets.load_model(shop.model, dtype=torch.float32)
    request = shop.request("onnx", "unused", rounding="compensated")
    matrices, settings = round_layers(model, assets.load_tokenizer(shop.model), request, SILENT)
    assert settings["rounding"] == "compensated" and 0 < settings["output_error_over_plain_rounding"] < 1
    return index_by_content(model, matrices)


@pytest.fixture(scope="module")
def int4(portable: Path, rounded: Any) -> Path:
    folder = portable.with_name("int4")
    shutil.copytree(portable, folder)
    assert quantize(folder / "model.onnx", "model.onnx_data", rounded)["matrices_in_4_bits"] == 14
    record_again(folder)
    return folder


def record_again(folder: Path) -> None:
    """Record the files of an export that was changed on purpose."""
    record = read_signed(folder / RECORD, ExportRecord)
    write_signed(folder / RECORD, replace(record, files={}))


def names(values: Any) -> dict[str, list[Any]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def test_one_graph_in_plain_onnx_with_the_names_that_runtimes_know(portable: Path) -> None:
    graph = onnx.load(str(portable / "model.onnx"), load_external_data=False).graph
    past = ["batch_size", 2, "past_sequence_length", 16]
    assert names(graph.input) == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "total_sequence_length"],
        "position_ids": ["batch_size", "sequence_length"],
        **{f"past_key_values.{layer}.{part}": past for layer in range(2) for part in ("key", "value")},
    }
    present = ["batch_size", 2, "total_sequence_length", 16]
    assert names(graph.output) == {
        "logits": ["batch_size", "sequence_length", 512],
        **{f"present.{layer}.{part}": present for layer in range(2) for part in ("key", "value")},
    }
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert sorted(path.name for path in portable.glob("model*")) == ["model.onnx", "model.onnx_data"]
    assert b"site-packages" not in (portable / "model.onnx").read_bytes()
    onnx.checker.check_model(str(portable / "model.onnx"))


def test_batches_and_lengths_that_were_not_traced(shop: Shop, portable: Path) -> None:
    """Against transformers itself, three rows padded on the left by 0, 3 and 9 tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = np.random.default_rng(0).integers(3, 512, size=(3, 13))
    mask = np.ones_like(ids)
    mask[1, :3] = mask[2, :9] = 0
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(shop.model)
        expected_logits = [
            model(torch.from_numpy(row[None, keep.astype(bool)])).logits[0] for row, keep in zip(ids, mask, strict=True)
        ]
    logits = runtimes.load(portable).logits(ids, mask)
    for row, keep, expected in zip(logits, mask, expected_logits, strict=True):
        np.testing.assert_allclose(row[keep.astype(bool)], expected.numpy(), atol=1e-4)


def test_a_sequence_beyond_the_window_is_refused(portable: Path) -> None:
    runtime = runtimes.load(portable)
    ids, padding = np.full((1, 300), 7, dtype=np.int64), np.ones((1, 300), dtype=np.int64)
    with pytest.raises(AssetError, match="reads at most 256 tokens and was given 300"):
        runtime.logits(ids, padding)
    padding[:, :60] = 0
    assert runtime.logits(ids, padding).shape == (1, 300, 512)
    with pytest.raises(AssetError, match="reads at most 256 tokens and was given 257"):
        runtime.begin([7] * 257)
    runtime.begin([7] * 256)
    with pytest.raises(AssetError, match="reads at most 256 tokens and was given 257"):
        runtime.step(7)


def test_steps_continue_what_was_begun(portable: Path) -> None:
    runtime = runtimes.load(portable)
    ids = list(range(5, 25))
    whole = runtime.logits(np.array([ids]), np.ones((1, 20), dtype=np.int64))[0]
    runtime.begin([9, 9, 9])
    steps = [runtime.begin(ids[:7]), *(runtime.step(token) for token in ids[7:])]
    np.testing.assert_allclose(np.stack(steps), whole[6:], atol=1e-4)


def test_a_tied_matrix_is_stored_once_and_read_back_as_itself(shop: Shop, int4: Path) -> None:
    """Dequantized by hand from the bytes: (q - zero) * scale in blocks of 32 along the hidden size."""
    model = onnx.load(str(int4 / "model.onnx"))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    lookup = next(node for node in model.graph.node if node.op_type == "GatherBlockQuantized")
    head = next(node for node in model.graph.node if node.op_type == "MatMulNBits" and node.output[0] == "logits")
    view = next(node for node in model.graph.node if node.output[0] == lookup.input[0])
    assert view.input[0] == head.input[1] and list(lookup.input[2:]) == list(head.input[2:])
    codes, scale, zero = (tensors[name].reshape(512, 1, -1).astype(np.float32) for name in head.input[1:4])
    weight = load_file(shop.model / "model.safetensors")["model.embed_tokens.weight"]
    assert np.abs(((codes - zero) * scale).reshape(512, 32) - weight).max() <= scale.max()
    assert not [name for name, tensor in tensors.items() if tensor.shape in {(512, 32), (32, 512)}]


def test_four_bit_blocks_hold_the_codes_chosen_for_them(shop: Shop, int4: Path, rounded: Any) -> None:
    """Low nibble first, no zero points: what the bytes say, multiplied out, is what error compensation chose."""
    model = onnx.load(str(int4 / "model.onnx"))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "MatMulNBits" and len(node.input) == 3]
    assert len(nodes) == 14
    matrices = []
    for node in nodes:
        packed, scale = (tensors[name] for name in node.input[1:])
        nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*scale.shape, 32).astype(np.float32)
        matrices.append(((nibbles - 8) * scale[..., None]).reshape(len(scale), -1))
    weights = load_file(shop.model / "model.safetensors")
    for name, weight in weights.items():
        if "layers" not in name or weight.ndim != 2:
            continue
        near = min(np.abs(matrix - weight).max() for matrix in matrices if matrix.shape == weight.shape)
        assert 0 < near < 0.3 * np.abs(weight).max()


def test_rounding_keeps_logits_near_and_every_way_to_run_equal(portable: Path, int4: Path) -> None:
    ids = np.arange(3, 33)[None]
    int8 = portable.with_name("int8")
    shutil.copytree(portable, int8)
    quantize(int8 / "model.onnx", "model.onnx_data", {})
    record_again(int8)
    expected = runtimes.load(portable).logits(ids, np.ones_like(ids))[0]
    for folder, loss, share in ((int4, 0.35, 0.33), (int8, 0.03, 0.36)):
        rounded = runtimes.load(folder)
        logits = rounded.logits(ids, np.ones_like(ids))[0]
        assert 0 < np.abs(logits - expected).mean() < loss * expected.std()
        steps = [rounded.begin(ids[0, :10].tolist()), *(rounded.step(int(token)) for token in ids[0, 10:])]
        np.testing.assert_allclose(np.stack(steps), logits[9:], atol=0.15)
        assert (folder / "model.onnx_data").stat().st_size < share * (portable / "model.onnx_data").stat().st_size


def test_bytes_per_token_count_a_tied_matrix_once_and_a_lookup_not_at_all(portable: Path, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from minigpt.exporting.common import weight_bytes

    matrices = 4 * (2 * 32 * (2 * 64 + 2 * 32 + 3 * 64) + 512 * 32)
    assert matrices <= weight_bytes(portable / "model.onnx") < matrices + 1024
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "head"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "untied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in _TABLES.items()],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "untied.onnx"))
    assert weight_bytes(tmp_path / "untied.onnx") == 4 * 3 * 5


_TABLES = {"table": (7, 3), "head": (3, 5)}


def test_genai_reads_its_folder_and_agrees(shop: Shop) -> None:
    pytest.importorskip("onnxruntime_genai")
    record = export(shop.request("onnx-genai", "genai"))
    assert record.greedy and record.greedy.agreeing == 64 and all(check.passed for check in record.checks)
    assert record.quality and record.quality.ratio == pytest.approx(1, abs=1e-5)
    runtime = runtimes.load(shop.root / "genai")
    runtime._room = 0  # type: ignore[attr-defined]
    first = runtime.begin([5, 6, 7])
    runtime._room = 0  # type: ignore[attr-defined]
    whole = runtime.logits(np.array([[5, 6, 7, 8]]), np.ones((1, 4), dtype=np.int64))[0]
    np.testing.assert_allclose(np.stack([first, runtime.step(8)]), whole[2:], atol=1e-4)


@pytest.mark.parametrize("rounding", [None, "nearest"])
def test_genai_takes_the_codes_of_error_compensation(shop: Shop, rounding: str | None) -> None:
    """All matrices of the layers in 4 bits, queries, keys and values as one; the tied embedding once, in 8 bits."""
    pytest.importorskip("onnxruntime_genai")
    name = f"genai-{rounding}"
    record = export(shop.request("onnx-genai", name, precision="int4", rounding=rounding))
    assert record.settings["rounding"] == (rounding or "compensated")
    graph = onnx.load(str(shop.root / name / "model.onnx")).graph
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    bits = [next(attribute.i for attribute in node.attribute if attribute.name == "bits") for node in products]
    assert sorted(bits) == [4] * 10 + [8] and not [node for node in graph.node if node.op_type == "MatMul"]
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    fused = next(node for node in products if "qkv" in node.name)
    codes, scales = tensors[fused.input[1]], tensors[fused.input[2]]
    steps = np.stack([codes & 15, codes >> 4], axis=-1).reshape(128, 32).astype(np.float32) - 8
    weights = load_file(shop.model / "model.safetensors")
    parts = [weights[f"model.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    gap = np.abs(steps * scales - np.concatenate(parts))
    assert (gap <= np.abs(scales) * (0.51 if rounding else 4)).mean() > (0.95 if rounding else 0.99)
    assert not [name for name, tensor in tensors.items() if tensor.shape in {(512, 32), (32, 512)}]
