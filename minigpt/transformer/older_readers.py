"""Files of a saved model in the form that transformers 4, and other programs that know it, read correctly.

Transformers 5 writes the rotary settings into `rope_parameters` and names classes of tokenizers that version 4 does
not have. A reader of version 4 stops at the tokenizer and, without a word, takes 10,000 for the rotary base. So the
older names are written beside the newer ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigpt.files import write_text
from minigpt.parsing import load_json

# Class that both generations have, for each class that only transformers 5 has.
TOKENIZERS = {"TokenizersBackend": "PreTrainedTokenizerFast"}
# Names of GPT-NeoX's rotary settings in transformers 4.
NEOX = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}


def open_to_older_readers(folder: Path) -> None:
    """Add the names of transformers 4 to `config.json` and `tokenizer_config.json`, as far as these files exist.

    A name by which transformers 5 itself would read the config otherwise is left out.

    Args:
        folder: a model folder that transformers 5 has just saved.
    """
    path = folder / "config.json"
    if path.is_file():
        config = load_json(path.read_text("utf-8"))
        same = _read(folder)
        for name, value in older_names(config).items():
            _write(path, config | {name: value})
            if _read(folder) == same:
                config[name] = value
        _write(path, config)
    path = folder / "tokenizer_config.json"
    if path.is_file():
        _write(path, older_tokenizer(load_json(path.read_text("utf-8"))))


def older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `config.json` needs beside its own fields for transformers 4.

    Args:
        config: content of the file, as transformers 5 writes it.
    """
    rope = config.get("rope_parameters") or {}
    added: dict[str, Any] = {}
    if "full_attention" in rope:  # families whose kinds of layers have rotary settings of their own
        rope, sliding = rope["full_attention"] or {}, rope.get("sliding_attention") or {}
        if "rope_theta" in sliding:
            added["rope_local_base_freq"] = sliding["rope_theta"]
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in rope:
            added[NEOX[name] if config.get("model_type") == "gpt_neox" else name] = rope[name]
    if rope.get("rope_type", "default") != "default":
        added["rope_scaling"] = {name: value for name, value in rope.items() if name not in NEOX}
    if "dtype" in config:
        added["torch_dtype"] = config["dtype"]
    return {name: value for name, value in added.items() if name not in config}


def older_tokenizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tokenizer_config.json` with names that transformers 4 and 5 both read.

    Args:
        config: content of the file, as transformers 5 writes it.
    """
    changed = dict(config)
    name = changed.get("tokenizer_class")
    if name in TOKENIZERS:
        changed["tokenizer_class"] = TOKENIZERS[name]
    if isinstance(changed.get("extra_special_tokens"), list):  # version 4 has a mapping under this name
        changed["additional_special_tokens"] = changed.pop("extra_special_tokens")
    return changed


def _read(folder: Path) -> dict[str, Any]:
    """Read the config of a folder as transformers understands it."""
    from transformers import AutoConfig

    values: dict[str, Any] = AutoConfig.from_pretrained(folder).to_dict()
    return values


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file in the layout of transformers."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
