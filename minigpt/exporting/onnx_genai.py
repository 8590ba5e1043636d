"""The ONNX Runtime GenAI format, by GenAI's own model builder."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.assets.quiet import quiet_transformers
from minigpt.errors import ExportError, first_line
from minigpt.exporting.common import copy_tokenizer, weight_bytes
from minigpt.exporting.onnx_int4 import by_content
from minigpt.exporting.onnx_quantize import quantize
from minigpt.exporting.quiet import silence
from minigpt.exporting.rounding.layers import Settings, rounded_matrices
from minigpt.exporting.run import ExportRequest, Written
from minigpt.progress import Reporter

GRAPH, DATA = "model.onnx", "model.onnx.data"


def write(request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
    """Write `model.onnx`, `genai_config.json` and the tokenizer, in fp32 or with int4 weights.

    The graph is always the builder's own in fp32. Its int4 would round the tied embedding to 4 bits too, and each
    matrix by itself, which costs a small model four times as much as the codes put in here (docs/deploy.md).

    Raises:
        ExportError: the builder does not know this architecture, or fails on it.
    """
    from onnxruntime_genai.models import builder

    source, target = str(request.source.path), str(folder)
    try:
        with tempfile.TemporaryDirectory() as cache, quiet_transformers(), silence():
            given = ["hf_remote=false"]
            parsed: dict[str, Any] = builder.parse_extra_options("", source, target, "fp32", "cpu", cache, given)
            builder.create_model("", source, target, "fp32", "cpu", cache, **parsed)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise ExportError(
            f"ONNX Runtime GenAI's builder cannot write it ({first_line(error)}); try --format onnx."
        ) from error
    settings = four_bits(request, folder, reporter) if request.precision == "int4" else {}
    copy_tokenizer(request.source.path, folder)
    return Written(weights=(GRAPH, DATA), bytes_per_token=weight_bytes(folder / GRAPH), settings=settings)


def four_bits(request: ExportRequest, folder: Path, reporter: Reporter) -> Settings:
    """Round the matrices of the graph in `folder`; how it was done."""
    import torch

    model = assets.load_model(request.source.path, dtype=torch.float32)
    named, how = rounded_matrices(model, assets.load_tokenizer(request.source.path), request, reporter)
    weights = sum(each.codes.numel() for each in named.values())
    return how | quantize(folder / GRAPH, DATA, by_content(model, named), weights=weights)
