"""What is trained: all weights, or LoRA adapters that leave no trace once they are merged.

With "qlora" the adapters sit on a frozen 4-bit model. What is handed back is the dense model that was trained and
measured: dequantized 4-bit weights plus the adapters' product. The weights from before the quantization do not come
back, since the adapters were fitted to make up for what it took.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.healing.recipe import FFN, Recipe
from minigpt.machine import has_fast_bf16
from minigpt.transformer import nf4
from minigpt.transformer.arch import arch_of


@contextmanager
def trainable(model: Any, recipe: Recipe) -> Iterator[Any]:
    """Yield the model to train; afterwards `model` is a plain model again, in evaluation mode, all weights free.

    Adapters are merged into the weights if the block succeeds and thrown away if it fails. Their initial values come
    from torch's random generator.

    Raises:
        ConfigError: the recipe wants 4-bit weights and bitsandbytes is not installed.
    """
    model.float()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if recipe.adapter == "full":
        try:
            yield model
        finally:
            model.eval()
        return
    with _four_bit_base(model, recipe) as originals:
        adapted = _with_adapters(model, recipe)
        merged = False
        try:
            yield adapted
            if originals:
                deltas = _deltas(adapted)
                adapted.unload()
                nf4.dense_again(model, originals, deltas)
                originals.clear()
            else:
                adapted.merge_and_unload()
            merged = True
        finally:
            if not merged:
                adapted.unload()
            _forget_peft(model)
    _all_free(model)


@contextmanager
def _four_bit_base(model: Any, recipe: Recipe) -> Iterator[dict[str, nn.Linear]]:
    """For "qlora" the projections in 4 bits; the dense ones come back unless the caller empties the yielded dict."""
    if recipe.adapter != "qlora":
        yield {}
        return
    device = next(model.parameters()).device
    wanted = has_fast_bf16(device) if recipe.precision == "auto" else recipe.precision == "bf16"
    originals = nf4.quantize_projections(model, torch.bfloat16 if wanted else torch.float32)
    model.is_loaded_in_4bit = True
    try:
        yield originals
    finally:
        del model.is_loaded_in_4bit
        nf4.put_back(model, originals, device)
        _all_free(model)


def _deltas(adapted: Any) -> dict[str, Tensor]:
    """What each adapter adds to its weights, by the name of the module below it."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {
        name: module for name, module in adapted.get_base_model().named_modules() if isinstance(module, LoraLayer)
    }
    return {name: layer.get_delta_weight(layer.active_adapters[0]).detach() for name, layer in layers.items()}


def _with_adapters(model: Any, recipe: Recipe) -> Any:
    from peft import LoraConfig, get_peft_model

    alpha: Any = recipe.rank if recipe.alpha is None else recipe.alpha
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha,
        lora_dropout=recipe.dropout,
        target_modules=_targets(model, recipe.targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _targets(model: Any, targets: str) -> str | list[str]:
    """The modules as peft takes them; "ffn" are the projections of the family's FFN."""
    if targets != FFN:
        return targets
    spec = arch_of(model)
    return [path.rpartition(".")[2] for path in (*spec.ffn_rows, spec.ffn_columns)]


def _forget_peft(model: Any) -> None:
    """Take off what peft hangs on a model, so that transformers saves it as the plain model it is."""
    for name in ("peft_config", "_hf_peft_config_loaded"):
        if name in vars(model):
            delattr(model, name)
    model.eval()


def _all_free(model: Any) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
