"""One training run: its state, its steps, its evaluations on dev text and its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.distributed.group import Group
from minigpt.errors import MiniGPTError
from minigpt.healing import checkpoint as checkpoints
from minigpt.healing.attention import causal_attention
from minigpt.healing.average import Average
from minigpt.healing.data import Bound, PaddedBatch, TokenText, epochs, with_noise
from minigpt.healing.exchange import Exchange
from minigpt.healing.forward import bits_per_byte
from minigpt.healing.fused import MIN_COMPILED_TOKENS
from minigpt.healing.graphs import GRAPH_REQUIREMENTS, GraphedSteps, can_capture
from minigpt.healing.harm import has_overshot
from minigpt.healing.interrupts import deferred_interrupts
from minigpt.healing.masks import Freeze, Mask
from minigpt.healing.muon import optimizer_for
from minigpt.healing.plain import gradients_of_parts
from minigpt.healing.recipe import Recipe, schedule
from minigpt.healing.sharded import ShardedExchange
from minigpt.healing.stored import StoredTeacher
from minigpt.healing.teacher import Teacher
from minigpt.progress import Reporter
from minigpt.results import Training
from minigpt.transformer.arch import check_window
from minigpt.transformer.portions import Portions

# Seconds between two checkpoints, and steps between two looks of several processes at whether one is due.
CHECKPOINT_SECONDS, STEPS_PER_LOOK = 300.0, 16


class Run:
    """The state of one training run.

    Args:
        model: the model that is trained, with or without adapters; parameters that require gradients are trained.
        dev: dev text that decides which weights are best.
        recipe: the run's settings.
        teacher: teacher of the distillation, or None.
        seed: sets the order of the text and the dropout.
        bound: limit on what the run may cost on other text, or None.
        stops_on_harm: stop, and set `overshot`, if the learning rate turns out to be too high.
        mask: weights that the run may change (None: all).
        captures: replay the steps as a CUDA graph where that is possible.
        portions: portions of a batch that a step reads one after the other.
        group: processes that train the model together, each with the same arguments (None: this one alone).
        sharded: divide the weights among the processes of the group (:mod:`minigpt.healing.sharded`).
        watch: is asked after each evaluation behind the warm-up, with the model; True ends the run (None: nobody is).
    """

    def __init__(
        self,
        model: Any,
        dev: TokenText,
        recipe: Recipe,
        teacher: Teacher | StoredTeacher | None,
        seed: int,
        bound: Bound | None = None,
        *,
        stops_on_harm: bool = False,
        mask: Mask | None = None,
        captures: bool = True,
        portions: int = 1,
        group: Group | None = None,
        sharded: bool = False,
        watch: Callable[[Any], bool] | None = None,
    ) -> None:
        check_window(model, recipe.window)
        self.stops_on_harm, self.overshot, self.watch = stops_on_harm, False, watch
        self.model, self.dev, self.recipe, self.teacher, self.seed = model, dev, recipe, teacher, seed
        self.bound, self.best_excess = bound, math.inf
        self.parameters: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        self.group, self.exchange = group, Exchange(self.parameters, group)
        if group is not None and sharded:
            recipe = replace(recipe, optimizer="adamw")  # Muon moves whole matrices
            self.exchange = exchange = ShardedExchange(model, self.parameters, group, recipe)
            self.model = model = exchange.twin
        self.own = self.exchange.own
        self.device = self.own[0].device if self.own else self.parameters[0].device
        self.optimizer = optimizer_for(model, self.own, recipe)
        self.freeze = Freeze(model, mask, recipe)
        self.average = Average(self.own, recipe.average)
        # On the processor: they are written a few times in a run, and an accelerator has better use for the memory.
        self.best: list[Tensor] = [p.detach().to("cpu", copy=True) for p in self.own]
        self.best_loss, self.best_step, self.step, self.tokens = math.inf, 0, 0, 0
        self.losses: list[tuple[int, float]] = []
        self.diverged = False
        self.started = self.saved = time.perf_counter()
        for other in self.models[1:]:
            other.eval()
        self.portions, self.dev_portions = Portions("Training", parts=portions), Portions("Dev text")
        self.bits_per_byte = partial(bits_per_byte, precision=recipe.precision, group=group, portions=self.dev_portions)
        self.steps: GraphedSteps | None = None
        resident = teacher if isinstance(teacher, Teacher) else None
        fits = captures and not sharded and (resident.is_in_half_precision if resident else teacher is None)
        fits = fits and all(can_capture(model, recipe, self.device) for model in self.models)
        if fits if group is None else group.all_agree(fits):
            # Compiling takes as long as some hundred steps, and a run with patience may end after as many.
            is_long = recipe.steps * recipe.tokens_per_step >= MIN_COMPILED_TOKENS and not recipe.patience
            more: Any = {"exchange": self.exchange, "compiled": is_long}
            self.steps = GraphedSteps(model, resident, recipe, self.parameters, **more)

    def train(
        self, text: TokenText, title: str, reporter: Reporter, checkpoint: Path | None = None, run_id: str = ""
    ) -> None:
        """Train until all steps are done, patience runs out or the run does harm.

        Args:
            text: training text, tokenized for the model.
            title: what the progress bar says.
            reporter: receives the progress.
            checkpoint: file that checkpoints are written to (None: none are written).
            run_id: fingerprint of the run, which is stored in a checkpoint.
        """
        batches = self.batches(text)
        self.portions.what, self.portions.reporter, self.dev_portions.reporter = title, reporter, reporter
        plain = self.recipe.adapter == "full" and self.recipe.precision != "fp32"
        if plain and self.steps is None and self.device.type == "cuda":
            reporter.note(f"{title} runs without a CUDA graph and is two to three times slower: {GRAPH_REQUIREMENTS}")
        with ExitStack() as stack:
            interrupts = stack.enter_context(deferred_interrupts())
            if self.steps is not None:
                stack.enter_context(causal_attention(*self.models, self.steps.twin))
            self._prepare(text, reporter)
            self.exchange.spread(self._read)
            left = self.recipe.steps - self.step
            for _ in reporter.track(range(self.step, self.recipe.steps), title=title, total=left):
                if self._evaluate_and_tell(title, reporter):
                    return
                self.advance(next(batches))
                if checkpoint is not None and self._is_checkpoint_due(interrupts.pending is not None):
                    self.save(checkpoint, run_id, reporter)
                interrupts.deliver()
            self._evaluate_and_tell(title, reporter, last=True)

    def _is_checkpoint_due(self, interrupted: bool) -> bool:
        """Say whether to write a checkpoint after this step.

        Several processes write one together when the first says so, and look at it every few steps only. They do not
        write one when they are interrupted: one that is gone would let the others wait.
        """
        is_due = time.perf_counter() - self.saved >= CHECKPOINT_SECONDS
        if self.group is None:
            return is_due or interrupted
        return self.step % STEPS_PER_LOOK == 0 and bool(self.group.share(is_due))

    @property
    def _read(self) -> list[Tensor]:
        """Weights that the forward pass reads: those of the graph's twin, or the parameters themselves."""
        return self.exchange.read if self.steps is None else self.steps.weights

    def batches(self, text: TokenText) -> Iterator[PaddedBatch]:
        """Return the batches of a training text from the current step on."""
        recipe, seed, packed = self.recipe, self.seed, self.steps is not None
        ordered = epochs(self._readable(text).windows, recipe.tokens_per_step, seed, bare=recipe.bare, packed=packed)
        left = islice(ordered, self.step, None)
        return with_noise(left, recipe.noise, seed, self.step) if recipe.is_noisy else left

    def _readable(self, text: TokenText) -> TokenText:
        """Return the windows that the teacher can read; all of them without a teacher."""
        return self.teacher.readable_part(text) if self.teacher is not None else text

    def _prepare(self, text: TokenText, reporter: Reporter) -> None:
        """Size the buffers of the graph for the text, and store the teacher's answers to it.

        Answers are not stored where noise changes what the teacher reads.
        """
        if self.steps is None:
            return
        readable = self._readable(text)
        self.steps.make_room(readable, reporter)
        if not self.recipe.is_noisy:
            self.steps.memorize_teacher(readable)

    @property
    def models(self) -> list[Any]:
        """The student, and the teacher where it is in memory."""
        return [self.model, *(self.teacher.models if self.teacher is not None else [])]

    @property
    def _state(self) -> checkpoints.State:
        """Tensors that a checkpoint saves and restores."""
        return checkpoints.State(
            parameters=self.own,
            optimizer=self.optimizer,
            average=self.average,
            best=self.best,
            exchange=self.exchange,
        )

    def resume(self, path: Path, run_id: str, reporter: Reporter) -> None:
        """Continue from a checkpoint of the same run, if there is one.

        Args:
            path: file of the checkpoint.
            run_id: fingerprint of the run; a checkpoint with another one is ignored.
            reporter: told about a damaged checkpoint.
        """
        progress = checkpoints.load(path, run_id, self._state, reporter, group=self.group)
        if progress is None:
            return
        self.step, self.tokens, self.losses = progress.step, progress.tokens, list(progress.losses)
        self.best_step, self.best_loss, self.best_excess = progress.best_step, progress.best_loss, progress.best_excess
        self.started = time.perf_counter() - progress.seconds

    def save(self, path: Path, run_id: str, reporter: Reporter) -> None:
        """Write a checkpoint; where that fails the reporter gets a note and the run goes on."""
        progress = checkpoints.Progress(
            fingerprint=run_id,
            step=self.step,
            tokens=self.tokens,
            best_step=self.best_step,
            best_loss=self.best_loss,
            averaged=self.average.updates,
            seconds=time.perf_counter() - self.started,
            losses=tuple(self.losses),
            best_excess=self.best_excess,
        )
        try:
            checkpoints.save(path, progress, self._state, group=self.group)
        except MiniGPTError as error:
            reporter.note(f"No checkpoint was written: {error}")
        self.saved = time.perf_counter()

    def evaluate_if_due(self, *, last: bool = False) -> bool:
        """Evaluate on the dev text if it is time, and say whether the run must stop.

        A run stops when its loss is no longer a number or its patience runs out. A run with `stops_on_harm` also stops
        when the dev loss is well above the first one and has never been below it.

        Args:
            last: all steps are done, so evaluate in any case.
        """
        due = last or self.step % self.recipe.evaluate_every == 0
        if due and not self.diverged and (not self.losses or self.losses[-1][0] != self.step):
            self._evaluate()
        if due and self.stops_on_harm and self.step:
            losses = [loss for _, loss in self.losses]
            self.overshot = has_overshot(losses, self.best_step, diverged=self.diverged, last=last)
        is_spent = due and 0 < self.recipe.patience <= self.step - self.best_step
        is_warm = due and self.step > self.recipe.warmup
        return self.diverged or self.overshot or is_spent or (is_warm and self._is_told_to_stop())

    def _is_told_to_stop(self) -> bool:
        """Ask the first process's watch, and say the same in all processes."""
        ends = self.watch is not None and self.watch(self.model)
        return ends if self.group is None else bool(self.group.share(ends))

    def _evaluate_and_tell(self, title: str, reporter: Reporter, *, last: bool = False) -> bool:
        """Do what :meth:`evaluate_if_due` does, and tell the first and the latest dev loss after an evaluation."""
        looks = len(self.losses)
        stops = self.evaluate_if_due(last=last)
        if len(self.losses) > looks:
            losses = [f"{loss:.3f}" for _, loss in self.losses]
            reporter.detail(f"dev {' -> '.join(dict.fromkeys((losses[0], losses[-1])))}")
            rate = self.recipe.learning_rate * schedule(self.step, self.recipe)
            values = {"dev_bits_per_byte": self.losses[-1][1], "learning_rate": rate, "tokens": float(self.tokens)}
            reporter.measure(title, self.step, values)
        return stops

    def _evaluate(self) -> None:
        """Measure the averaged weights on the dev text and keep them if they are the best so far.

        Weights within the bound, or closer to it, are better than any weights farther from it.
        """
        with self.average.applied():
            model = self._model_to_measure()
            loss = self.bits_per_byte(model, self.dev)
            excess = self._excess(model)
            if math.isfinite(loss) and (excess, loss) < (self.best_excess, self.best_loss):
                self.best_excess, self.best_loss, self.best_step = excess, loss, self.step
                if self.own:
                    torch._foreach_copy_(self.best, [p.detach() for p in self.own])
        self.exchange.spread(self._read)
        if math.isfinite(loss):
            self.losses.append((self.step, loss))
            return
        self.diverged = True
        if not self.losses:
            raise MiniGPTError("The model gives no finite probabilities on the dev text; its weights are damaged.")

    def _model_to_measure(self) -> Any:
        """Return the model with the weights that the parameters hold at the moment, as they will be saved."""
        if self.group is not None:
            self.exchange.spread(self._read)
            return self.model if self.steps is None else self.steps.twin
        return self.model if self.steps is None else self.steps.refreshed_twin()

    def _excess(self, model: Any) -> float:
        """Return the bits per byte above the bound: 0 within it, and without one."""
        if self.bound is None:
            return 0.0
        cost = self.bits_per_byte(model, self.bound.text)
        return max(0.0, cost - self.bound.limit) if math.isfinite(cost) else math.inf

    def advance(self, batch: PaddedBatch) -> None:
        """Take one optimizer step on a batch; dropout depends on seed and step alone: resumed runs draw alike."""
        self.model.train()
        torch.manual_seed(self.seed + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule(self.step, self.recipe)
        if self.steps is not None:
            self.steps.gradients(batch)
        else:
            work = partial(gradients_of_parts, self.model, self.teacher, batch, self.recipe, self.exchange)
            work(self.portions.slices(len(batch.ids))) if self.group else self.portions.run(len(batch.ids), work)
        self.freeze.clear_gradients()
        self.exchange.clip(self.recipe.clip)
        self.optimizer.step()
        self.freeze.restore()
        self.exchange.spread(self._read)
        self.step += 1
        self.tokens += int((batch.lengths - 1).sum())
        self.average.update()

    def finish(self, *, keeps_last: bool = False) -> Training:
        """Put the best weights in place, or leave the last ones; free the memory of the steps; return the record."""
        with torch.no_grad():
            if self.own and not keeps_last:
                torch._foreach_copy_([p.data for p in self.own], self.best)
        self.steps = None
        self.exchange.spread(self.parameters)
        self.optimizer.zero_grad(set_to_none=True)
        return self.training_record()

    def training_record(self) -> Training:
        """Return what the run has done so far."""
        return Training(
            tokens=self.tokens,
            steps=self.step,
            learning_rate=self.recipe.learning_rate,
            best_step=self.best_step,
            seconds=time.perf_counter() - self.started,
            recipe=self.recipe.describe(),
            dev_losses=tuple(self.losses),
        )
