"""Teacher of healing as the planner of memory holds it: in memory, or as answers that were stored before."""

from __future__ import annotations

import torch

from minigpt.errors import ConfigError
from minigpt.files import fingerprint
from minigpt.healing import Recipe, TokenText
from minigpt.healing.answers import Answers, likeliest
from minigpt.healing.data import PaddedBatch, pieces_read
from minigpt.healing.forward import MAX_CPU_TOKENS, autocast
from minigpt.healing.planes import Layout
from minigpt.healing.stored import Store, StoredTeacher, write_answers
from minigpt.healing.teacher import Teacher, parent_ids_of, readable_part
from minigpt.machine import free_memory, measuring_dtype, release
from minigpt.pipeline.run import Run, SavedModel, load
from minigpt.pipeline.workspace import ANSWERS
from minigpt.planning import memory
from minigpt.planning.memory_healing import answering_peak
from minigpt.streaming.answers import write_streamed_answers
from minigpt.streaming.parent import StreamedParent, refusal
from minigpt.transformer.ends import configs_in
from minigpt.types import PrunePlan

# Version of stored answers: raised when they change, so that older ones are written again.
VERSION = 1
# Tokens of one pass of the teacher on an accelerator.
PASS_TOKENS = 8192
# Share of the free memory of the process that hidden states of a streamed teacher's text may take.
WAITING_SHARE = 0.25


def stored_teacher(
    run: Run, source: SavedModel, plan: PrunePlan, vocab: int, text: TokenText, recipe: Recipe, *, top: int, stage: str
) -> StoredTeacher:
    """Store a teacher's answers to all windows that a recipe reads, once, and return the teacher that they make.

    The teacher is in memory meanwhile if it fits there alone, and is read layer by layer if it does not.

    Args:
        run: the build.
        source: the teacher.
        plan: the plan that the student was cut by.
        vocab: size of the student's vocabulary.
        text: the training text, in the student's tokens.
        recipe: the recipe of healing.
        top: tokens to store at each place.
        stage: name of the healing, which names the folder.

    Raises:
        ConfigError: the teacher does not fit, and its files cannot be read layer by layer.
    """
    ids = parent_ids_of(plan.tokens, vocab)
    readable = readable_part(text, ids)
    seed, tokens = run.options.seed, recipe.tokens_per_step
    pieces = pieces_read(readable.windows, recipe.steps, tokens, seed, bare=recipe.bare)
    origins = [piece.origin for piece in pieces]
    dtype = str(measuring_dtype(run.device))
    key = fingerprint(
        VERSION, source.key, plan.tokens, text.digest, origins, recipe.temperature, recipe.precision, top, dtype
    )
    size = max(recipe.window, PASS_TOKENS if run.device != "cpu" else MAX_CPU_TOKENS)
    store = Store.planned(
        run.workspace.work / f"{stage}{ANSWERS}", key, Layout(count=top, vocab=vocab), pieces, min(size, tokens)
    )
    if store.missing(run.reporter):
        _write(run, source, ids, store, recipe, min(size, tokens))
    return StoredTeacher(store.folder, key, ids)


def _write(run: Run, source: SavedModel, ids: torch.Tensor | None, store: Store, recipe: Recipe, tokens: int) -> None:
    """Write the parts that are missing, with the teacher in the form that fits."""
    parts = memory.parts_of(configs_in(source.path)[0])
    accelerated = run.device != "cpu"
    free, _ = free_memory(run.device)
    whole = answering_peak(parts, tokens, store.layout.vocab, "resident", accelerated=accelerated)
    if run.settings.memory.streaming != "always" and whole.device <= memory.MARGIN * free:
        _write_resident(run, source, ids, store, recipe)
        release()
        return
    if (reason := refusal(source.path)) is not None:
        needed, room = f"{whole.device / memory.GB:.1f} GB ({whole.arithmetic()})", f"{free / memory.GB:.1f} GB"
        raise ConfigError(
            f"The teacher needs {needed}, {room} are free, and it cannot be read layer by layer: {reason} "
            "Without a teacher: --set heal.distill=0."
        )
    dtype = measuring_dtype(run.device)
    waiting = WAITING_SHARE * free_memory("cpu")[0]
    write_streamed_answers(
        store,
        StreamedParent(source.path, dtype=dtype, device=run.device),
        ids,
        temperature=recipe.temperature,
        precision=recipe.precision,
        tokens=max(tokens, int(waiting) // (parts.hidden * dtype.itemsize)),
        reporter=run.reporter,
    )
    release()


def _write_resident(run: Run, source: SavedModel, ids: torch.Tensor | None, store: Store, recipe: Recipe) -> None:
    """Write the parts that are missing, with all of the teacher in memory."""
    teacher = Teacher(model=load(run, source.path).eval(), parent_ids=ids)
    device = torch.device(run.device)

    def answer(batch: PaddedBatch) -> Answers:
        with autocast(device, recipe.precision):
            logits = teacher.logits(batch.ids.to(device), batch.places.to(device))
        return likeliest(logits, store.layout.count, recipe.temperature)

    write_answers(store, answer, run.reporter)
