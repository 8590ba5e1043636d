"""Forward and backward pass as a CUDA graph: small models spend most of a training step on launching kernels.

A graph replays fixed shapes, so the windows of a batch are laid one behind the other into one row of as many tokens as
a step has, none seeing another, and what is left of the row gets weight zero in the loss. The passes run on a bf16 twin
of the model; its gradients go to the fp32 weights that the optimizer steps, and these back to the twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.healing.attention import has_packed_attention
from minigpt.healing.buffers import Buffers
from minigpt.healing.data import SHORTEST, Padded, TokenText, most_together, pieces
from minigpt.healing.fused import compiled_layers, fused_kernels
from minigpt.healing.losses import Slope, healing_gradient, row_gradients
from minigpt.healing.memory import Memory, pays, remember
from minigpt.healing.recipe import Recipe
from minigpt.healing.teacher import Teacher
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import head_dim
from minigpt.transformer.logits import logits_at

WARM_UP = 2
NO_GRAPH = (
    "it takes torch 2.11, a card from Ampere on, attention that is plainly causal over a window, and a teacher in "
    "16 bits."
)


def learn(
    model: Any, teacher: Teacher | Memory | None, buffers: Buffers, recipe: Recipe, slope: Slope = row_gradients
) -> None:
    """Add the gradients of healing's loss over the text of a batch, without a data-dependent size anywhere.

    A teacher reads the text along with the model; a memory knows what it said about it.
    """
    places = torch.arange(buffers.ids.shape[1] - 1, device=buffers.ids.device)
    logits = logits_at(model, places, input_ids=buffers.ids, **buffers.packing.arguments)
    taught = None
    if isinstance(teacher, Memory):
        taught = teacher.logits(buffers.origins[:-1])
    elif teacher is not None:
        taught = teacher.logits(buffers.ids, places, buffers.packing)
    labels, weights = buffers.ids[0, 1:], buffers.weights
    gradient = healing_gradient(
        logits, labels, taught, recipe.distill, recipe.temperature, weights=weights, slope=slope
    )
    logits.backward(gradient)  # type: ignore[no-untyped-call]


class GraphedSteps:
    """Computes gradients by replaying a captured graph, of compiled layers where that is asked for and works."""

    def __init__(
        self,
        model: Any,
        teacher: Teacher | None,
        recipe: Recipe,
        parameters: Sequence[nn.Parameter],
        *,
        compiled: bool = False,
    ) -> None:
        self.teacher: Teacher | Memory | None = teacher
        self.recipe, self.compiled = recipe, compiled
        self.parameters: list[Tensor] = list(parameters)
        self.device = self.parameters[0].device
        self.twin = deepcopy(model).to(torch.bfloat16)
        self.weights: list[Tensor] = [p for p in self.twin.parameters() if p.requires_grad]
        self.graph: Any = None
        self.slope: Slope = row_gradients
        self.tokens = max(recipe.tokens_per_step, recipe.window)
        self.buffers = self._room(self.tokens // SHORTEST)
        self.reporter: Reporter = SILENT
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def _room(self, most: int) -> Buffers:
        return Buffers.empty(self.tokens, self.recipe.window, most, self.device)

    def expect(self, text: TokenText, reporter: Reporter) -> None:
        """Make room for batches of this text, and no more."""
        self.buffers, self.reporter = self._room(most_together(self.tokens, pieces(text.windows))), reporter

    def remember(self, text: TokenText) -> None:
        """Ask the teacher once what it says about the text, if that pays and there is memory for it."""
        teacher, to_read = self.teacher, self.recipe.steps * self.recipe.tokens_per_step
        if not isinstance(teacher, Teacher) or not pays(text, teacher.model.config, to_read, self.device):
            return
        try:
            self.teacher = remember(teacher, text, self.buffers, self.reporter) or teacher
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()

    def gradients(self, batch: Padded) -> None:
        """Put the gradients of a batch's loss into the parameters' `.grad`.

        Raises:
            ValueError: the batch does not fit, or does not say where in the text it stands when a memory is asked.
        """
        if isinstance(self.teacher, Memory) and batch.origins is None:
            raise ValueError("what is remembered of a teacher is found by a batch's places in the text")
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
        learn(self.twin, self.teacher, self.buffers, self.recipe, self.slope)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the parameters and of their twins, of those that took part in the loss."""
        both = zip(self.parameters, self.weights, strict=True)
        found: list[Any] = [(ours.grad, twin.grad) for ours, twin in both if twin.grad is not None]
        return [ours for ours, _ in found], [twin for _, twin in found]

    def _captured(self) -> Any:
        """The step's graph. What is compiled for it is plain again afterwards: dev text comes in many shapes."""
        self.refreshed().train()
        models = [self.twin] + ([self.teacher.model] if isinstance(self.teacher, Teacher) else [])
        if self.compiled:
            try:
                with compiled_layers(*models) as compiled:
                    self.slope = compiled(row_gradients)
                    return self._recorded()
            except Exception as error:  # compilers fail in many ways, and the plain step needs none
                self.compiled, self.slope = False, row_gradients
                self.reporter.note(f"The layers do not compile ({type(error).__name__}); the run goes on without.")
        with fused_kernels(*models):
            return self._recorded()

    def _recorded(self) -> Any:
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
