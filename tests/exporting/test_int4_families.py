"""int4 and int8 of every family: what the table calls a yes is written, and holds no more fp32 than it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, dequantize

from minigpt.assets import parent
from minigpt.exporting import ExportRequest, export
from minigpt.exporting.gguf_families import FAMILIES as GGUF
from minigpt.exporting.run import write_unproved
from minigpt.exporting.support import GENAI
from minigpt.runtimes import ExportRecord
from tests.exporting.test_gguf_families import set_fields
from tests.support.archsuite import EXPERTS, FAMILIES, STATES, model_of
from tests.support.exports import Shop, make_shop
from tests.support.tiny import UNUSUAL, known_fields, tiny_tokenizer

# One family of each kind that rounding treats in its own way.
KINDS = ("llama", "gpt2", "phi3", "mixtral", "gpt_oss", "qwen2_moe", "mamba", "lfm2")
# Relative error of a matrix in four bits, at most; with compensation it is larger than to the nearest code.
ROUNDED = 0.3


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


def some(families: Any, *quick: str) -> list[Any]:
    """List families as parameters of a test, all but the quick ones as slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in families]


def parent_of(family: str, folder: Path, **options: Any) -> Any:
    """Save a tiny model of a family with biases that show, and return it as a parent."""
    model_of(family, **options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return parent(str(folder))


def request_of(shop: Shop, source: Any, target: Path, kind: str, precision: str, **changes: Any) -> ExportRequest:
    """A request that calibrates on the shop's text."""
    return replace(shop.request(kind, "unused", precision=precision, **changes), source=source, output_dir=target)


def file_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a GGUF file, multiplied out."""
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(path).tensors}


@pytest.mark.parametrize("family", some(GGUF, *KINDS))
@pytest.mark.parametrize("rounding", ["compensated", "nearest"])
def test_gguf_holds_every_matrix_near_the_original_and_says_how_it_was_rounded(
    family: str, rounding: str, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With compensation the share of its weights is recorded, and codes of GPT-2's transposed matrices are others."""
    set_fields(monkeypatch, family)
    source = parent_of(family, tmp_path / family, layers=2)
    rounding = "nearest" if family in STATES else rounding
    request = request_of(shop, source, tmp_path / "int4", "gguf", "int4", rounding=rounding)
    settings = write_unproved(request).settings
    write_unproved(replace(request, precision="fp32", rounding=None, output_dir=tmp_path / "fp32"))
    exact, written = (file_tensors(tmp_path / name / "model.gguf") for name in ("fp32", "int4"))
    for name, values in exact.items():
        assert np.linalg.norm(written[name] - values) <= ROUNDED * np.linalg.norm(values), name
    assert settings["rounding"] == rounding
    if rounding == "compensated":
        assert 0 < settings["output_error_over_plain_rounding"] < 1
        assert settings["compensated_share"] == 1 or (family in EXPERTS and 0 < settings["compensated_share"] < 1)
        write_unproved(replace(request, rounding="nearest", output_dir=tmp_path / "plain"))
        plain = file_tensors(tmp_path / "plain" / "model.gguf")
        attention = [name for name in plain if name.endswith("attn_output.weight")]
        assert attention and all(not np.array_equal(plain[name], written[name]) for name in attention)
    else:
        assert not {"compensated_share", "calibration_tokens"} & set(settings)


def check_graph(record: ExportRecord, folder: Path, *, bits: int) -> None:
    """Every matrix of the layers is in blocks, and a few weights at most stay in fp32."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(folder / "model.onnx")).graph
    assert not [node for node in graph.node if node.op_type == "Gemm"]
    stacked = [tensor for tensor in graph.initializer if len(tensor.dims) > 2 and tensor.data_type == 1]
    assert sum(int(np.prod(tensor.dims)) for tensor in stacked) < 1000
    assert record.settings["weights_in_fp32"] < 1000
    # Queries, keys and values may be one; projections out of attention and of the FFN come on top of them.
    assert record.settings[f"matrices_in_{bits}_bits"] >= 4


@pytest.mark.parametrize("family", some(FAMILIES, "gpt2", "mixtral"))
@pytest.mark.parametrize("precision", some(("int4", "int8"), "int4"))
def test_onnx_rounds_all_matrices_of_a_family(family: str, precision: str, shop: Shop, tmp_path: Path) -> None:
    """Experts, GPT-2's Gemms with biases, fused and plain matrices: in int4 compensated or to the nearest code."""
    pytest.importorskip("onnxscript")
    source = parent_of(family, tmp_path / family, layers=1)
    record = export(request_of(shop, source, tmp_path / precision, "onnx", precision))
    check_graph(record, tmp_path / precision, bits=int(precision.removeprefix("int")))
    assert record.settings.get("rounding") == ("compensated" if precision == "int4" else None)


@pytest.mark.parametrize("family", some(sorted(GENAI), "lfm2", "phi3"))
def test_genai_rounds_all_matrices_of_a_family(
    family: str, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GenAI's builder takes apart what is stored as one; layers with a state are rounded to the nearest code."""
    pytest.importorskip("onnxruntime_genai")
    wide = {"hidden_size": 64, "head_dim": 16}
    monkeypatch.setitem(UNUSUAL, family, UNUSUAL.get(family, {}) | _known(family, wide))
    source = parent_of(family, tmp_path / family, layers=2)
    record = write_unproved(request_of(shop, source, tmp_path / "int4", "onnx-genai", "int4"))
    assert record.settings["rounding"] == "nearest"
    check_graph(record, tmp_path / "int4", bits=4)


def _known(family: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the config class of a family has."""
    return {name: value for name, value in fields.items() if name in known_fields(family)}
