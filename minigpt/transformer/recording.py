"""Recording of what a decoder layer does to calibration text: hooks that add up sums of its units.

Sums are held in fp32 on the model's device. Layers can be recorded together, batch by batch, or one after the other,
each on all batches: the sums of a layer add up in the order of the batches either way, so they are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from math import pi
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.transformer.arch import arch_of
from minigpt.transformer.experts import expert_hook
from minigpt.transformer.families import ArchSpec


class Sums:
    """Sums over one batch, the rows of it that are text, and the sums over all batches so far.

    Args:
        layers: number of decoder layers.
    """

    def __init__(self, layers: int) -> None:
        self.values: dict[tuple[str, int], Tensor] = {}
        self.totals: dict[tuple[str, int], Tensor] = {}
        self.layers = layers
        self.rows: Tensor | None = None
        self.last = torch.empty(0, dtype=torch.long)
        self.states: list[Tensor] = []
        self.exact: Tensor | None = None
        self.counts = (0, 0)

    def start(self, segment_ids: Tensor) -> None:
        """Start a batch: look at it and count its text."""
        self.look_at(segment_ids)
        self.counts = (int((segment_ids != 0).sum()), len(self.last))

    def look_at(self, segment_ids: Tensor) -> None:
        """Note which positions of a batch are text and which end a piece of a document."""
        text = segment_ids != 0
        following = torch.nn.functional.pad(segment_ids[:, 1:], (0, 1))
        self.rows = None if bool(text.all()) else text.flatten().nonzero().squeeze(1)
        self.last = (text & (segment_ids != following)).flatten().nonzero().squeeze(1)
        self.states, self.values = [], {}

    def pick(self, states: Tensor) -> Tensor:
        """Return the text rows [n, features] of an activation [batch, length, features], in fp32."""
        flat = states.detach().reshape(-1, states.shape[-1])
        return (flat if self.rows is None else flat.index_select(0, self.rows)).float()

    def add(self, name: str, layer: int, value: Tensor) -> None:
        """Add a value to the sum of this name and layer."""
        key = (name, layer)
        self.values[key] = self.values[key] + value if key in self.values else value

    def finish(self) -> tuple[Tensor, Tensor]:
        """Finish a batch: return all of its sums in fp32, and its angular distances and counts in fp64."""
        return torch.cat([value.flatten() for value in self.values.values()]), self.angles()

    def angles(self) -> Tensor:
        """Return the sums of a batch's angular distances between the states at the ends of pieces, and its counts.

        The arithmetic is in fp64 where the device has it, because near a cosine of 1 the arc cosine turns a rounding
        error of 1e-7 into an angle of 3e-4.
        """
        precise = torch.float32 if self.last.device.type == "mps" else torch.float64
        states = torch.nn.functional.normalize(torch.stack(self.states).to(precise), dim=-1)
        cosine = torch.einsum("lsh,msh->slm", states, states).clamp(-1, 1)
        angular = (torch.arccos(cosine) / pi).sum(0)
        return torch.cat([angular.flatten(), torch.tensor(self.counts, dtype=precise, device=angular.device)])

    def add_batch(self, sums: Tensor, exact: Tensor) -> None:
        """Add what :meth:`finish` returned for a batch, of this process or another, to the sums over all batches."""
        parts = torch.split(sums, [value.numel() for value in self.values.values()])
        self.keep({key: part.view(self.values[key].shape) for key, part in zip(self.values, parts, strict=True)})
        self.add_angles(exact)

    def keep(self, values: Mapping[tuple[str, int], Tensor]) -> None:
        """Add the sums of one batch to those over all batches."""
        for key, value in values.items():
            self.totals[key] = self.totals[key] + value if key in self.totals else value

    def add_angles(self, exact: Tensor) -> None:
        """Add what :meth:`angles` returned for a batch to the sums over all batches."""
        self.exact = exact if self.exact is None else self.exact + exact

    def close(self) -> Tensor | None:
        """Put the counts of all batches in place of those of the last one, and return the angular distances.

        Returns:
            Sums of distances, [layers + 1, layers + 1]; None if there was no batch.
        """
        if self.exact is None:
            return None
        tokens, segments = self.exact[-2:].tolist()
        self.counts = (int(tokens), int(segments))
        return self.exact[:-2].view(self.layers + 1, self.layers + 1)

    def stacked(self, name: str) -> Tensor:
        """Return the means over tokens of a sum, one row a layer, on the CPU."""
        return torch.stack([self.totals[name, layer] for layer in range(self.layers)]).cpu() / self.counts[0]


def _ffn_hooks(spec: ArchSpec, layer: nn.Module, sums: Sums, index: int) -> list[Any]:
    """Register the hooks of a layer's FFN; where its activation is no module, SiLU of the gate is added up."""
    activation = None if spec.ffn_activation else torch.nn.functional.silu
    places: tuple[tuple[str, str, Callable[[Tensor], Tensor] | None], ...] = (
        ("gate_abs", spec.ffn_rows[0], None),
        ("up_abs", spec.ffn_rows[-1], None),
        ("act_abs", spec.ffn_activation or spec.ffn_rows[0], activation),
    )
    hooks = [
        layer.get_submodule(path).register_forward_hook(_projection_hook(sums, name, index, function))
        for name, path, function in places
    ]
    return [*hooks, layer.get_submodule(spec.ffn_columns).register_forward_pre_hook(_down_hook(sums, index))]


def _projection_hook(
    sums: Sums, name: str, layer: int, function: Callable[[Tensor], Tensor] | None = None
) -> Callable[..., None]:
    """Return a forward hook that adds up the absolute outputs of a module, or of a function of them."""

    def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
        values = sums.pick(output)
        sums.add(name, layer, (values if function is None else function(values)).abs().sum(0))

    return hook


def _down_hook(sums: Sums, layer: int) -> Callable[..., None]:
    """Return a pre-hook that adds up the inputs of the down projection: x, |x| and x^2."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = sums.pick(args[0])
        sums.add("ffn_mean", layer, values.sum(0))
        sums.add("ffn_abs", layer, values.abs().sum(0))
        sums.add("ffn_sq", layer, values.square().sum(0))

    return hook


def _output_hook(sums: Sums, layer: int) -> Callable[..., None]:
    """Return a pre-hook that adds up the inputs of attention's output projection: x, |x| and x^2."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = sums.pick(args[0])
        sums.add("column_mean", layer, values.sum(0))
        sums.add("column_abs", layer, values.abs().sum(0))
        sums.add("column_sq", layer, values.square().sum(0))

    return hook


def _layer_hook(sums: Sums, layer: int) -> Callable[..., None]:
    """Return a forward hook that adds up the Block Influence of a layer and keeps the states at the ends of pieces."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        cosine = torch.nn.functional.cosine_similarity(sums.pick(before), sums.pick(after), dim=-1)
        sums.add("layer_cos", layer, (1 - cosine).sum())
        states = [before] if layer + 1 < sums.layers else [before, after]
        sums.states += [state.detach().reshape(-1, state.shape[-1]).index_select(0, sums.last) for state in states]

    return hook


def _add_to(sums: Sums, layer: int, name: str, value: Tensor) -> None:
    """Add a value to the sum of this layer and name."""
    sums.add(name, layer, value)


@contextmanager
def recording(model: Any, layers: Mapping[int, nn.Module], sums: Sums) -> Iterator[None]:
    """Hold hooks on decoder layers for the length of the block.

    Args:
        model: the model.
        layers: the layers to record, by their place in the model.
        sums: receives what they do.
    """
    spec = arch_of(model)
    with ExitStack() as stack:
        for index, layer in layers.items():
            if spec.experts is not None:
                handles = [expert_hook(model, layer, sums.pick, partial(_add_to, sums, index))]
            else:
                handles = _ffn_hooks(spec, layer, sums, index) if spec.ffn_columns else []
            if spec.state is None:
                handles.append(layer.get_submodule(spec.output).register_forward_pre_hook(_output_hook(sums, index)))
            handles.append(layer.register_forward_hook(_layer_hook(sums, index), with_kwargs=True))
            for handle in handles:
                stack.callback(handle.remove)
        yield
