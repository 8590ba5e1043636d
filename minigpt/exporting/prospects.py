"""Prospects of an export by the model's config alone: what is refused, and how int4 is rounded, before any work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minigpt.errors import ConfigError
from minigpt.exporting.formats import BLOCK, format_of, rounding_of
from minigpt.exporting.request import ExportRequest
from minigpt.lazy import resolve
from minigpt.transformer.arch import arch_of, ffn_width, has_state, head_dim, refuse_state


def settled(request: ExportRequest, *, proved: bool = True) -> ExportRequest:
    """Settle how the weights are rounded, and refuse a model that its format cannot hold.

    Args:
        request: the request, with its precision.
        proved: whether the export is to be proved, so that something here has to read it.

    Raises:
        ConfigError: the format cannot be rounded that way in this precision.
        ExportError: the format cannot hold the model.
        AssetError: nothing here reads what would be written.
        UnsupportedModel: the model cannot be rounded as the request says.
    """
    # transformers takes seconds to import; a request that is refused should not wait for it.
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(request.source.path, local_files_only=True)
    row, _ = format_of(request.format, request.precision)
    if row.check and proved:
        resolve(row.check)(request, config)
    return replace(request, rounding=settled_rounding(request, config))


def settled_rounding(request: ExportRequest, config: Any) -> str | None:
    """Return how the weights of a model are rounded; where nothing can be compensated, to the nearest code.

    Raises:
        ConfigError: the format cannot be rounded that way in this precision.
        UnsupportedModel: the request names compensation, and no matrix of the model can be compensated.
    """
    rounding = rounding_of(request.format, str(request.precision), request.rounding)
    if rounding != "compensated" or compensates(config):
        return rounding
    if request.rounding is not None:
        advice = f"leave --rounding {request.rounding} out, and int4 is rounded to the nearest code"
        refuse_state(config, "Rounding with error compensation", advice=advice)
        raise ConfigError(
            f"No matrix of this {config.model_type} model has rows of whole blocks of {BLOCK} weights, so none can be "
            f"rounded with error compensation; {advice}."
        )
    return "nearest"


def compensates(config: Any) -> bool:
    """Return whether matrices of a model can be rounded with error compensation.

    Layers with a state are not calibrated, and rows must be a whole number of blocks.
    """
    if has_state(config):
        return False
    neurons = () if arch_of(config).experts is not None else (ffn_width(config),)
    rows = (config.hidden_size, config.num_attention_heads * head_dim(config), *neurons)
    return any(length % BLOCK == 0 for length in rows)
