"""A model with conditional layers in a folder of its own: config, tokenizer and weights, and no code.

The weights that are not of conditional layers stand in `backbone.safetensors`, a name that stock classes do not look
for: they would fill the layers that are not there with random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.assets.parents import is_conditional, model_folder
from minigpt.assets.quiet import quiet_transformers
from minigpt.conditional import store
from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.swap import ffn_layers, ffn_paths, is_encoder, put
from minigpt.errors import AssetError, first_line
from minigpt.files import path_of
from minigpt.integrity import check_model

BACKBONE = "backbone.safetensors"


def layers_in(model: Any) -> dict[int, ConditionalFFN]:
    """Return the conditional layers of a model by number."""
    path = ffn_paths(model).replaced
    modules = {index: layer.get_submodule(path) for index, layer in enumerate(ffn_layers(model))}
    return {index: module for index, module in modules.items() if isinstance(module, ConditionalFFN)}


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path | str,
    *,
    visited_shares: Mapping[int, float] | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a model with conditional layers and its tokenizer, in the types that its weights have.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        folder: the folder; it is replaced.
        visited_shares: measured shares of visited neurons by layer.
        notes: what else is to be known about the layers.
    """
    from safetensors.torch import save_file

    layers, folder = layers_in(model), path_of(folder)
    store.save(folder, layers, visited_shares=visited_shares, notes=notes)
    inside = {id(value) for layer in layers.values() for value in layer.parameters()}
    # Names of tied weights lead to one tensor, of which one name is enough: the config ties the others.
    rest = {name: value for name, value in model.named_parameters() if id(value) not in inside}
    weights = {name: value.detach().cpu().contiguous() for name, value in rest.items()}
    save_file(weights, folder / BACKBONE, metadata={"format": "pt"})
    if is_encoder(model.config):
        model.config.architectures = [type(model).__name__]
    with quiet_transformers():
        model.config.save_pretrained(folder)
        if (generation := getattr(model, "generation_config", None)) is not None:
            generation.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load_model(path: Path | str, *, dtype: Any = None, device: str | torch.device = "cpu") -> Any:
    """Load a model in evaluation mode: a folder with conditional layers, or any that `assets.load_model` reads.

    Args:
        path: a folder of a model, of a build, or with conditional layers.
        dtype: precision to compute in; None for that of the weights.
        device: device to put the model on.

    Raises:
        MiniGPTError: the folder is missing, incomplete, unreadable or contradicts itself.
    """
    if not is_conditional(path):
        return assets.load_model(path, dtype=dtype, device=device)
    folder = model_folder(path)
    check_model(folder)
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    layers = store.load(folder, device=device, dtype=kind)
    model, missing = _backbone(folder, kind)
    paths = ffn_paths(model)
    places = tuple(f".{index}.{path}." for index in layers for path in (paths.replaced, *paths.bypassed))
    if lost := sorted(name for name in missing if not any(place in name for place in places)):
        raise AssetError(f"{folder} is incomplete: its weights lack {', '.join(lost[:3])}. Build it again.")
    put(model, layers)
    return model.to(device).eval()


def _backbone(folder: Path, dtype: torch.dtype | None) -> tuple[Any, list[str]]:
    """Return the model without its conditional layers, and the names of the weights that the folder lacks."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoConfig, GenerationConfig

    try:
        weights = load_file(folder / BACKBONE)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if not weights:
            raise ValueError(f"{BACKBONE} holds no weights")
        kind = dtype or next(iter(weights.values())).dtype
        loader = _stock_class(config)
        with quiet_transformers():
            model, info = loader.from_pretrained(
                None, config=config, state_dict=weights, dtype=kind, output_loading_info=True
            )
            if (folder / "generation_config.json").exists():
                model.generation_config = GenerationConfig.from_pretrained(folder)
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise AssetError(f"Cannot load the model in {folder}: {first_line(error)}") from error
    return model, list(info["missing_keys"])


def _stock_class(config: Any) -> Any:
    """Return the stock class of a folder's model; an encoder's folder names the one that it was saved from.

    Raises:
        ValueError: transformers has no such class.
    """
    import transformers

    if not is_encoder(config):
        return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    name = str(next(iter(config.architectures or ()), ""))
    stock = getattr(transformers, name, None)
    if not (isinstance(stock, type) and issubclass(stock, transformers.PreTrainedModel)):
        raise ValueError(f"transformers has no class {name!r}")
    return stock
