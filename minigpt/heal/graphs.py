"""Forward and backward pass as a CUDA graph: small models spend most of a training step on launching kernels.

A graph replays fixed shapes, so the windows of a batch are laid one behind the other into one row of as many tokens as
a step has, none seeing another, and what is left of the row gets weight zero in the loss. The passes run on a bf16 twin
of the model; its gradients go to the fp32 weights that the optimizer steps, and these back to the twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.arch import head_dim
from minigpt.heal.attention import has_packed_attention
from minigpt.heal.data import Padded, most_together
from minigpt.heal.forward import Packing, logits_at
from minigpt.heal.losses import healing_gradient
from minigpt.heal.recipe import Recipe
from minigpt.heal.teacher import Teacher

WARM_UP = 2
NO_GRAPH = (
    "it takes torch 2.11, a card from Ampere on, attention that is plainly causal over a window, and a teacher in "
    "16 bits."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """A batch of fixed shape: windows one behind the other, filled up with padding.

    `ids` int64 [1, tokens], `packing` says which token belongs where, `weights` [tokens - 1] is 1 inside of windows.
    """

    ids: Tensor
    packing: Packing
    weights: Tensor

    @classmethod
    def empty(cls, tokens: int, window: int, device: torch.device) -> Buffers:
        """Room for `tokens` tokens in windows of at most `window`."""
        starts = torch.full(
            (most_together(tokens) + -(-tokens // window) + 1,), tokens, dtype=torch.int32, device=device
        )
        positions = torch.zeros(1, tokens, dtype=torch.long, device=device)
        return cls(
            ids=torch.zeros(1, tokens, dtype=torch.long, device=device),
            packing=Packing(positions=positions, starts=starts, longest=window),
            weights=torch.zeros(tokens - 1, device=device),
        )

    def fill(self, batch: Padded) -> None:
        """Lay a batch into the buffers; padding behind it falls into pieces that are no longer than a window.

        Raises:
            ValueError: the batch does not fit, or a window is longer than was said.
        """
        tokens, longest = self.ids.shape[1], self.packing.longest
        used = int(batch.lengths.sum())
        ends = torch.cat([batch.lengths.cumsum(0), torch.arange(used, max(used, tokens), longest)[1:]])
        room = len(self.packing.starts) - (1 if used == tokens else 2)  # the first start, and the end of the padding
        if used > tokens or int(batch.lengths.max()) > longest or len(ends) > room:
            raise ValueError(f"a batch must have at most {tokens} tokens in windows of at most {longest}")
        columns = torch.arange(batch.ids.shape[1])[None, :]
        text = columns < batch.lengths[:, None]
        rest = torch.arange(tokens - used)
        starts = torch.full(self.packing.starts.shape, tokens, dtype=torch.int32)
        starts[0], starts[1 : len(ends) + 1] = 0, ends
        weights = torch.ones(tokens)
        weights[batch.lengths.cumsum(0) - 1] = 0
        weights[used:] = 0
        self._put(self.ids[0], torch.cat([batch.ids[text], torch.zeros_like(rest)]))
        self._put(self.packing.positions[0], torch.cat([columns.expand_as(text)[text], rest % longest]))
        self._put(self.packing.starts, starts)
        self._put(self.weights, weights[:-1])

    @staticmethod
    def _put(buffer: Tensor, values: Tensor) -> None:
        """Copy without waiting, which takes memory that is pinned."""
        buffer.copy_(values.pin_memory() if buffer.is_cuda else values, non_blocking=True)


def learn(model: Any, teacher: Teacher | None, buffers: Buffers, recipe: Recipe) -> None:
    """Add the gradients of healing's loss over the text of a batch, without a data-dependent size anywhere."""
    places = torch.arange(buffers.ids.shape[1] - 1, device=buffers.ids.device)
    logits = logits_at(model, buffers.ids, places, buffers.packing)
    taught = teacher.logits(buffers.ids, places, buffers.packing) if teacher is not None else None
    labels = buffers.ids[0, 1:]
    gradient = healing_gradient(logits, labels, taught, recipe.distill, recipe.temperature, weights=buffers.weights)
    logits.backward(gradient)  # type: ignore[no-untyped-call]


class GraphedSteps:
    """Computes gradients by replaying a captured graph."""

    def __init__(self, model: Any, teacher: Teacher | None, recipe: Recipe, parameters: Sequence[nn.Parameter]) -> None:
        self.teacher, self.recipe = teacher, recipe
        self.parameters: list[Tensor] = list(parameters)
        self.device = self.parameters[0].device
        self.twin = deepcopy(model).to(torch.bfloat16)
        self.weights: list[Tensor] = [p for p in self.twin.parameters() if p.requires_grad]
        self.graph: Any = None
        self.buffers = Buffers.empty(max(recipe.tokens_per_step, recipe.window), recipe.window, self.device)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def gradients(self, batch: Padded) -> None:
        """Put the gradients of a batch's loss into the parameters' `.grad`."""
        self.buffers.fill(batch)
        if self.graph is None:
            self.graph = self._captured()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.parameters)
            self.graph.replay()
            torch._foreach_copy_(*self._pairs())

    def refreshed(self) -> Any:
        """The twin with the parameters' present values, to evaluate: what is saved in bf16 is what is measured."""
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.parameters)
        return self.twin

    def _step(self) -> None:
        """One pass each way; gradients that are not there yet are made, so that nothing is cleared and added to."""
        for weight in self.weights:
            weight.grad = None
        learn(self.twin, self.teacher, self.buffers, self.recipe)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the parameters and of their twins, of those that took part in the loss."""
        both = zip(self.parameters, self.weights, strict=True)
        found: list[Any] = [(ours.grad, twin.grad) for ours, twin in both if twin.grad is not None]
        return [ours for ours, _ in found], [twin for _, twin in found]

    def _captured(self) -> Any:
        self.refreshed().train()
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.enable_grad():
            for _ in range(WARM_UP):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.twin.zero_grad(set_to_none=True)  # before the capture, which gives free memory back
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.enable_grad():
            self._step()
        return graph


def can_capture(model: Any, recipe: Recipe, device: torch.device) -> bool:
    """Whether a training step of this model has a fixed shape and plain causal attention on this device."""
    config = model.config
    window = getattr(config, "sliding_window", None)
    return (
        device.type == "cuda"
        and recipe.adapter == "full"
        and recipe.precision != "fp32"
        and (window is None or window >= recipe.window)
        and getattr(config, "attn_logit_softcapping", None) is None
        and not getattr(config, "attention_dropout", 0.0)
        and has_packed_attention(head_dim(config), device)
    )
