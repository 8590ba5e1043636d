"""Layer-wise distillation: a conditional layer learns the outputs of the dense layer on cached inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.conditional.base import ConditionalFFN, DenseWeights
from minigpt.conditional.convert import relative_error
from minigpt.conditional.swap import ffn_layers, ffn_paths
from minigpt.errors import ConfigError
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.batches import Batch, run_decoder


@torch.no_grad()
def ffn_inputs(
    model: Any,
    indices: Sequence[int],
    batches: Iterable[Batch],
    *,
    forward: Callable[[Any, Batch], object] = run_decoder,
) -> dict[int, Tensor]:
    """Return what feed-forward layers read on a text, padding left out: [tokens, H] by layer, on the CPU.

    Args:
        model: the model; it is not changed.
        indices: numbers of the layers.
        batches: the text.
        forward: runs the model on a batch; the default runs a decoder.
    """
    paths, layers = ffn_paths(model), ffn_layers(model)
    parts: dict[int, list[Tensor]] = {index: [] for index in indices}
    text = torch.empty(0, dtype=torch.bool)

    def note(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            states = args[0].detach()
            parts[index].append(states.reshape(-1, states.shape[-1])[text.to(states.device)].cpu())

        return hook

    with ExitStack() as stack:
        for index in indices:
            handle = layers[index].get_submodule(paths.replaced).register_forward_pre_hook(note(index))
            stack.callback(handle.remove)
        for batch in batches:
            text = (batch.segment_ids != 0).flatten()
            forward(model, batch)
    return {index: torch.cat(pieces) for index, pieces in parts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """Settings of one layer-wise distillation.

    Attributes:
        steps: number of optimizer steps.
        batch_tokens: tokens of a step.
        lr: highest learning rate; it rises over the first tenth of the steps and falls linearly to zero.
        weight_decay: decay of the weights (AdamW).
        clip: largest norm of the gradient.
        seed: seed of the order of tokens and of the region leak.
    """

    steps: int = 300
    batch_tokens: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillReport:
    """Record of one layer-wise distillation.

    Attributes:
        before: squared error of the hard form over the variance of the dense outputs, before training.
        after: the same after training.
        losses: training loss of each step, the penalty included.
    """

    before: float
    after: float
    losses: tuple[float, ...]


def distill(
    layer: ConditionalFFN,
    weights: DenseWeights,
    x: Tensor,
    *,
    unseen: Tensor | None = None,
    options: DistillOptions | None = None,
    reporter: Reporter = SILENT,
) -> DistillReport:
    """Train a conditional layer in place to give the outputs of the dense layer.

    The loss is the squared error over the variance of the dense outputs, plus the layer's penalty. The layer is left in
    the mode in which it came.

    Args:
        layer: the conditional layer, best in fp32.
        weights: the dense layer, on the layer's device and in its dtype.
        x: inputs [tokens, H] of the dense layer.
        unseen: inputs on which the errors of the report are measured (None: x).
        options: settings (None: the defaults).
        reporter: receiver of progress.

    Raises:
        ConfigError: there are no tokens.
    """
    if not len(x):
        raise ConfigError("Distillation needs inputs of the dense layer; pass some text.")
    options, measured = options or DistillOptions(), x if unseen is None else unseen
    before, mode = relative_error(layer, weights, measured), layer.training
    layer.train()
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(options.seed)
        losses = _train(layer, weights, x, options, reporter)
    layer.train(mode)
    return DistillReport(before=before, after=relative_error(layer, weights, measured), losses=losses)


def _train(
    layer: ConditionalFFN, weights: DenseWeights, x: Tensor, options: DistillOptions, reporter: Reporter
) -> tuple[float, ...]:
    """Take the optimizer steps, and return the loss of each."""
    optimizer = torch.optim.AdamW(layer.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, options.steps))
    with torch.no_grad():
        variance = weights.forward(x[: 8 * options.batch_tokens]).var(0, correction=0).sum().clamp(min=1e-12)
    losses, order = [], torch.empty(0, dtype=torch.long)
    for _ in reporter.track(range(options.steps), title="Distilling a layer", total=options.steps):
        if len(order) < min(options.batch_tokens, len(x)):
            order = torch.cat([order, torch.randperm(len(x))])
        rows, order = order[: options.batch_tokens], order[options.batch_tokens :]
        tokens = x[rows.to(x.device)]
        with torch.no_grad():
            target = weights.forward(tokens)
        error = (layer(tokens) - target).square().sum(-1).mean() / variance
        loss = error + layer.penalty()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), options.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach().item())
    return tuple(losses)


def _rate(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step."""
    rise = max(1, steps // 10)
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise + 1))
