"""The benchmark of exports counts the bytes that a token reads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from minigpt.files import write_json
from minigpt.models.bench import Workload
from minigpt.runtimes import RECORD, ExportRecord, Source
from minigpt.types import Shape
from tests.support.tiny import tiny_config


@pytest.fixture(scope="module")
def module() -> Any:
    """The script as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "export.py"
    spec = importlib.util.spec_from_file_location("benchmark_export", path)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize(
    ("kind", "precision", "wide"),
    [("gguf", "fp16", 2), ("gguf", "int4", 2), ("gguf", "fp32", 4), ("onnx", "fp16", 2), ("onnx", "int4", 4)],
)
def test_the_cache_counts_halfway_through_decoding(
    module: Any, kind: str, precision: str, wide: int, tmp_path: Path
) -> None:
    config = tiny_config("llama", layers=3)
    config.num_key_value_heads, config.head_dim = 2, 16
    config.save_pretrained(tmp_path)
    shape = Shape(layers=3, intermediate_size=1, kv_groups=2, vocab_size=1)
    source = Source(ref="x", fingerprint="y", precision="float32", parameters=1, bytes=1, shape=shape)
    empty: dict[str, Any] = {"settings": {}, "versions": {}, "files": {}}
    record = ExportRecord(format=kind, precision=precision, source=source, bytes=1, bytes_per_token=5000, **empty)
    write_json(tmp_path / RECORD, record)
    found = module.all_bytes(tmp_path, Workload(prompt=100, decode=20))
    assert found == 5000 + 110 * (3 * 2 * 2 * 16) * wide
