"""GGUF format for llama.cpp: one file with weights, tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from minigpt import assets
from minigpt.assets import Parent
from minigpt.assets.refs import HubRef, PathRef, WheelRef, parse_ref
from minigpt.errors import AssetError, ExportError
from minigpt.exporting.common import Inexpressible, copy_tokenizer
from minigpt.exporting.gguf_arch import family_of
from minigpt.exporting.gguf_tensors import tensors_of
from minigpt.exporting.gguf_vocab import vocabulary_of
from minigpt.exporting.gguf_write import GgufType, q4_0_bytes, write_gguf
from minigpt.exporting.request import ExportRequest, Written
from minigpt.exporting.rounding.layers import round_layers
from minigpt.exporting.support import advice
from minigpt.progress import Reporter
from minigpt.runtimes.gguf import FILE, check_readable

# Type of the matrices for each precision.
TYPES: dict[str, GgufType] = {"fp32": "F32", "fp16": "F16", "int8": "Q8_0", "int4": "Q4_0"}
# The token embedding is often the head too, and loses too much in four bits (docs/results/deploy.md).
INT4_EMBEDDING: GgufType = "Q8_0"


def check(request: ExportRequest, config: Any) -> None:
    """Refuse a model that llama.cpp cannot compute or read, or whose file nothing here could prove.

    Raises:
        ExportError: llama.cpp cannot compute or read the model; the message names formats that work for it.
        AssetError: nothing here reads files of this family.
    """
    tokenizer = assets.load_tokenizer(request.source.path)
    with naming_others(config, tokenizer):
        family_of(config)
        vocabulary_of(tokenizer, config.vocab_size, config)
    check_readable(config)


@contextmanager
def naming_others(config: Any, tokenizer: Any) -> Iterator[None]:
    """Add to a refusal which formats work for the model.

    Raises:
        ExportError: GGUF has no words for the model.
    """
    try:
        yield
    except Inexpressible as error:
        raise ExportError(f"{error} {advice(config, tokenizer, but='gguf')}") from error


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
    with naming_others(model.config, tokenizer):
        check_names(model)
        if kind == "Q4_0":
            rounded, rounding = round_layers(model, tokenizer, request, reporter)
            settings |= {"embedding": INT4_EMBEDDING, **rounding}
            blocks = {name: q4_0_bytes(matrix) for name, matrix in rounded.items()}
            options = {"embedding": INT4_EMBEDDING, "rounded": blocks}
        write_gguf(model, tokenizer, folder / FILE, kind=kind, name=title_of(request.source), **options)
    copy_tokenizer(request.source.path, folder)
    return Written(weights=(FILE,), bytes_per_token=bytes_per_token(folder / FILE), settings=settings)


def check_names(model: Any) -> None:
    """Check that llama.cpp has a name for every tensor, before rounding takes its time.

    Raises:
        ExportError: it has none for one of them.
    """
    for _ in tensors_of(model, family_of(model.config)):
        pass


def title_of(source: Parent) -> str:
    """Return the name of a model as people know it, for `general.name`.

    Folders of a cache are named by hashes, but what the user gave names a repository, a file or a folder.
    """
    try:
        ref = parse_ref(source.ref)
    except AssetError:
        ref = PathRef(path=source.path)
    if isinstance(ref, HubRef):
        return ref.repo.rpartition("/")[2]
    if isinstance(ref, WheelRef):
        return PurePosixPath(ref.member).name.removesuffix(".gguf")
    path = ref.path.resolve()
    if path.parent.name == "snapshots":
        return path.parent.parent.name.rpartition("--")[2]
    # The folder of a build holds its model in `model/`.
    return (path.parent if path.name == "model" else path).name.removesuffix(".gguf")


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
