"""Weight norms of every unit of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigpt.methods.scores import WeightNorms
from minigpt.transformer.arch import arch_of, decoder_layers, head_dim, heads_per_group, shape_of
from minigpt.transformer.fused import separate_projections

if TYPE_CHECKING:
    from torch import Tensor


def weight_norms(model: Any) -> WeightNorms:
    """Compute the norms of every unit's weights, layer by layer, without copying the model."""
    import torch

    spec, shape = arch_of(model), shape_of(model)
    if spec.state is not None:
        return _norms_of_neurons(model)
    head, ratio = head_dim(model.config), heads_per_group(model.config)
    rows, down, output, group, down_abs, output_abs = [], [], [], [], [], []
    with separate_projections(model), torch.no_grad():
        for layer in decoder_layers(model):

            def squares(path: str, dim: int, layer: Any = layer) -> Tensor:
                norm: Tensor = layer.get_submodule(path).weight.float().pow(2).sum(dim).cpu()
                return norm

            def magnitudes(path: str, layer: Any = layer) -> Tensor:
                norm: Tensor = layer.get_submodule(path).weight.float().abs().sum(0).cpu()
                return norm

            whole = spec.experts is not None  # neurons inside of experts stay: nothing is known of them
            zeros = torch.zeros(shape.intermediate_size)
            rows.append(zeros if whole else torch.stack([squares(path, 1) for path in spec.ffn_rows]).sum(0))
            down.append(zeros if whole else squares(spec.ffn_columns, 0))
            output.append(squares(spec.output, 0))
            down_abs.append(zeros if whole else magnitudes(spec.ffn_columns))
            output_abs.append(magnitudes(spec.output))
            owned = squares(spec.query, 1).view(shape.kv_groups, ratio * head).sum(1)
            owned = owned + output[-1].view(shape.kv_groups, ratio * head).sum(1)
            for path in spec.key_value:
                owned = owned + squares(path, 1).view(shape.kv_groups, head).sum(1)
            group.append(owned)
    return WeightNorms(
        rows=torch.stack(rows),
        down=torch.stack(down),
        output=torch.stack(output),
        group=torch.stack(group),
        down_abs=torch.stack(down_abs),
        output_abs=torch.stack(output_abs),
    )


def _norms_of_neurons(model: Any) -> WeightNorms:
    """Compute the norms of neurons alone, in families whose layers carry a state; nothing else of a layer is cut."""
    import torch

    spec, shape = arch_of(model), shape_of(model)
    rows, down, down_abs = (torch.zeros(shape.layers, shape.intermediate_size) for _ in range(3))
    with torch.no_grad():
        for index, layer in enumerate(decoder_layers(model) if spec.ffn_columns else ()):
            columns = layer.get_parameter(f"{spec.ffn_columns}.weight").float()
            for path in spec.ffn_rows:
                rows[index] += layer.get_parameter(f"{path}.weight").float().pow(2).sum(1).cpu()
            down[index], down_abs[index] = columns.pow(2).sum(0).cpu(), columns.abs().sum(0).cpu()
    output, group, output_abs = (torch.zeros(shape.layers, shape.kv_groups) for _ in range(3))
    return WeightNorms(rows=rows, down=down, output=output, group=group, down_abs=down_abs, output_abs=output_abs)
