"""Training runs, which keep the weights that are best on dev text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from minigpt.distributed.group import Group
from minigpt.files import fingerprint
from minigpt.healing import checkpoint as checkpoints
from minigpt.healing.adapters import trainable
from minigpt.healing.data import Bound, TokenText
from minigpt.healing.masks import Mask
from minigpt.healing.recipe import Recipe
from minigpt.healing.run import Run
from minigpt.healing.stored import StoredTeacher
from minigpt.healing.teacher import Teacher
from minigpt.healing.together import Assignment, received, together
from minigpt.healing.tune import BACK_OFF_DIVISOR, MAX_BACK_OFFS
from minigpt.machine import release
from minigpt.progress import SILENT, Reporter
from minigpt.results import Training


def train(
    model: Any,
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    *,
    teacher: Teacher | StoredTeacher | None = None,
    bound: Bound | None = None,
    mask: Mask | None = None,
    seed: int = 0,
    backs_off: bool = False,
    saves_memory: bool = False,
    portions: int = 1,
    checkpoint: Path | None = None,
    title: str = "Healing",
    watch: Callable[[], Callable[[Any], bool]] | None = None,
    keeps_last: bool = False,
    reporter: Reporter = SILENT,
) -> Training:
    """Train `model` in place and leave it with the weights that were best on the dev text, or with the last ones.

    Args:
        model: a causal language model; its weights become fp32, the arithmetic is that of `recipe.precision`.
        text: training text, tokenized for `model`.
        dev: text that decides which weights are kept and when to stop; never the held-out text.
        recipe: steps, learning rate, losses.
        teacher: model to distill from when `recipe.distill` is above 0, or its stored answers to the windows that the
            run reads; without it the loss is the cross-entropy.
        bound: what other text may cost; weights within it are kept before better ones beyond it.
        mask: weights that may change (None: all); the others keep their values to the bit.
        seed: sets the order of the text, and the initial values and dropout of adapters; torch's global random
            generator is seeded with it.
        backs_off: start over at a lower learning rate (divided by `BACK_OFF_DIVISOR`, at most `MAX_BACK_OFFS` times) if
            the dev loss rises and has never been below its start, or if the whole run gains nothing. Use it where the
            recipe's rate may be too high for the model, as for families that it was not measured on.
        saves_memory: recompute activations in the backward pass, and leave frozen weights in their precision.
        portions: portions of a batch that a step reads one after the other, which takes less memory; their gradients
            add up to those of the batch.
        checkpoint: file to resume from, written at most every five minutes and when the run is interrupted, and deleted
            when it is done. A file that is damaged or belongs to another model, text, recipe or seed is ignored.
        title: what the progress bar says.
        watch: returns, at every start of the run, what is asked after each evaluation behind the warm-up, with the
            model as the last step left it; True ends the run. It is not asked where processes divide the weights.
        keeps_last: leave the model with the weights of the last step, and not with those that were best.
        reporter: receives the progress.

    Returns:
        The record of the run, with the dev loss in bits per byte over its steps. A run that diverges ends early.

    Raises:
        CorpusError: there is no usable text.
        MiniGPTError: the model gives no finite probabilities to begin with.
    """
    if teacher is None or not recipe.distill:
        teacher, recipe = None, replace(recipe, distill=0.0)
    work = Assignment(
        model=model, text=text, dev=dev, recipe=recipe, teacher=teacher, bound=bound, mask=mask, seed=seed
    )
    work = replace(work, backs_off=backs_off, saves_memory=saves_memory, portions=portions)
    work = replace(work, checkpoint=checkpoint, title=title, watch=watch, keeps_last=keeps_last)
    return together(work, carry_out, reporter)


def carry_out(work: Assignment, group: Group | None, reporter: Reporter) -> Training:
    """Train as :func:`train` does; with a group, in each of its processes at the same time.

    Args:
        work: model, texts and settings.
        group: the processes, each with the same work (None: this one alone).
        reporter: receives the progress.
    """
    leads, recipe, title, checkpoint = group is None or group.leads, work.recipe, work.title, work.checkpoint
    run_id = identity(work) if checkpoint is not None and leads else ""
    back = checkpoints.read_back_off(checkpoint if leads else None, run_id)
    if group is not None:
        back = replace(back, times=group.share(back.times))
    given_rate = recipe.learning_rate
    while True:
        recipe = recipe.at(given_rate / BACK_OFF_DIVISOR**back.times)
        may_back_off = work.backs_off and back.times < MAX_BACK_OFFS
        with _started_run(replace(work, recipe=recipe), group, stops_on_harm=may_back_off) as run:
            attempt_id = fingerprint(run_id, recipe.learning_rate, run.steps is not None)
            if checkpoint is not None:
                run.resume(checkpoint, attempt_id, reporter)
            run.train(work.text, title, reporter, checkpoint, attempt_id)
            result, overshot, diverged = run.finish(keeps_last=work.keeps_last), run.overshot, run.diverged
        del run
        release()  # before the next run takes as much: fused kernels leave cycles behind
        if not overshot:
            break
        back = replace(back, times=back.times + 1, seconds=back.seconds + result.seconds)
        checkpoints.write_back_off(checkpoint if leads else None, back)
        lower_rate = given_rate / BACK_OFF_DIVISOR**back.times
        reporter.note(f"{title}: {_describe_harm(result, diverged)}; starting over at {lower_rate:g}.")
    result = _with_earlier_runs(result, back, given_rate)
    if not work.keeps_last:
        _note_the_end(result, title, reporter, diverged=diverged, backs_off=work.backs_off)
    checkpoints.remove(checkpoint if leads else None)
    return result


def _with_earlier_runs(result: Training, back: checkpoints.BackOff, rate: float) -> Training:
    """Add to a record that the run started over, and the time of the runs before."""
    if not back.times:
        return result
    description = f"{result.recipe}, started over from {rate:g}, which did harm"
    return replace(result, recipe=description, seconds=result.seconds + back.seconds)


def _note_the_end(result: Training, title: str, reporter: Reporter, *, diverged: bool, backs_off: bool) -> None:
    """Tell which weights a run went back to, where it did not end with its last ones for the usual reason."""
    if diverged:
        reporter.note(
            f"{title}: the loss was no longer a number after step {result.steps}; the weights are those of step "
            f"{result.best_step}, the best on the dev text."
        )
    if backs_off and not result.best_step and result.steps:
        reporter.note(f"{title} gained nothing on the dev text: the weights are those it began with.")


def _describe_harm(result: Training, diverged: bool) -> str:
    """Describe in one clause what a learning rate that is too high did."""
    if diverged:
        return f"the loss was no longer a number at a learning rate of {result.learning_rate:g}"
    first, last = result.dev_losses[0][1], result.dev_losses[-1][1]
    return f"the dev loss went from {first:.3f} to {last:.3f} at a learning rate of {result.learning_rate:g}"


@contextmanager
def _started_run(work: Assignment, group: Group | None, *, stops_on_harm: bool) -> Iterator[Run]:
    """Yield a new run of the model, which is a plain model again after the block."""
    torch.manual_seed(work.seed)
    with trainable(work.model, work.recipe, saves_memory=work.saves_memory) as trained:
        yield Run(
            trained,
            work.dev,
            work.recipe,
            work.teacher,
            work.seed,
            work.bound,
            stops_on_harm=stops_on_harm,
            mask=work.mask,
            # A graph reads a batch at once, and keeps what a checkpoint would compute again.
            captures=not work.saves_memory and work.portions == 1,
            portions=work.portions,
            group=group,
            sharded=work.sharded,
            watch=work.watch() if work.watch is not None else None,
        )


def identity(work: Assignment) -> str:
    """Return a fingerprint of all that the result of a run depends on."""
    taught_by: tuple[Any, ...] = ()
    teacher, bound, mask = work.teacher, work.bound, work.mask
    if teacher is not None:
        ids = None if teacher.parent_ids is None else teacher.parent_ids.tolist()
        name = teacher.key if isinstance(teacher, StoredTeacher) else checkpoints.weights_digest(teacher.model)
        taught_by = (name, ids)
    limit = None if bound is None else (bound.text.digest, bound.limit)
    masked = () if mask is None else (mask.digest,)  # a run without a mask keeps the name that it always had
    digests = (work.text.digest, work.dev.digest, checkpoints.weights_digest(work.model))
    return fingerprint(work.recipe, work.seed, *digests, taught_by, limit, *masked)


def help_to_train(group: Group) -> None:
    """Take part in :func:`train`."""
    carry_out(received(group), group, SILENT)
