"""Training steps as CUDA graphs, since small models spend most of a step on launching kernels.

A graph replays fixed shapes, so the windows of a batch are packed into one row of as many tokens as a step has. Windows
do not see each other, and the padding behind them gets weight zero in the loss. Forward and backward pass run on a bf16
twin of the model. Its gradients go to the fp32 weights that the optimizer steps, and these are copied back to the twin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.conditional.swap import conditional_layers
from minigpt.healing.attention import has_packed_attention
from minigpt.healing.buffers import Buffers
from minigpt.healing.capture import capture
from minigpt.healing.data import MIN_TOKENS, PaddedBatch, TokenText, max_packed_windows, pieces_of
from minigpt.healing.exchange import Exchange
from minigpt.healing.fused import compiled_layers, fused_kernels
from minigpt.healing.losses import Slope, healing_gradient, row_gradients
from minigpt.healing.memory import TeacherMemory, build_memory, memory_pays_off
from minigpt.healing.recipe import Recipe
from minigpt.healing.teacher import Teacher
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import has_fixed_work, head_dim
from minigpt.transformer.logits import logits_at

# Room of a process's part of a batch, as a multiple of an equal share; windows do not divide evenly.
PART_MARGIN = 1.03
# The room is a multiple of this many tokens, which matrix products need to be fast.
PART_MULTIPLE = 64
# Sentence for the user about what a captured step needs.
GRAPH_REQUIREMENTS = (
    "a graph needs torch 2.11 or later, a GPU of the Ampere generation or later, attention that is plainly causal "
    "within a window, and a teacher in 16 bits."
)


def accumulate_gradients(
    model: Any, teacher: Teacher | TeacherMemory | None, buffers: Buffers, recipe: Recipe, slope: Slope = row_gradients
) -> None:
    """Add the gradients of the healing loss over one batch to the weights' `.grad`; no tensor's shape depends on data.

    Args:
        model: the student, whose attention is packed (:func:`minigpt.healing.attention.causal_attention`).
        teacher: a teacher that reads the batch along with the model, or a memory of its answers.
        buffers: hold the batch.
        recipe: gives the weight of the distillation and its temperature.
        slope: :func:`minigpt.healing.losses.row_gradients`, compiled or not.
    """
    places = torch.arange(buffers.ids.shape[1] - 1, device=buffers.ids.device)
    logits = logits_at(model, places, input_ids=buffers.ids, **buffers.packing.arguments)
    teacher_logits = None
    if isinstance(teacher, TeacherMemory):
        teacher_logits = teacher.logits(buffers.origins[:-1])
    elif teacher is not None:
        teacher_logits = teacher.logits(buffers.ids, places, buffers.packing)
    labels, weights = buffers.ids[0, 1:], buffers.weights
    gradient = healing_gradient(
        logits, labels, teacher_logits, recipe.distill, recipe.temperature, weights=weights, slope=slope
    )
    logits.backward(gradient)  # type: ignore[no-untyped-call]


class GraphedSteps:
    """Gradients of training steps, computed by replaying one captured CUDA graph.

    Args:
        model: the student; the graph runs on a bf16 copy of it.
        teacher: the teacher, or None for a loss without distillation.
        recipe: the run's settings.
        parameters: the trained parameters of `model`, in fp32; their `.grad` receives the gradients.
        exchange: these parameters among several processes: the graph reads this one's part of a batch, and its
            gradients are exchanged behind it, into the `.grad` of the parameters that this process owns.
        compiled: compile the decoder layers before the capture; where that fails the run goes on without.
    """

    def __init__(
        self,
        model: Any,
        teacher: Teacher | None,
        recipe: Recipe,
        parameters: Sequence[nn.Parameter],
        *,
        exchange: Exchange | None = None,
        compiled: bool = False,
    ) -> None:
        self.teacher: Teacher | TeacherMemory | None = teacher
        self.recipe, self.compiled = recipe, compiled
        self.exchange = exchange or Exchange(parameters)
        self.parameters: list[Tensor] = list(parameters)
        self.device = self.parameters[0].device
        self.twin = deepcopy(model).to(torch.bfloat16)
        self.weights: list[Tensor] = [p for p in self.twin.parameters() if p.requires_grad]
        self.replay: Callable[[], Any] | None = None
        self.slope: Slope = row_gradients
        self.tokens = tokens_of_part(recipe, self.exchange.world)
        self.buffers = self._empty_buffers(self.tokens // MIN_TOKENS)
        self.reporter: Reporter = SILENT
        for parameter in self.exchange.own:
            parameter.grad = torch.zeros_like(parameter)

    def _empty_buffers(self, max_windows: int) -> Buffers:
        """Make buffers for one step of at most so many windows."""
        return Buffers.empty(self.tokens, self.recipe.window, max_windows, self.device)

    def make_room(self, text: TokenText, reporter: Reporter) -> None:
        """Replace the buffers by smaller ones that just hold batches of this text.

        Args:
            text: the training text.
            reporter: receives a note if the layers do not compile, and the progress of the teacher.
        """
        max_windows = max_packed_windows(self.tokens, pieces_of(text.windows))
        self.buffers, self.reporter = self._empty_buffers(max_windows), reporter

    def memorize_teacher(self, text: TokenText) -> None:
        """Store the teacher's answers to the text, if that saves time and there is memory for them."""
        teacher, to_read = self.teacher, self.recipe.steps * self.recipe.tokens_per_step
        if not isinstance(teacher, Teacher) or not memory_pays_off(text, teacher.model.config, to_read, self.device):
            return
        try:
            self.teacher = build_memory(teacher, text, self.buffers, self.reporter) or teacher
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()

    def gradients(self, batch: PaddedBatch) -> None:
        """Put the gradients of a batch's loss into the parameters' `.grad`; the first call captures the graph.

        Raises:
            ValueError: the batch does not fit into the buffers, or a teacher's memory is used and the batch does not
                say where in the training text it stands.
        """
        if isinstance(self.teacher, TeacherMemory) and batch.origins is None:
            raise ValueError("the memory of a teacher is read by places in the text, which this batch does not have")
        if self.exchange.group is not None:
            self._shared_gradients(batch)
            return
        self.buffers.fill(batch)
        replay = self._ready()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.parameters)
            replay()
            torch._foreach_copy_(*self._gradient_pairs())

    def _shared_gradients(self, batch: PaddedBatch) -> None:
        """Replay the graph on this process's part of a batch, and exchange the gradients with the others.

        The twin has the current weights already. A part that is larger than the buffers, which is rare, is replayed in
        two pieces.
        """
        self.exchange.clear(torch.bfloat16)
        for part, share in self.exchange.parts(batch, self.tokens, self.buffers.max_windows):
            self.buffers.fill(part)
            replay = self._ready()
            with torch.no_grad():
                replay()
                self.exchange.add([weight.grad for weight in self.weights], share, torch.bfloat16)
        self.exchange.reduce(torch.bfloat16)

    def _ready(self) -> Callable[[], Any]:
        """Return the function that runs the captured step; the first call captures it."""
        if self.replay is None:
            self.replay = self._capture()
        return self.replay

    def refreshed_twin(self) -> Any:
        """Return the twin with the current values of the parameters, to evaluate it.

        The trained model is saved in bf16, so that the evaluation measures the weights that are saved.
        """
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.parameters)
        return self.twin

    def _step(self) -> None:
        """Run one forward and one backward pass on the twin.

        Gradients are dropped first, so that the backward pass makes new ones and nothing has to be cleared.
        """
        for weight in self.weights:
            weight.grad = None
        accumulate_gradients(self.twin, self.teacher, self.buffers, self.recipe, self.slope)

    def _gradient_pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the gradients of the parameters and those of their twins, where the twin has one."""
        both = zip(self.parameters, self.weights, strict=True)
        pairs: list[Any] = [(parameter.grad, twin.grad) for parameter, twin in both if twin.grad is not None]
        return [target for target, _ in pairs], [source for _, source in pairs]

    def _capture(self) -> Callable[[], Any]:
        """Capture the step with compiled layers or fused kernels, and return the function that runs it again.

        Compiled layers are plain again afterwards, because dev text comes in many shapes.
        """
        (self.twin if self.exchange.group is not None else self.refreshed_twin()).train()
        models = [self.twin] + ([self.teacher.model] if isinstance(self.teacher, Teacher) else [])
        if self.compiled:
            try:
                with compiled_layers(*models) as compiled:
                    self.slope = compiled(row_gradients)
                    return self._record()
            except Exception as error:  # compilers fail in many ways, and the plain step needs none
                self.compiled, self.slope = False, row_gradients
                self.reporter.note(f"The layers do not compile ({type(error).__name__}); the run goes on without.")
        with fused_kernels(*models):
            return self._record()

    def _record(self) -> Callable[[], Any]:
        """Capture the step as it runs now, and return the function that runs it again."""
        with torch.enable_grad():
            # Gradients of the first runs are dropped before the capture, which gives their memory back.
            replay, _ = capture(self._step, before_capture=lambda: self.twin.zero_grad(set_to_none=True))
        return replay


def tokens_of_part(recipe: Recipe, world: int) -> int:
    """Return the room for the tokens of one process's part of a batch: a little more than its equal share."""
    share = recipe.tokens_per_step if world == 1 else recipe.tokens_per_step * PART_MARGIN / world
    tokens = math.ceil(share) if world == 1 else math.ceil(share / PART_MULTIPLE) * PART_MULTIPLE
    return max(tokens, recipe.window)


def can_capture(model: Any, recipe: Recipe, device: torch.device) -> bool:
    """Say whether a training step of this model can be captured: fixed shapes and plain causal attention on a GPU."""
    config = model.config
    window = getattr(config, "sliding_window", None)
    return (
        device.type == "cuda"
        and recipe.adapter == "full"
        and not conditional_layers(model)  # their penalties are added to the loss outside of a graph
        and recipe.precision != "fp32"
        and (window is None or window >= recipe.window)
        and has_fixed_work(config)
        and getattr(config, "attn_logit_softcapping", None) is None
        and not getattr(config, "attention_dropout", 0.0)
        and has_packed_attention(head_dim(config), device)
    )
