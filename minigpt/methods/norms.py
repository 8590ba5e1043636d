"""Weight norms of every unit of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minigpt.methods.scores import WeightNorms
from minigpt.transformer.arch import arch_of, decoder_layers, head_dim, heads_per_group, shape_of
from minigpt.transformer.fused import separate_projections

if TYPE_CHECKING:
    from torch import Tensor


def weight_norms(model: Any) -> WeightNorms:
    """Compute the norms of every unit's weights, layer by layer, without copying the model."""
    return stacked([layer_norms(model, layer) for layer in decoder_layers(model)])


def layer_norms(model: Any, layer: Any) -> dict[str, Tensor]:
    """Compute the norms of the units of one layer: a row of each field of :class:`WeightNorms`.

    Args:
        model: the model, for its family and widths.
        layer: one of its decoder layers.
    """
    import torch

    spec, shape = arch_of(model), shape_of(model)
    if spec.state is not None:
        return _norms_of_neurons(model, layer)
    head, ratio = head_dim(model.config), heads_per_group(model.config)

    def squares(path: str, dim: int) -> Tensor:
        norm: Tensor = layer.get_submodule(path).weight.float().pow(2).sum(dim).cpu()
        return norm

    def magnitudes(path: str) -> Tensor:
        norm: Tensor = layer.get_submodule(path).weight.float().abs().sum(0).cpu()
        return norm

    with separate_projections(model, (layer,)), torch.no_grad():
        whole = spec.experts is not None  # neurons inside of experts stay: nothing is known of them
        zeros = torch.zeros(shape.intermediate_size)
        output = squares(spec.output, 0)
        owned = squares(spec.query, 1).view(shape.kv_groups, ratio * head).sum(1)
        owned = owned + output.view(shape.kv_groups, ratio * head).sum(1)
        for path in spec.key_value:
            owned = owned + squares(path, 1).view(shape.kv_groups, head).sum(1)
        return {
            "rows": zeros if whole else torch.stack([squares(path, 1) for path in spec.ffn_rows]).sum(0),
            "down": zeros if whole else squares(spec.ffn_columns, 0),
            "output": output,
            "group": owned,
            "down_abs": zeros if whole else magnitudes(spec.ffn_columns),
            "output_abs": magnitudes(spec.output),
        }


def stacked(rows: Sequence[Mapping[str, Tensor]]) -> WeightNorms:
    """Put the norms of all layers, of :func:`layer_norms`, into one record."""
    import torch

    return WeightNorms(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})


def _norms_of_neurons(model: Any, layer: Any) -> dict[str, Tensor]:
    """Compute the norms of neurons alone, in families whose layers carry a state; nothing else of a layer is cut."""
    import torch

    spec, shape = arch_of(model), shape_of(model)
    rows, down, down_abs = (torch.zeros(shape.intermediate_size) for _ in range(3))
    if spec.ffn_columns:
        with torch.no_grad():
            columns = layer.get_parameter(f"{spec.ffn_columns}.weight").float()
            for path in spec.ffn_rows:
                rows += layer.get_parameter(f"{path}.weight").float().pow(2).sum(1).cpu()
            down, down_abs = columns.pow(2).sum(0).cpu(), columns.abs().sum(0).cpu()
    output, group, output_abs = (torch.zeros(shape.kv_groups) for _ in range(3))
    return {
        "rows": rows, "down": down, "output": output, "group": group, "down_abs": down_abs, "output_abs": output_abs
    }  # fmt: skip
