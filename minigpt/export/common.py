"""What several formats share."""

from __future__ import annotations

import shutil
from pathlib import Path

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


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy config, generation config, tokenizer and chat template of a model folder, those that exist."""
    for name in BESIDE:
        if (source / name).exists():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)


def parameters_of(folder: Path) -> int:
    """Parameters of a model folder, tied ones once: read from the headers of its safetensors files."""
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                size = 1
                for side in weights.get_slice(name).get_shape():
                    size *= side
                total += size
    return total
