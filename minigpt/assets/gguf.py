"""Conversion of GGUF parents to plain Hugging Face folders: done once, checked, and cached by content."""

from __future__ import annotations

import copy
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt import environment
from minigpt.assets.gguf_tokenizer import Metadata, byte_level_tokenizer, check_words, gemma_tokenizer
from minigpt.assets.quiet import quiet_gguf
from minigpt.errors import AssetError, first_line
from minigpt.files import atomic_path, sweep, write_json
from minigpt.integrity import SUMS, aside_note, damage, seal, set_aside, sha256_once
from minigpt.locks import hold
from minigpt.parsing import load_json
from minigpt.progress import SILENT, Reporter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Version of the conversion. A new one converts cached files again.
CONVERTER = 1
# File in a converted folder that says what it was made from.
RECORD = "converted_from.json"
# Seconds to wait for another process that converts the same file.
CONVERTING_SECONDS = 3600.0
# Text whose logits the converted model must reproduce.
PROBE = "In 2020, 12 of 345 patients had a fever.\n\nThe court held  that 7 + 8 = 15."
# Precisions of GGUF files that need no dequantization.
EXACT_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Families that transformers reads back with all their settings, so that the logits are equal.
READ_BACK = ("llama", "mistral", "qwen2", "phi3", "stablelm", "starcoder2")


def convert_gguf(path: Path, *, reporter: Reporter = SILENT) -> Path:
    """Convert a GGUF file to a plain folder in the cache, or find the folder there if it was converted before.

    Weights are dequantized and stored in the narrowest type that holds all of them exactly, which is float32 for
    quantized files. The tokenizer is rebuilt (see :mod:`minigpt.assets.gguf_tokenizer`); chat template and special
    tokens are kept. The folder must give the same logits as the file before it enters the cache.

    Args:
        path: The GGUF file.
        reporter: Receives progress.

    Returns:
        The folder.

    Raises:
        AssetError: The file is not GGUF, its architecture or tokenizer cannot be converted, or the logits differ.
        MiniGPTError: The cache cannot be written, e.g. the disk is full.
    """
    digest = sha256_once(path)
    folder = environment.home() / "parents" / f"{path.stem}-{digest[:16]}-v{CONVERTER}"
    if damage(folder) is None:
        return folder
    metadata, types = read_metadata(path)
    with hold(folder.with_name(f".{folder.name}.lock"), f"The conversion {folder}", timeout=CONVERTING_SECONDS):
        if (reason := damage(folder)) is not None:
            _make_room(folder, reason, reporter)
            with reporter.stage(f"Converting {path.name} to a plain folder (once)"):
                source, tokenizer = _load(path, metadata), _tokenizer(path, metadata)
                with atomic_path(folder) as temporary:
                    _save(source, tokenizer, temporary)
                    record = {"file": path.name, "sha256": digest, "converter": CONVERTER}
                    write_json(temporary / RECORD, {**record, "precision": _precision(metadata, types)})
                    seal(temporary, key=digest)
    return folder


def _make_room(folder: Path, reason: str, reporter: Reporter) -> None:
    """Move a damaged conversion aside, and delete what killed conversions of the same file left.

    A conversion without sums was made by a version that recorded none; it is replaced without a word.
    """
    sweep(folder)
    if (folder / SUMS).exists():
        reporter.note(aside_note(folder, reason, set_aside(folder)))


def conversion_record(folder: Path) -> Mapping[str, Any] | None:
    """Read the origin of a converted folder: `file`, `sha256`, `converter` and `precision`.

    Returns:
        The origin, or None if the folder was not converted.
    """
    record = folder / RECORD
    return load_json(record.read_text("utf-8")) if record.exists() else None


def read_metadata(path: Path) -> tuple[Metadata, Mapping[str, int]]:
    """Read the key-value pairs of a GGUF file, and count its weights by storage type.

    Raises:
        AssetError: The file is not GGUF or is incomplete.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        types: dict[str, int] = {}
        for tensor in reader.tensors:
            types[tensor.tensor_type.name] = types.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    except MemoryError:
        raise
    except Exception as error:  # a damaged header ends in exceptions of every kind
        raise AssetError(f"{path} is not a complete GGUF file ({error}). Fetch it again.") from error
    if "general.architecture" not in metadata or not types:
        raise AssetError(f"{path} holds no model: it lacks an architecture or weights.")
    return metadata, types


def _precision(metadata: Metadata, types: Mapping[str, int]) -> str:
    """Return the usual name of the file's precision, e.g. "Q4_1 dequantized"."""
    from gguf import LlamaFileType

    try:
        name = LlamaFileType(metadata.get("general.file_type", -1)).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        name = max(types, key=lambda kind: types[kind])
    return EXACT_NAMES.get(name, f"{name} dequantized")


def _save(source: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer to a folder, load the model again, and check that its logits are equal."""
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
    """Load the model of a GGUF file, dequantized to fp32, without writing to the cache.

    Raises:
        AssetError: The file is not GGUF, or transformers cannot convert its architecture.
    """
    return _load(path, read_metadata(path)[0])


def _load(path: Path, metadata: Metadata) -> PreTrainedModel:
    """Load the model of a GGUF file whose metadata is known."""
    import torch
    import transformers

    dense = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": dense(dequantize=True)} if dense else {}
    try:
        with quiet_gguf():
            auto: Any = transformers.AutoModelForCausalLM
            model: PreTrainedModel
            model, info = auto.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged headers fail with exceptions of every kind
        kind = metadata["general.architecture"]
        raise AssetError(
            f"transformers cannot convert the GGUF architecture {kind!r} of {path.name} ({first_line(error)}). "
            "Use the original model's folder or Hub id instead."
        ) from error
    if missing := sorted({*info["missing_keys"], *(str(name) for name in info.get("mismatched_keys", ()))}):
        raise AssetError(
            f"{path.name} lacks weights of its architecture {metadata['general.architecture']!r}, e.g. {missing[0]}. "
            "Fetch it again, or use the original model's folder or Hub id instead."
        )
    model.train(False)
    return model


def _tokenizer(path: Path, metadata: Metadata) -> PreTrainedTokenizerBase:
    """Rebuild the tokenizer: byte-level BPE and Gemma's by our own rules, all others by transformers' reader."""
    from transformers import AutoTokenizer

    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        return byte_level_tokenizer(metadata)
    if kind == "llama" and str(metadata.get("general.architecture")).startswith("gemma"):
        return gemma_tokenizer(metadata)
    try:
        with quiet_gguf():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True
            )
    except MemoryError:
        raise
    except Exception as error:
        raise AssetError(f"Cannot rebuild the tokenizer of {path.name} ({first_line(error)}).") from error
    check_words(tokenizer, metadata)
    return tokenizer


def lossless_dtype(state: Mapping[str, torch.Tensor]) -> torch.dtype:
    """Return the narrowest of bfloat16, float16 and float32 that holds every weight exactly."""
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in state.values()):
            return dtype
    return torch.float32
