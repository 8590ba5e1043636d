"""Activation statistics of neurons, KV groups and layers, collected in one pass over calibration text.

Forward hooks add up sums in fp32 on the model's device and hold at most one batch of activations. Padding is excluded,
and documents of a window do not see each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from math import pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import CorpusError, MiniGPTError
from minigpt.files import atomic_path
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import arch_of, decoder_layers, shape_of
from minigpt.transformer.batches import Batch, block_mask, run_decoder, take_tokens, to_batches
from minigpt.transformer.experts import expert_hook
from minigpt.transformer.fused import separate_projections
from minigpt.transformer.portions import in_smaller_batches
from minigpt.types import Shape

__all__ = [
    "ActivationStats",
    "Batch",
    "block_mask",
    "collect",
    "load",
    "save",
    "take_tokens",
    "to_batches",
    "token_counts",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStats:
    """Means over the text tokens of the calibration set, as fp32 tensors on the CPU.

    Shapes are given with L layers, I neurons, G KV groups, E experts and A = heads x head size. The input of the down
    projection is the activation of the neurons, and the input of the output projection (o) that of the heads. Where
    layers have experts, neurons stay, and everything about them is zero.

    Attributes:
        tokens: number of text tokens.
        segments: number of pieces of documents.
        gate_abs: [L, I], mean |output| of the gate projection; without a gate, the same as `up_abs`.
        up_abs: [L, I], mean |output| of the up projection.
        act_abs: [L, I], mean |output| of the activation function.
        ffn_abs: [L, I], mean |x| of the input of down.
        ffn_sq: [L, I], mean x^2 of the input of down.
        ffn_mean: [L, I], mean x of the input of down.
        head_abs: [L, G], mean |x| of a group's input of o, over its heads and their features.
        head_sq: [L, G], mean x^2 of a group's input of o, over its heads and their features.
        column_sq: [L, A], mean x^2 of the input of each column of o.
        column_mean: [L, A], mean x of the input of each column of o.
        layer_cos: [L], Block Influence, 1 - E[cos(layer input, layer output)] (ShortGPT, eq. 1).
        angular: [L + 1, L + 1], mean angular distance arccos(cos) / pi between the inputs of layers l and m at the last
            token of each piece (Gromov et al. 2024); index L is the state after the last layer, before the final norm.
        expert_share: [L, E], share of the tokens that go to an expert; E is 0 where there are none.
        expert_gated: [L, E], mean of router weight x norm of the expert's output over the tokens that go to it, REAP's
            saliency (Lasby et al. 2025, arXiv 2510.13999); 0 where no token does.
        expert_loss: [L, E], mean over all tokens of the squared change of the experts' joint output if the expert is
            removed and its tokens go to the next best one (the reconstruction loss of Lu et al. 2024, arXiv
            2402.14800, for one expert).
    """

    tokens: int
    segments: int
    gate_abs: Tensor
    up_abs: Tensor
    act_abs: Tensor
    ffn_abs: Tensor
    ffn_sq: Tensor
    ffn_mean: Tensor
    head_abs: Tensor
    head_sq: Tensor
    column_sq: Tensor
    column_mean: Tensor
    layer_cos: Tensor
    angular: Tensor
    expert_share: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    expert_gated: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    expert_loss: Tensor = field(default_factory=lambda: torch.zeros(0, 0))


class _Sums:
    """Running sums of one pass, and the rows of the current batch that are text.

    Args:
        layers: number of decoder layers.
    """

    def __init__(self, layers: int) -> None:
        self.values: dict[tuple[str, int], Tensor] = {}
        self.layers = layers
        self.rows: Tensor | None = None
        self.last = torch.empty(0, dtype=torch.long)
        self.states: list[Tensor] = []
        self.angular: Tensor | None = None
        self.tokens = self.segments = 0

    def start(self, segment_ids: Tensor) -> None:
        """Start a batch: note which positions are text and which end a piece of a document."""
        text = segment_ids != 0
        following = torch.nn.functional.pad(segment_ids[:, 1:], (0, 1))
        self.rows = None if bool(text.all()) else text.flatten().nonzero().squeeze(1)
        self.last = (text & (segment_ids != following)).flatten().nonzero().squeeze(1)
        self.tokens += int(text.sum())
        self.segments += len(self.last)
        self.states = []

    def pick(self, states: Tensor) -> Tensor:
        """Return the text rows [n, features] of an activation [batch, length, features], in fp32."""
        flat = states.detach().reshape(-1, states.shape[-1])
        return (flat if self.rows is None else flat.index_select(0, self.rows)).float()

    def add(self, name: str, layer: int, value: Tensor) -> None:
        """Add a value to the sum of this name and layer."""
        key = (name, layer)
        self.values[key] = self.values[key] + value if key in self.values else value

    def stacked(self, name: str) -> Tensor:
        """Return the means over tokens of a sum, one row a layer, on the CPU."""
        return torch.stack([self.values[name, layer] for layer in range(self.layers)]).cpu() / self.tokens

    def finish(self) -> None:
        """Finish a batch: add up the angular distances between the states at the ends of pieces.

        The arithmetic is in fp64 where the device has it, because near a cosine of 1 the arc cosine turns a rounding
        error of 1e-7 into an angle of 3e-4.
        """
        exact = torch.float32 if self.last.device.type == "mps" else torch.float64
        states = torch.nn.functional.normalize(torch.stack(self.states).to(exact), dim=-1)
        cosine = torch.einsum("lsh,msh->slm", states, states).clamp(-1, 1)
        total = (torch.arccos(cosine) / pi).sum(0)
        self.angular = total if self.angular is None else self.angular + total


def _projection_hook(sums: _Sums, name: str, layer: int) -> Callable[..., None]:
    """Return a forward hook that adds up the absolute outputs of a module."""

    def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
        sums.add(name, layer, sums.pick(output).abs().sum(0))

    return hook


def _down_hook(sums: _Sums, layer: int) -> Callable[..., None]:
    """Return a pre-hook that adds up the inputs of the down projection: x, |x| and x^2."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = sums.pick(args[0])
        sums.add("ffn_mean", layer, values.sum(0))
        sums.add("ffn_abs", layer, values.abs().sum(0))
        sums.add("ffn_sq", layer, values.square().sum(0))

    return hook


def _output_hook(sums: _Sums, layer: int) -> Callable[..., None]:
    """Return a pre-hook that adds up the inputs of attention's output projection: x, |x| and x^2."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = sums.pick(args[0])
        sums.add("column_mean", layer, values.sum(0))
        sums.add("column_abs", layer, values.abs().sum(0))
        sums.add("column_sq", layer, values.square().sum(0))

    return hook


def _layer_hook(sums: _Sums, layer: int) -> Callable[..., None]:
    """Return a forward hook that adds up the Block Influence of a layer and keeps the states at the ends of pieces."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        cosine = torch.nn.functional.cosine_similarity(sums.pick(before), sums.pick(after), dim=-1)
        sums.add("layer_cos", layer, (1 - cosine).sum())
        states = [before] if layer + 1 < sums.layers else [before, after]
        sums.states += [state.detach().reshape(-1, state.shape[-1]).index_select(0, sums.last) for state in states]

    return hook


def _add_to(sums: _Sums, layer: int, name: str, value: Tensor) -> None:
    """Add a value to the sum of this layer and name."""
    sums.add(name, layer, value)


@contextmanager
def _recording(model: Any, sums: _Sums) -> Iterator[None]:
    """Hold hooks on every layer for the length of the block."""
    spec = arch_of(model)
    outputs = {"gate_abs": spec.ffn_rows[0], "up_abs": spec.ffn_rows[-1], "act_abs": spec.ffn_activation}
    with ExitStack() as stack:
        for index, layer in enumerate(decoder_layers(model)):
            if spec.experts is not None:
                handles = [expert_hook(model, layer, sums.pick, partial(_add_to, sums, index))]
            else:
                handles = [
                    layer.get_submodule(path).register_forward_hook(_projection_hook(sums, name, index))
                    for name, path in outputs.items()
                ]
                handles.append(layer.get_submodule(spec.ffn_columns).register_forward_pre_hook(_down_hook(sums, index)))
            handles.append(layer.get_submodule(spec.output).register_forward_pre_hook(_output_hook(sums, index)))
            handles.append(layer.register_forward_hook(_layer_hook(sums, index), with_kwargs=True))
            for handle in handles:
                stack.callback(handle.remove)
        yield


@in_smaller_batches
def collect(model: Any, batches: Iterable[Batch], *, reporter: Reporter = SILENT) -> ActivationStats:
    """Run the model once over calibration batches and return the statistics of its units.

    Args:
        model: a causal language model; it runs in evaluation mode and gets its mode back afterwards.
        batches: packed windows of the calibration text.
        reporter: receives the progress.

    Raises:
        CorpusError: the batches hold no text.
        UnsupportedModel: the family is not in the architecture table.
    """
    sums = _Sums(len(decoder_layers(model)))
    training = model.training
    model.eval()
    try:
        with separate_projections(model), torch.inference_mode(), _recording(model, sums):
            for batch in reporter.track(batches, title="Activation statistics"):
                if batch.tokens:
                    sums.start(batch.segment_ids.to(model.device))
                    run_decoder(model, batch)
                    sums.finish()
    finally:
        model.train(training)
    if sums.angular is None:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    return _means(sums, sums.angular, shape_of(model))


def _means(sums: _Sums, angular: Tensor, shape: Shape) -> ActivationStats:
    """Turn the sums of a pass over a model of this shape into means."""
    ffn, groups = ("gate_abs", "up_abs", "act_abs", "ffn_abs", "ffn_sq", "ffn_mean"), shape.kv_groups
    names = (*(() if shape.experts else ffn), "column_abs", "column_sq", "column_mean", "layer_cos")
    means = {name: sums.stacked(name).clone() for name in names}
    if shape.experts:
        means |= {name: torch.zeros(shape.layers, shape.intermediate_size) for name in ffn} | _expert_means(sums)
    column_abs = means.pop("column_abs")
    by_group = {
        "head_abs": column_abs.view(sums.layers, groups, -1).mean(-1),
        "head_sq": means["column_sq"].view(sums.layers, groups, -1).mean(-1),
    }
    distances = (angular / sums.segments).float().cpu()
    distances.fill_diagonal_(0)
    return ActivationStats(tokens=sums.tokens, segments=sums.segments, angular=distances, **means, **by_group)


def _expert_means(sums: _Sums) -> dict[str, Tensor]:
    """Turn the sums of a pass about experts into means."""
    share = sums.stacked("expert_routed")
    gated = sums.stacked("expert_gated")
    return {
        "expert_share": share.clone(),
        "expert_gated": torch.where(share > 0, gated / share.clamp_min(1e-30), torch.zeros(())),
        "expert_loss": sums.stacked("expert_loss").clone(),
    }


def save(stats: ActivationStats, path: Path) -> None:
    """Write the statistics atomically as one safetensors file."""
    from safetensors.torch import save_file

    values = {field.name: getattr(stats, field.name) for field in fields(stats)}
    tensors = {name: value.contiguous() for name, value in values.items() if isinstance(value, Tensor)}
    counts = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"minigpt": json.dumps(counts)})


def load(path: Path) -> ActivationStats:
    """Read statistics that :func:`save` wrote.

    Raises:
        MiniGPTError: the file is missing or is not a statistics file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            counts = json.loads(file.metadata()["minigpt"])
            return ActivationStats(**{name: file.get_tensor(name) for name in file.keys()}, **counts)  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MiniGPTError(f"{path} is not a statistics file ({error}); delete it and run the build again.") from None


def token_counts(batches: Iterable[Batch], vocab_size: int) -> Tensor:
    """Count how often each token occurs in the text of the batches, int64 [vocab_size]."""
    counts = torch.zeros(vocab_size, dtype=torch.long)
    for batch in batches:
        counts += torch.bincount(batch.input_ids[batch.segment_ids != 0].cpu(), minlength=vocab_size)
    return counts
