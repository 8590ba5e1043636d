"""What several formats share."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from minigpt.files import atomic_path

BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What stands beside the weights in every format, copied byte for byte."""
VIEWS = {"Reshape", "Transpose", "Identity", "Cast"}
LOOKUPS = {"Gather": {0}, "GatherBlockQuantized": {0, 2, 3}}
"""ONNX ops that read only rows of some of their inputs, by index."""


def copy_tokenizer(source: Path, folder: Path, *, skip: Collection[str] = ()) -> None:
    """Copy config, generation config, tokenizer and chat template of a model folder, those that exist."""
    for name in BESIDE:
        if name not in skip and (source / name).exists():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)


def weight_bytes(graph: Path) -> int:
    """Bytes of weights that one token's pass through an ONNX graph reads.

    A matrix that is only looked up in (the input embedding of an untied model) is left out; a tied one counts.
    """
    import onnx_ir

    model = onnx_ir.load(str(graph))
    total = 0
    for value in model.graph.initializers.values():
        if value.const_value is not None and _reads_whole(value):
            total += value.const_value.nbytes
    return total


def _reads_whole(value: Any) -> bool:
    """Whether any use of a tensor, or of its other view, is more than a lookup."""
    for node, index in value.uses():
        if node.op_type in VIEWS:
            if any(_reads_whole(output) for output in node.outputs):
                return True
        elif not (node.op_type in LOOKUPS and index in LOOKUPS[node.op_type]):
            return True
    return False
