"""Sparse models on disk: one safetensors file of compressed matrices, beside the parent's config and tokenizer.

The file is read back bit by bit, and a hash over all weights proves it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.assets.quiet import quiet_transformers
from minigpt.errors import MiniGPTError
from minigpt.files import atomic_path, open_to_readers
from minigpt.parsing import load_json
from minigpt.tickets.masks import prunable
from minigpt.tickets.sparse import FORMS, smallest_form
from minigpt.transformer.specs import STACKED

FILE = "ticket.safetensors"
# Name under which the file's own description stands in its metadata.
ABOUT = "minigpt.ticket"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBytes:
    """Bytes of a stored ticket.

    Attributes:
        file: size of the file.
        dense: bytes of the same weights without compression.
        matrices: bytes of the pruned matrices in the file, positions included.
        dense_matrices: bytes of these matrices without compression.
        forms: number of matrices in each form.
    """

    file: int
    dense: int
    matrices: int
    dense_matrices: int
    forms: Mapping[str, int]


def weights_to_store(model: Any) -> dict[str, Tensor]:
    """Return the weights of a model by name, on the CPU; tied weights stand there once."""
    return {name: weight.detach().cpu() for name, weight in model.named_parameters()}


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of all weights."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].contiguous()
        hasher.update(f"{name} {weight.dtype} {tuple(weight.shape)} ".encode())
        hasher.update(weight.view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def save_ticket(model: Any, path: Path) -> StoredBytes:
    """Write the weights of a pruned model, each matrix of its layers in the form that takes the fewest bytes.

    Args:
        model: a causal language model in the precision that is stored; removed weights are zero.
        path: file to write, atomically.
    """
    from safetensors.torch import save_file

    weights, sparse = weights_to_store(model), frozenset(prunable(model))
    # A zero with a sign would be read back without it.
    weights = {name: weight + 0.0 if name in sparse else weight for name, weight in weights.items()}
    tensors: dict[str, Tensor] = {}
    described: dict[str, dict[str, Any]] = {}
    for name, weight in weights.items():
        form = smallest_form(weight.reshape(_rows(weight.shape))) if name in sparse else "dense"
        described[name] = {"form": form, "shape": list(weight.shape)}
        rows = weight.reshape(_rows(weight.shape)) if name in sparse else weight
        tensors |= {f"{name}/{part}": value.clone() for part, value in FORMS[form].encode(rows).items()}
    about = {"weights": described, "sha256": weights_hash(weights)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", ABOUT: json.dumps(about)})
        open_to_readers(temporary)
    inside = {name: value.nbytes for name, value in tensors.items() if name.rpartition("/")[0] in sparse}
    forms = [described[name]["form"] for name in sparse]
    return StoredBytes(
        file=path.stat().st_size,
        dense=sum(weight.nbytes for weight in weights.values()),
        matrices=sum(inside.values()),
        dense_matrices=sum(weights[name].nbytes for name in sparse),
        forms={form: forms.count(form) for form in FORMS if form in forms},
    )


def _rows(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a weight as a matrix: those of all experts of a layer stand one below the other."""
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) == STACKED else tuple(shape)


def _decoded(form: str, parts: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Read a weight of a shape."""
    return FORMS[form].decode(parts, _rows(shape)).view(*shape)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a ticket and verify their hash.

    Raises:
        MiniGPTError: the file is missing, is no ticket, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            about = load_json((stored.metadata() or {})[ABOUT])
            parts: dict[str, dict[str, Tensor]] = {}
            for key in stored.keys():  # noqa: SIM118
                name, _, part = key.rpartition("/")
                parts.setdefault(name, {})[part] = stored.get_tensor(key)
        rows = about["weights"]
        weights = {name: _decoded(row["form"], parts[name], row["shape"]) for name, row in rows.items()}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise MiniGPTError(f"{path} is not a stored ticket ({error}); make it again with minigpt lottery.") from None
    if weights_hash(weights) != about["sha256"]:
        raise MiniGPTError(
            f"{path} is damaged: its weights do not have the hash that it was stored with; make it again."
        )
    return weights


def load_ticket(folder: Path) -> Any:
    """Load a ticket's folder as a plain model of stock classes, with zeros where weights were removed.

    Args:
        folder: holds the file of the ticket and the model's config.

    Raises:
        MiniGPTError: the file is missing, damaged, or does not belong to the config.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    weights = load_weights(folder / FILE)
    with quiet_transformers():
        config = AutoConfig.from_pretrained(folder)
        dtype = next(weight.dtype for weight in weights.values())
        loader: Any = AutoModelForCausalLM
        model = loader.from_config(config, dtype=dtype)
    known = dict(model.named_parameters())
    if known.keys() != weights.keys():
        raise MiniGPTError(f"{folder / FILE} does not belong to the config beside it; make the ticket again.")
    with torch.no_grad():
        for name, weight in weights.items():
            known[name].copy_(weight)
    return model.eval()
