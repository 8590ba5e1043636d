"""Steps that several formats share: copying the tokenizer, and counting the weights that a token reads."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from minigpt.assets.rowless import TEMPLATES
from minigpt.errors import ExportError
from minigpt.files import atomic_path

# Files that stand beside the weights in every format, copied byte for byte.
COMPANION_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
# ONNX operators whose result is another view of their input.
VIEWS = {"Reshape", "Transpose", "Identity", "Cast"}
# ONNX operators that read only some rows of the inputs with these indices.
LOOKUPS = {"Gather": {0}, "GatherBlockQuantized": {0, 2, 3}}


class Inexpressible(ExportError):
    """A model that a format has no words for; whoever knows the other formats adds which of them work."""


def copy_tokenizer(source: Path, folder: Path, *, skip: Collection[str] = ()) -> None:
    """Copy config, generation config, tokenizer and chat templates of a model folder, as far as they exist.

    Args:
        source: the model folder.
        folder: the folder of the export.
        skip: names of files to leave out.
    """
    for name in COMPANION_FILES:
        if name not in skip and (source / name).exists():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)
    if (source / TEMPLATES).is_dir():
        with atomic_path(folder / TEMPLATES) as temporary:
            shutil.copytree(source / TEMPLATES, temporary)


def weight_bytes(graph: Path) -> int:
    """Count the bytes of weights that one token's pass through an ONNX graph reads.

    A matrix that is only looked up in (the input embedding of an untied model) is left out; a tied one counts.
    """
    # onnx_ir belongs to the extra `onnx`.
    import onnx_ir

    model = onnx_ir.load(str(graph))
    total = 0
    for value in model.graph.initializers.values():
        if value.const_value is not None and _is_read_whole(value):
            total += value.const_value.nbytes
    return total


def _is_read_whole(value: Any) -> bool:
    """Tell whether any use of a tensor, or of another view of it, is more than a lookup."""
    for node, index in value.uses():
        if node.op_type in VIEWS:
            if any(_is_read_whole(output) for output in node.outputs):
                return True
        elif not (node.op_type in LOOKUPS and index in LOOKUPS[node.op_type]):
            return True
    return False
