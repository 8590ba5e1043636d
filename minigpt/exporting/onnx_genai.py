"""ONNX Runtime GenAI format, written by GenAI's own model builder."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.assets.quiet import quiet_transformers
from minigpt.errors import ExportError, first_line
from minigpt.exporting.common import copy_tokenizer, weight_bytes
from minigpt.exporting.onnx_int4 import index_by_content
from minigpt.exporting.onnx_quantize import quantize
from minigpt.exporting.quiet import silence
from minigpt.exporting.request import ExportRequest, Written
from minigpt.exporting.rounding.layers import RoundingSettings, round_layers
from minigpt.exporting.support import advice, slides
from minigpt.progress import Reporter

# The graph, and the file of weights beside it, as GenAI's builder names them.
GRAPH = "model.onnx"
DATA = "model.onnx.data"


def write(request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
    """Write `model.onnx`, `genai_config.json` and the tokenizer, in fp32 or with int4 weights.

    The builder always writes the graph in fp32, and four-bit codes are put in afterwards. Its own int4 would round the
    tied embedding to 4 bits too, and each matrix by itself, which costs a small model far more
    (docs/results/deploy.md).

    Raises:
        ExportError: the builder does not know this architecture, or fails on it.
    """
    # onnxruntime_genai belongs to the extra `onnx`.
    from onnxruntime_genai.models import builder

    source, target = str(request.source.path), str(folder)
    try:
        with tempfile.TemporaryDirectory() as cache, quiet_transformers(), silence():
            options = ["hf_remote=false"]
            parsed: dict[str, Any] = builder.parse_extra_options("", source, target, "fp32", "cpu", cache, options)
            builder.create_model("", source, target, "fp32", "cpu", cache, **parsed)
    except Exception as error:
        # A full disk is no fault of the builder: the command line has a sentence for it.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise ExportError(_refusal(request, first_line(error))) from error
    settings = put_in_blocks(request, folder, reporter) if request.precision == "int4" else {}
    copy_tokenizer(request.source.path, folder)
    return Written(weights=(GRAPH, DATA), bytes_per_token=weight_bytes(folder / GRAPH), settings=settings)


def _refusal(request: ExportRequest, reason: str) -> str:
    """Write the sentence for a model that the builder cannot write, with formats that work for it."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(request.source.path, local_files_only=True)
    if slides(config):
        reason = f"its sliding-window attention; {reason}"
    further = advice(config, assets.load_tokenizer(request.source.path), but="onnx-genai")
    return f"ONNX Runtime GenAI's builder cannot write this model ({reason}). {further}"


def put_in_blocks(request: ExportRequest, folder: Path, reporter: Reporter) -> RoundingSettings:
    """Replace the matrices of the graph in `folder` by rounded blocks, and return how they were rounded."""
    model = assets.load_model(request.source.path, dtype=torch.float32)
    tokenizer = assets.load_tokenizer(request.source.path)
    matrices, rounding = round_layers(model, tokenizer, request, reporter, every=True)
    weights = sum(matrix.codes.numel() for matrix in matrices.values())
    rounded = index_by_content(model, matrices)
    return rounding | quantize(folder / GRAPH, DATA, rounded, weights=weights, kind="onnx-genai")
