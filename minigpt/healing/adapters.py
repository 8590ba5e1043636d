"""Training of all weights or of LoRA adapters, which are merged into the weights afterwards.

With "qlora" the adapters sit on frozen 4-bit weights (QLoRA, Dettmers et al. 2023). The result is the dense model that
was trained and measured: the dequantized 4-bit weights plus the product of the adapters. The weights from before the
quantization do not come back, because the adapters were fitted to make up for its error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError
from minigpt.healing.recipe import FFN, Recipe
from minigpt.machine import has_fast_bf16
from minigpt.transformer import nf4
from minigpt.transformer.arch import arch_of, bare_matrices
from minigpt.transformer.experts import router_parameters


@contextmanager
def trainable(model: Any, recipe: Recipe, *, saves_memory: bool = False) -> Iterator[Any]:
    """Yield `model` ready for training, with adapters where the recipe asks for them.

    After the block `model` is a plain model again, in evaluation mode, and all of its weights can be trained. Adapters
    are merged into the weights if the block succeeds and thrown away if it fails. Their initial values are drawn from
    torch's global random generator.

    Args:
        model: a causal language model; its weights become fp32 in place.
        recipe: says whether all weights are trained or adapters, and of which shape.
        saves_memory: recompute activations in the backward pass, and leave weights that adapters freeze as they are.

    Raises:
        ConfigError: the recipe needs 4-bit weights and bitsandbytes is not installed.
    """
    if recipe.adapter == "full" or not saves_memory:
        model.float()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    with _checkpointed(model) if saves_memory else nullcontext(), _trainable(model, recipe) as trained:
        yield trained


@contextmanager
def _checkpointed(model: Any) -> Iterator[None]:
    """Let the layers of a model recompute their activations in the backward pass inside the block."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


@contextmanager
def _trainable(model: Any, recipe: Recipe) -> Iterator[Any]:
    """Do what :func:`trainable` does, to a model whose precision is that of the training."""
    if recipe.adapter == "full":
        routers = router_parameters(model) if recipe.router == "frozen" else []
        try:
            for parameter in routers:
                parameter.requires_grad_(False)
            yield model
        finally:
            for parameter in routers:
                parameter.requires_grad_(True)
            model.eval()
        return
    with _four_bit_base(model, recipe) as dense_layers:
        adapted = _with_adapters(model, recipe)
        merged = False
        try:
            yield adapted
            if dense_layers:
                deltas = _adapter_deltas(adapted)
                adapted.unload()
                nf4.dequantize_layers(model, dense_layers, deltas)
                dense_layers.clear()
            else:
                adapted.merge_and_unload()
            merged = True
        finally:
            if not merged:
                adapted.unload()
            _remove_peft_attributes(model)
    _require_gradients(model)


@contextmanager
def _four_bit_base(model: Any, recipe: Recipe) -> Iterator[dict[str, nn.Linear]]:
    """Hold the projections in 4 bits for "qlora" and yield the dense layers that they replace, by name.

    The dense layers come back after the block, unless the caller empties the dictionary.
    """
    if recipe.adapter != "qlora":
        yield {}
        return
    device = next(model.parameters()).device
    use_bf16 = has_fast_bf16(device) if recipe.precision == "auto" else recipe.precision == "bf16"
    dense_layers = nf4.quantize_projections(model, torch.bfloat16 if use_bf16 else torch.float32)
    model.is_loaded_in_4bit = True  # peft chooses its 4-bit layers by this attribute
    try:
        yield dense_layers
    finally:
        del model.is_loaded_in_4bit
        nf4.restore_layers(model, dense_layers, device)
        _require_gradients(model)


def _adapter_deltas(adapted: Any) -> dict[str, Tensor]:
    """Return the product that each adapter adds to its weight, by the name of the adapted module."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {
        name: module for name, module in adapted.get_base_model().named_modules() if isinstance(module, LoraLayer)
    }
    return {name: layer.get_delta_weight(layer.active_adapters[0]).detach() for name, layer in layers.items()}


def _with_adapters(model: Any, recipe: Recipe) -> Any:
    """Wrap the model in peft's LoRA adapters as the recipe describes them.

    Raises:
        ConfigError: the recipe's targets name no layer.
    """
    from peft import LoraConfig, get_peft_model

    alpha: Any = recipe.rank if recipe.alpha is None else recipe.alpha
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha,
        lora_dropout=recipe.dropout,
        target_modules=_target_modules(model, recipe.targets),
        exclude_modules=list(bare_matrices(model.config, training=True)) or None,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:  # no module of the model has such a name
        raise ConfigError(
            f"The targets {recipe.targets!r} of a training recipe name no layer of this model; take 'all-linear', "
            f"'{FFN}', or a part of a layer's name such as 'q_proj'."
        ) from error


def check_adapter(model: Any, recipe: Recipe) -> None:
    """Refuse adapters that this model cannot have, before anything is trained.

    Args:
        model: the model; an outline without weights is enough.
        recipe: the settings of the training.

    Raises:
        ConfigError: the library of 4-bit weights is missing, there is no layer that it can hold, or the family has no
            such targets.
    """
    if recipe.adapter == "full" or not recipe.steps:
        return
    _target_modules(model, recipe.targets)
    if recipe.adapter == "qlora":
        nf4.library()
        nf4.check_projections(model)


def _target_modules(model: Any, targets: str) -> str | list[str]:
    """Return the adapted modules as peft takes them; "ffn" becomes the family's FFN projections.

    Raises:
        ConfigError: the family has no such projections.
    """
    if targets != FFN:
        return targets
    spec = arch_of(model)
    if spec.experts is not None or not spec.ffn_columns:
        raise ConfigError(
            f"A training recipe has adapters on the projections of one FFN in each layer, and layers of {spec.name} "
            "have no such FFN; set heal.targets=all-linear (tune.targets for the tuned parent)."
        )
    stored = dict.fromkeys(spec.stored(path) for path in (*spec.ffn_rows, spec.ffn_columns))
    return [path.rpartition(".")[2] for path in stored]


def _remove_peft_attributes(model: Any) -> None:
    """Remove the attributes that peft adds to a model, so that transformers saves it as a plain model."""
    for name in ("peft_config", "_hf_peft_config_loaded"):
        if name in vars(model):
            delattr(model, name)
    model.eval()


def _require_gradients(model: Any) -> None:
    """Let every floating-point weight of the model be trained again."""
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
