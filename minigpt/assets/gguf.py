"""GGUF parents as plain Hugging Face folders: converted once, checked, cached by content."""

from __future__ import annotations

import copy
import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt import environment
from minigpt.assets.gguf_tokenizer import Metadata, byte_level_tokenizer
from minigpt.assets.quiet import quiet_gguf
from minigpt.errors import AssetError, first_line
from minigpt.files import atomic_path, file_sha256, write_json
from minigpt.progress import SILENT, Reporter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONVERTER = 1
RECORD = "converted_from.json"
PROBE = "In 2020, 12 of 345 patients had a fever.\n\nThe court held  that 7 + 8 = 15."
EXACT_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def convert_gguf(path: Path, *, reporter: Reporter = SILENT) -> Path:
    """The plain folder of a GGUF file, from the cache if the same content was converted before.

    Weights are dequantized and stored in the narrowest type that holds every one of them exactly, in practice
    float32 for a quantized file. The tokenizer is rebuilt (see :mod:`minigpt.assets.gguf_tokenizer`) and the chat
    template and special tokens are kept. Before the folder counts as done it is loaded again and must give the same
    logits as the file.

    Raises:
        AssetError: not a GGUF file, an architecture or tokenizer that cannot be converted, or unequal logits.
        MiniGPTError: the cache cannot be written, e.g. the disk is full.
    """
    from filelock import FileLock

    digest = file_sha256(path)
    folder = environment.home() / "parents" / f"{path.stem}-{digest[:16]}-v{CONVERTER}"
    if (folder / RECORD).exists():
        return folder
    metadata, types = read_metadata(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / RECORD).exists():
            with reporter.stage(f"Converting {path.name} to a plain folder (once)"):
                source, tokenizer = _load(path, metadata), _tokenizer(path, metadata)
                with atomic_path(folder) as temporary:
                    _save(source, tokenizer, temporary)
                    record = {"file": path.name, "sha256": digest, "converter": CONVERTER}
                    write_json(temporary / RECORD, {**record, "precision": _precision(metadata, types)})
    return folder


def conversion_record(folder: Path) -> Mapping[str, Any] | None:
    """What a converted folder was made from (file, sha256, converter, precision), or None if it was not."""
    record = folder / RECORD
    return json.loads(record.read_text("utf-8")) if record.exists() else None


def read_metadata(path: Path) -> tuple[Metadata, Mapping[str, int]]:
    """Key-value pairs of a GGUF file, and how many weights it stores in each type.

    Raises:
        AssetError: the file is not GGUF or is cut off.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        types: dict[str, int] = {}
        for tensor in reader.tensors:
            types[tensor.tensor_type.name] = types.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise AssetError(f"{path} is not a complete GGUF file ({error}). Fetch it again.") from error
    if "general.architecture" not in metadata or not types:
        raise AssetError(f"{path} holds no model: it lacks an architecture or weights.")
    return metadata, types


def _precision(metadata: Metadata, types: Mapping[str, int]) -> str:
    """The name the community gives the file, e.g. "Q4_1 dequantized"."""
    from gguf import LlamaFileType

    try:
        name = LlamaFileType(metadata.get("general.file_type", -1)).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        name = max(types, key=lambda kind: types[kind])
    return EXACT_NAMES.get(name, f"{name} dequantized")


def _save(source: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights and tokenizer, load them again and compare: what is cached is known to be right."""
    import torch
    import transformers
    from safetensors import SafetensorError

    config = copy.deepcopy(source.config)
    for leftover in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.__dict__.pop(leftover, None)
    state = source.state_dict()
    auto: Any = transformers.AutoModelForCausalLM
    with quiet_gguf():
        plain = auto.from_config(config, dtype=lossless_dtype(state))
        plain.load_state_dict(state)
        plain.generation_config = source.generation_config
        try:
            plain.save_pretrained(folder)
        except SafetensorError as error:
            raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, first_line(error)) from error
        tokenizer.save_pretrained(folder)
        again = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    ids = tokenizer(PROBE, return_tensors="pt").input_ids
    with torch.inference_mode():
        difference = (source(ids).logits - again(ids).logits).abs().max().item()
    if difference != 0:
        raise AssetError(f"Converting to {folder.name} changed the logits by {difference:.2g}; report this file.")


def read_gguf(path: Path) -> PreTrainedModel:
    """The model of a GGUF file in fp32, dequantized, without a copy in the cache.

    Raises:
        AssetError: not a GGUF file, or an architecture that transformers cannot convert.
    """
    return _load(path, read_metadata(path)[0])


def _load(path: Path, metadata: Metadata) -> PreTrainedModel:
    import torch
    import transformers

    dense = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": dense(dequantize=True)} if dense else {}
    try:
        with quiet_gguf():
            auto: Any = transformers.AutoModelForCausalLM
            model: PreTrainedModel = auto.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True, **options
            )
    except (ValueError, KeyError, RuntimeError) as error:
        kind = metadata["general.architecture"]
        raise AssetError(
            f"transformers cannot convert the GGUF architecture {kind!r} of {path.name} ({first_line(error)}). "
            "Use the original model's folder or Hub id instead."
        ) from error
    model.train(False)
    return model


def _tokenizer(path: Path, metadata: Metadata) -> PreTrainedTokenizerBase:
    """Ours for byte-level BPE; SentencePiece vocabularies carry all they need, so transformers' own reader serves."""
    from transformers import AutoTokenizer

    if metadata.get("tokenizer.ggml.model") == "gpt2":
        return byte_level_tokenizer(metadata)
    try:
        with quiet_gguf():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True
            )
    except (ValueError, KeyError, RuntimeError) as error:
        raise AssetError(f"Cannot rebuild the tokenizer of {path.name} ({first_line(error)}).") from error
    return tokenizer


def lossless_dtype(state: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The narrowest of bfloat16, float16 and float32 that holds every weight exactly."""
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in state.values()):
            return dtype
    return torch.float32
