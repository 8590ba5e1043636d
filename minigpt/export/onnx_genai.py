"""The ONNX Runtime GenAI format, by GenAI's own model builder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from minigpt.assets.quiet import quiet_transformers
from minigpt.errors import ExportError
from minigpt.export.common import copy_tokenizer, weight_bytes
from minigpt.export.quiet import silence
from minigpt.export.run import ExportRequest, Written
from minigpt.progress import Reporter

GRAPH, DATA = "model.onnx", "model.onnx.data"
OPTIONS: dict[str, dict[str, str | int]] = {
    "fp32": {},
    "int4": {"algo_config": "k_quant", "block_size": 32, "is_symmetric": "false", "accuracy_level": 1},
}
"""What the builder is asked for. `k_quant` searches the scale of every block (llama.cpp's rule) where plain rounding
takes it from the extremes; zero points cost 1/8 bit a weight."""


def write(request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
    """Write `model.onnx`, `genai_config.json` and the tokenizer, in fp32 or with int4 weights.

    Raises:
        ExportError: the builder does not know this architecture, or fails on it.
    """
    from onnxruntime_genai.models import builder

    options = {**OPTIONS[str(request.precision)], "hf_remote": "false"}
    source, target, precision = str(request.source.path), str(folder), str(request.precision)
    given = [f"{name}={value}" for name, value in options.items()]
    try:
        with tempfile.TemporaryDirectory() as cache, quiet_transformers(), silence():
            parsed: dict[str, Any] = builder.parse_extra_options("", source, target, precision, "cpu", cache, given)
            builder.create_model("", source, target, precision, "cpu", cache, **parsed)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"ONNX Runtime GenAI's builder cannot write it ({first}); try --format onnx.") from error
    copy_tokenizer(request.source.path, folder)
    return Written(weights=(GRAPH, DATA), bytes_per_token=weight_bytes(folder / GRAPH), settings=options)
