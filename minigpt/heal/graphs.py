"""Forward and backward pass as CUDA graphs: small models spend most of a training step on launching kernels.

A graph replays fixed shapes, so batches are laid into buffers of a few shapes (length a multiple of 64, as many rows
as the step's tokens allow) and padding gets weight zero in the loss instead of being left out. The passes run on a
bf16 twin of the model; its gradients go to the fp32 weights that the optimizer steps, and these back to the twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.heal.data import Padded
from minigpt.heal.forward import logits_at
from minigpt.heal.losses import healing_loss
from minigpt.heal.recipe import Recipe
from minigpt.heal.teacher import Teacher

LENGTH_MULTIPLE = 64
WARM_UP = 2
CAUSAL = "minigpt_causal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """A batch of fixed shape: `ids` int64 [rows, length], `weights` [rows x (length - 1)] 1 where text follows."""

    ids: Tensor
    weights: Tensor

    @classmethod
    def empty(cls, rows: int, length: int, device: torch.device) -> Buffers:
        """Nothing but padding."""
        return cls(
            ids=torch.zeros(rows, length, dtype=torch.long, device=device),
            weights=torch.zeros(rows * (length - 1), device=device),
        )

    def fill(self, batch: Padded) -> None:
        """Lay a batch into the buffers; it has at most as many rows and exactly the same length."""
        rows, length = self.ids.shape
        ids = torch.zeros(rows, length, dtype=torch.long)
        ids[: len(batch.ids)] = batch.ids
        weights = torch.zeros(rows, length - 1)
        weights[: len(batch.ids)] = torch.arange(length - 1)[None, :] < (batch.lengths - 1)[:, None]
        self.ids.copy_(ids, non_blocking=True)
        self.weights.copy_(weights.flatten(), non_blocking=True)


def weighted_loss(model: Any, teacher: Teacher | None, buffers: Buffers, recipe: Recipe) -> Tensor:
    """The healing loss over the text of a batch of fixed shape, without a data-dependent size anywhere."""
    rows, length = buffers.ids.shape
    places = torch.arange(rows * length, device=buffers.ids.device).view(rows, length)[:, :-1].flatten()
    labels = buffers.ids[:, 1:].flatten()
    logits = logits_at(model, buffers.ids, places)
    taught = teacher.logits(buffers.ids, places) if teacher is not None else None
    return healing_loss(logits, labels, taught, recipe.distill, recipe.temperature, weights=buffers.weights)


class GraphedSteps:
    """Computes gradients by replaying one captured graph for each shape of batch."""

    def __init__(self, model: Any, teacher: Teacher | None, recipe: Recipe, parameters: Sequence[nn.Parameter]) -> None:
        self.teacher, self.recipe = teacher, recipe
        self.parameters: list[Tensor] = list(parameters)
        self.device = self.parameters[0].device
        self.twin = deepcopy(model).to(torch.bfloat16)
        self.weights: list[Tensor] = [p for p in self.twin.parameters() if p.requires_grad]
        self.pool: Any = None
        self.graphs: dict[tuple[int, int], tuple[Any, Buffers]] = {}
        for parameter in [*self.parameters, *self.weights]:
            parameter.grad = torch.zeros_like(parameter)

    def gradients(self, batch: Padded) -> None:
        """Put the gradients of a batch's loss into the parameters' `.grad`."""
        length = batch.ids.shape[1]
        shape = (max(1, self.recipe.tokens_per_step // length), length)
        if shape not in self.graphs:
            self.graphs[shape] = self._capture(shape, batch)
        graph, buffers = self.graphs[shape]
        buffers.fill(batch)
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.parameters)
            graph.replay()
            torch._foreach_copy_(_gradients(self.parameters), _gradients(self.weights))

    def refreshed(self) -> Any:
        """The twin with the parameters' present values, to evaluate: what is saved in bf16 is what is measured."""
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.parameters)
        return self.twin

    def _step(self, buffers: Buffers) -> None:
        torch._foreach_zero_(_gradients(self.weights))
        loss = weighted_loss(self.twin, self.teacher, buffers, self.recipe)
        loss.backward()  # type: ignore[no-untyped-call]

    def _capture(self, shape: tuple[int, int], batch: Padded) -> tuple[Any, Buffers]:
        buffers = Buffers.empty(*shape, self.device)
        buffers.fill(batch)
        self.twin.train()
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.enable_grad():
            for _ in range(1 if self.graphs else WARM_UP):
                self._step(buffers)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool), torch.enable_grad():
            self._step(buffers)
        self.pool = self.pool or graph.pool()
        return graph, buffers


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def can_capture(model: Any, recipe: Recipe, device: torch.device) -> bool:
    """Whether a training step of this model has fixed shapes and plain causal attention on this device."""
    config = model.config
    window = getattr(config, "sliding_window", None)
    return (
        device.type == "cuda"
        and recipe.adapter == "full"
        and recipe.precision != "fp32"
        and (window is None or window >= recipe.window)
        and getattr(config, "attn_logit_softcapping", None) is None
        and not getattr(config, "attention_dropout", 0.0)
    )


@contextmanager
def causal_attention(*models: Any) -> Iterator[None]:
    """Inside the block the models attend causally without looking at a mask: right-padded text needs none.

    transformers builds no mask for an attention it did not define, so nothing waits for the device.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Any, **options: Any) -> Any:
        return sdpa_attention_forward(module, query, key, value, None, **options)

    AttentionInterface.register(CAUSAL, attend)
    before = [model.config._attn_implementation for model in models]
    for model in models:
        model.set_attn_implementation(CAUSAL)
    try:
        yield
    finally:
        for model, name in zip(models, before, strict=True):
            model.set_attn_implementation(name)
