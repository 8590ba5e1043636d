"""Language models inside of checkpoints that also see: their text part as a plain folder of a stock text class.

Text alone goes through the same arithmetic in both: the towers differ from the text classes by what they do with images
(positions in three directions, which are equal for text, and attention between the patches of an image).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minigpt import environment
from minigpt.assets.gguf import CONVERTING_SECONDS, RECORD
from minigpt.assets.rowless import TEMPLATES
from minigpt.errors import AssetError, first_line
from minigpt.files import atomic_path, sweep, write_json
from minigpt.integrity import SUMS, aside_note, damage, seal, set_aside
from minigpt.locks import hold
from minigpt.parsing import load_json
from minigpt.progress import SILENT, Reporter

if TYPE_CHECKING:
    from torch import Tensor

# Text class, by `model_type`, of the language model in a checkpoint with a vision part.
TOWERS: Mapping[str, str] = MappingProxyType({"gemma3": "gemma3_text", "qwen2_5_vl": "qwen2", "qwen3_vl": "qwen3"})
# Version of the extraction. A new one extracts cached folders again.
EXTRACTOR = "text-1"
# Tensors of the vision part, and of what projects its outputs into the text.
_VISION = re.compile(r"^(model\.)?(visual|vision_tower|vision_model|multi_modal_projector)\.")
# Place of the language model's tensors, as transformers 4 and 5 write it.
_LANGUAGE = re.compile(r"^(model\.)?language_model\.(model\.)?")
# Settings of positions in three directions, which text does not use.
_DIRECTIONS = ("mrope_section", "mrope_interleaved")
# Settings of a text part that its text class says by being that class, or does not have.
_OWN = ("model_type", "architectures", "transformers_version", "_name_or_path")
# Files beside the weights that a text model does not need.
_OTHERS = ("config.json", "model.safetensors.index.json", "preprocessor_config.json", "processor_config.json")


def tower_type(folder: Path) -> str | None:
    """Return the `model_type` of a folder whose language model stands beside a vision part; None for all others."""
    try:
        kind = load_json((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None  # whoever reads the folder says what is wrong with it
    return kind if isinstance(kind, str) and kind in TOWERS else None


def language_model(folder: Path, *, key: str, precision: str, reporter: Reporter = SILENT) -> Path:
    """Write the language model of a checkpoint with a vision part to the cache, or find it there.

    Args:
        folder: folder of the checkpoint, of a type in :data:`TOWERS`.
        key: hash of its content.
        precision: precision of its weights, for the record.
        reporter: told that the vision part is dropped.

    Returns:
        A folder that the stock text class loads.

    Raises:
        AssetError: the checkpoint lacks tensors of its language model, or its config is none of that type.
    """
    kind = str(tower_type(folder))
    target = environment.home() / "parents" / f"{folder.name}-{key[:16]}-{EXTRACTOR}"
    reporter.note(
        f"{folder.name} is of type {kind}: its language model alone is used (type {TOWERS[kind]}); the vision part is "
        "dropped, so the result reads no images."
    )
    if damage(target) is None:
        return target
    with hold(target.with_name(f".{target.name}.lock"), f"The extraction {target}", timeout=CONVERTING_SECONDS):
        if (reason := damage(target)) is not None:
            sweep(target)
            if (target / SUMS).exists():
                reporter.note(aside_note(target, reason, set_aside(target)))
            with (
                reporter.stage(f"Taking the language model out of {folder.name} (once)"),
                atomic_path(target) as temporary,
            ):
                temporary.mkdir(parents=True, exist_ok=True)
                _save(folder, temporary, kind)
                record = {"file": folder.name, "sha256": key, "converter": EXTRACTOR, "precision": precision}
                write_json(temporary / RECORD, record)
                seal(temporary, key=key)
    return target


def _save(folder: Path, target: Path, kind: str) -> None:
    """Write config, tensors and tokenizer of the language model."""
    text_config(folder, kind).save_pretrained(target)
    names: dict[str, str] = {}
    shards = sorted(folder.glob("*.safetensors"))
    for shard in shards:
        if tensors := dict(text_tensors(shard)):
            _write(tensors, target / shard.name)
            names |= dict.fromkeys(tensors, shard.name)
    if "model.embed_tokens.weight" not in names:
        raise AssetError(f"{folder} holds no language model: it lacks model.embed_tokens.weight. Fetch it again.")
    if set(names.values()) != {"model.safetensors"}:
        write_json(target / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name not in _OTHERS and path.name != RECORD:
            shutil.copyfile(path, target / path.name)
    if (folder / TEMPLATES).is_dir():
        shutil.copytree(folder / TEMPLATES, target / TEMPLATES)


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one file of tensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def text_tensors(shard: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the language model in a file, under the names of the text class."""
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            if not _VISION.match(name):
                rest = _LANGUAGE.sub("", name)
                plain = rest == name or rest.startswith("lm_head.")
                yield rest if plain else f"model.{rest}", file.get_tensor(name)


def text_config(folder: Path, kind: str) -> Any:
    """Return the config of the language model as one of its stock text class.

    Raises:
        AssetError: config.json cannot be read as the type that it names.
    """
    from transformers import AutoConfig

    try:
        whole = AutoConfig.from_pretrained(folder, local_files_only=True)
        fields = whole.get_text_config().to_dict()
    except Exception as error:  # transformers refuses odd configs with exceptions of every kind
        raise AssetError(f"Cannot read the config in {folder}: {first_line(error)}.") from error
    fields = {name: value for name, value in fields.items() if name not in _OWN}
    if isinstance(rope := fields.get("rope_parameters"), dict):
        rope = {name: value for name, value in rope.items() if name not in _DIRECTIONS}
        # Older files call positions in three directions a kind of scaling.
        kinds = {name: "default" for name in ("rope_type", "type") if rope.get(name) == "mrope"}
        fields["rope_parameters"] = rope | kinds
    fields["tie_word_embeddings"] = bool(whole.tie_word_embeddings)
    return AutoConfig.for_model(TOWERS[kind], **fields)
