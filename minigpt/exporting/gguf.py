"""GGUF format for llama.cpp: one file with weights, tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.errors import ExportError
from minigpt.exporting.common import Inexpressible, copy_tokenizer
from minigpt.exporting.gguf_write import GgufType, q4_0_bytes, write_gguf
from minigpt.exporting.request import ExportRequest, Written
from minigpt.exporting.rounding.layers import round_layers
from minigpt.exporting.support import advice
from minigpt.progress import Reporter
from minigpt.runtimes.gguf import FILE
from minigpt.transformer.arch import has_state

# Type of the matrices for each precision.
TYPES: dict[str, GgufType] = {"fp32": "F32", "fp16": "F16", "int8": "Q8_0", "int4": "Q4_0"}
# The token embedding is often the head too, and loses too much in four bits (docs/results/deploy.md).
INT4_EMBEDDING: GgufType = "Q8_0"


def write(request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
    """Write `model.gguf` as F32, F16, Q8_0 or Q4_0, the last rounded as the request says.

    Raises:
        ExportError: llama.cpp cannot compute or read the model; the message names formats that work for it.
    """
    kind = TYPES[str(request.precision)]
    model: Any = assets.load_model(request.source.path, dtype=torch.float32, device=request.device)
    tokenizer = assets.load_tokenizer(request.source.path)
    settings: dict[str, Any] = {"type": kind}
    options: dict[str, Any] = {}
    if kind == "Q4_0" and has_state(model):
        # Compensation measures inputs of attention, which layers with a state lack.
        settings |= {"embedding": INT4_EMBEDDING, "rounding": "nearest"}
        options = {"embedding": INT4_EMBEDDING}
    elif kind == "Q4_0":
        rounded, rounding = round_layers(model, tokenizer, request, reporter)
        settings |= {"embedding": INT4_EMBEDDING, **rounding}
        blocks = {name: q4_0_bytes(matrix) for name, matrix in rounded.items()}
        options = {"embedding": INT4_EMBEDDING, "rounded": blocks}
    try:
        write_gguf(model, tokenizer, folder / FILE, kind=kind, name=request.source.path.parent.name, **options)
    except Inexpressible as error:
        raise ExportError(f"{error} {advice(model.config, tokenizer, but='gguf')}") from error
    copy_tokenizer(request.source.path, folder)
    return Written(weights=(FILE,), bytes_per_token=bytes_per_token(folder / FILE), settings=settings)


def bytes_per_token(path: Path) -> int:
    """Count the bytes of weights that decoding a token reads from a GGUF file.

    All weights count, except that an embedding which is not the head too counts with one row, and of the experts those
    that a token goes to.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    sizes = {tensor.name: (int(tensor.n_bytes), int(tensor.shape[-1])) for tensor in reader.tensors}
    table, rows = sizes["token_embd.weight"]
    total = sum(size for size, _ in sizes.values())
    used = next(
        (int(field.contents()) for name, field in reader.fields.items() if name.endswith("expert_used_count")), 0
    )
    idle = sum(size - size * int(used) // count for name, (size, count) in sizes.items() if "_exps." in name)
    return total - idle - (table - table // rows if "output.weight" in sizes else 0)
