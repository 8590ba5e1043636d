"""One training run, step by step: its state, its looks at the dev text, its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import MiniGPTError
from minigpt.healing import checkpoint as checkpoints
from minigpt.healing.attention import causal_attention
from minigpt.healing.average import Average
from minigpt.healing.data import Bound, Padded, TokenText, epochs, noisy
from minigpt.healing.forward import autocast, bits_per_byte
from minigpt.healing.fused import LONG
from minigpt.healing.graphs import NO_GRAPH, GraphedSteps, can_capture
from minigpt.healing.losses import healing_gradient
from minigpt.healing.muon import optimizer_for
from minigpt.healing.recipe import Recipe
from minigpt.healing.teacher import Teacher
from minigpt.progress import Reporter
from minigpt.transformer.logits import logits_at
from minigpt.types import Training

CHECKPOINT_SECONDS = 300.0
HALF = (torch.bfloat16, torch.float16)
RISE = 1.02
"""A dev loss so much above the first one says that the learning rate is too high."""


class Run:
    """The state of one run."""

    def __init__(
        self,
        model: Any,
        dev: TokenText,
        recipe: Recipe,
        teacher: Teacher | None,
        seed: int,
        bound: Bound | None = None,
        *,
        backs_off: bool = False,
    ) -> None:
        self.backs_off, self.overshot = backs_off, False
        self.model, self.dev, self.recipe, self.teacher, self.seed = model, dev, recipe, teacher, seed
        self.bound, self.best_excess = bound, math.inf
        self.parameters: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = optimizer_for(model, self.parameters, recipe)
        self.average = Average(self.parameters, recipe.average)
        self.best: list[Tensor] = [p.detach().clone() for p in self.parameters]
        self.best_loss, self.best_step, self.step, self.tokens = math.inf, 0, 0, 0
        self.losses: list[tuple[int, float]] = []
        self.diverged = False
        self.started = self.saved = time.perf_counter()
        if teacher is not None:
            teacher.model.eval()
        self.steps: GraphedSteps | None = None
        teaches = teacher is None or next(teacher.model.parameters()).dtype in HALF
        if teaches and all(can_capture(each, recipe, self.device) for each in self.models):
            compiled = recipe.steps * recipe.tokens_per_step >= LONG
            self.steps = GraphedSteps(model, teacher, recipe, self.parameters, compiled=compiled)

    def go(
        self, text: TokenText, title: str, reporter: Reporter, checkpoint: Path | None = None, run_id: str = ""
    ) -> None:
        """Train until the steps are done or patience ends."""
        batches = self.batches(text)
        plain = self.recipe.adapter == "full" and self.recipe.precision != "fp32"
        if plain and self.steps is None and self.device.type == "cuda":
            reporter.note(f"{title} goes without a CUDA graph and is two to three times slower: {NO_GRAPH}")
        with ExitStack() as stack:
            if self.steps is not None:
                stack.enter_context(causal_attention(*self.models, self.steps.twin))
            self._prepare(text, reporter)
            left = self.recipe.steps - self.step
            for _ in reporter.track(range(self.step, self.recipe.steps), title=title, total=left):
                if self.look():
                    return
                self.advance(next(batches))
                if checkpoint is not None and time.perf_counter() - self.saved >= CHECKPOINT_SECONDS:
                    self.save(checkpoint, run_id, reporter)
            self.look(last=True)

    def batches(self, text: TokenText) -> Iterator[Padded]:
        """What is left to train on, from the current step."""
        recipe, seed = self.recipe, self.seed
        packed = self.steps is not None
        ordered = epochs(self._readable(text).windows, recipe.tokens_per_step, seed, bare=recipe.bare, packed=packed)
        left = islice(ordered, self.step, None)
        return noisy(left, recipe.noise, seed, self.step) if recipe.is_noisy else left

    def _readable(self, text: TokenText) -> TokenText:
        return self.teacher.can_read(text) if self.teacher is not None else text

    def _prepare(self, text: TokenText, reporter: Reporter) -> None:
        """Say what comes to the graph, and have the teacher read it once, unless noise changes what it reads."""
        if self.steps is None:
            return
        readable = self._readable(text)
        self.steps.expect(readable, reporter)
        if not self.recipe.is_noisy:
            self.steps.remember(readable)

    @property
    def models(self) -> list[Any]:
        """Student and teacher."""
        return [self.model] if self.teacher is None else [self.model, self.teacher.model]

    @property
    def _state(self) -> checkpoints.State:
        return checkpoints.State(
            parameters=self.parameters, optimizer=self.optimizer, average=self.average, best=self.best
        )

    def resume(self, path: Path, run_id: str) -> None:
        """Take up a checkpoint of the same run, if there is one."""
        found = checkpoints.load(path, run_id, self._state)
        if found is None:
            return
        self.step, self.tokens, self.losses = found.step, found.tokens, list(found.losses)
        self.best_step, self.best_loss, self.best_excess = found.best_step, found.best_loss, found.best_excess
        self.started = time.perf_counter() - found.seconds

    def save(self, path: Path, run_id: str, reporter: Reporter) -> None:
        """Write a checkpoint; where that fails the run goes on without."""
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
            checkpoints.save(path, progress, self._state)
        except MiniGPTError as error:
            reporter.note(f"No checkpoint: {error}")
        self.saved = time.perf_counter()

    def look(self, *, last: bool = False) -> bool:
        """Evaluate on the dev text when it is time; say whether to stop: no progress for long, or no way back.

        A run that backs off stops where the dev loss is well above where it started and has never been below, and has
        overshot, too, where all of it gained nothing.
        """
        due = last or self.step % self.recipe.evaluate_every == 0
        if due and not self.diverged and (not self.losses or self.losses[-1][0] != self.step):
            self._evaluate()
        if due and self.backs_off and self.step:
            self.overshot = self._overshot(last)
        return self.diverged or self.overshot or (due and 0 < self.recipe.patience <= self.step - self.best_step)

    def _overshot(self, last: bool) -> bool:
        first, *later = [loss for _, loss in self.losses]
        if any(loss < first for loss in later):
            return last and self.best_step == 0  # better on dev text, but never within the bound
        return self.diverged or last or later[-1] > RISE * first

    def _evaluate(self) -> None:
        with self.average.applied():
            model = self.model if self.steps is None else self.steps.refreshed()
            loss = bits_per_byte(model, self.dev, precision=self.recipe.precision)
            excess = self._excess(model)
            if (excess, loss) < (self.best_excess, self.best_loss):
                self.best_excess, self.best_loss, self.best_step = excess, loss, self.step
                torch._foreach_copy_(self.best, [p.detach() for p in self.parameters])
        if math.isfinite(loss):
            self.losses.append((self.step, loss))
            return
        self.diverged = True
        if not self.losses:
            raise MiniGPTError("The model gives no finite probabilities on the dev text; its weights are damaged.")

    def _excess(self, model: Any) -> float:
        """Bits per byte above the bound: 0 within it, or without one."""
        if self.bound is None:
            return 0.0
        cost = bits_per_byte(model, self.bound.text, precision=self.recipe.precision)
        return max(0.0, cost - self.bound.limit) if math.isfinite(cost) else math.inf

    def advance(self, batch: Padded) -> None:
        """One optimizer step. Its dropout depends on seed and step alone, so that a resumed run draws the same."""
        self.model.train()
        torch.manual_seed(self.seed + self.step)
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.recipe.learning_rate * schedule(self.step, self.recipe)
        if self.steps is not None:
            self.steps.gradients(batch)
        else:
            self._gradients(batch)
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        self.tokens += int((batch.lengths - 1).sum())
        self.average.update()

    def _gradients(self, batch: Padded) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        ids, places = batch.ids.to(self.device), batch.places.to(self.device)
        with autocast(self.device, self.recipe.precision):
            logits = logits_at(self.model, places, input_ids=ids)
            taught = self.teacher.logits(ids, places) if self.teacher is not None else None
        labels = batch.labels.to(self.device)
        gradient = healing_gradient(logits, labels, taught, self.recipe.distill, self.recipe.temperature)
        logits.backward(gradient)  # type: ignore[no-untyped-call]

    def finish(self) -> Training:
        """Put the best weights in place and say what was done."""
        with torch.no_grad():
            torch._foreach_copy_([p.data for p in self.parameters], self.best)
        self.steps = None
        self.optimizer.zero_grad(set_to_none=True)
        return self.told()

    def told(self) -> Training:
        """What was done so far."""
        return Training(
            tokens=self.tokens,
            steps=self.step,
            learning_rate=self.recipe.learning_rate,
            best_step=self.best_step,
            seconds=time.perf_counter() - self.started,
            recipe=self.recipe.describe(),
            dev_losses=tuple(self.losses),
        )


def schedule(step: int, recipe: Recipe) -> float:
    """Fraction of the peak learning rate: linear warm-up, then a cosine down to `recipe.final` at the last step."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final + (1 - recipe.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
