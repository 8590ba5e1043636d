"""Healing of `large.py`: answers of the teacher on disk where it does not fit, then steps in the form that fits."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.healing import Recipe, Teacher, TokenText, train
from minigpt.healing.answers import Answers, likeliest
from minigpt.healing.data import PaddedBatch, pieces_read
from minigpt.healing.forward import MAX_CPU_TOKENS, autocast
from minigpt.healing.planes import Layout
from minigpt.healing.stored import Store, StoredTeacher, write_answers
from minigpt.healing.teacher import teacher_of
from minigpt.machine import measuring_dtype
from minigpt.pipeline.settings import PRESETS
from minigpt.planning.memory import MARGIN, MemorySettings, Parts
from minigpt.planning.memory_healing import LEARNING_RATE, RANK, HealingForm, answering_peak, choose_healing
from minigpt.streaming.answers import write_streamed_answers
from minigpt.streaming.parent import StreamedParent

# Tokens of one pass of the teacher on an accelerator, and of a sweep over a streamed one.
PASS_TOKENS, SWEEP_TOKENS = 8192, 1_000_000
Stage = Callable[..., Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of healing."""
    parser.add_argument("--heal", type=int, default=0, help="steps of healing (0: none)")
    parser.add_argument("--heal-tokens", type=int, default=16384, help="tokens of a step")
    parser.add_argument("--adapter", choices=("full", "lora", "qlora"), default="full", help="form that is asked for")
    parser.add_argument("--teacher", choices=("auto", "resident", "stored"), default="auto")


def heal(options: argparse.Namespace, parent: Path, pruned: Path, sizes: tuple[Parts, Parts], stage: Stage) -> str:
    """Heal a pruned parent, and return the line about the form.

    Args:
        options: of the command line.
        parent: folder of the parent, the teacher.
        pruned: folder of the pruned model.
        sizes: of parent and pruned model.
        stage: measures a stage: name, work, predicted peak.
    """
    recipe = replace(
        PRESETS["standard"].heal, steps=options.heal, tokens_per_step=options.heal_tokens, evaluate_every=options.heal
    )
    if options.adapter != "full":
        recipe = replace(recipe, adapter=options.adapter, rank=RANK, learning_rate=LEARNING_RATE)
    total = options.total
    accelerated = options.device != "cpu"
    form = choose_healing(
        sizes[1],
        sizes[0],
        recipe,
        total=total,
        accelerated=accelerated,
        settings=MemorySettings(teacher=options.teacher),
    )
    line = form.describe(sizes[1], total=total)
    print(line, flush=True)
    text, dev = draw(options, form.recipe, 2), draw(options, replace(form.recipe, steps=1), 3)
    teacher: Teacher | StoredTeacher | None = None
    if form.stored:
        teacher = _stored(options, parent, sizes[0], text, form, stage)
    dtype = torch.float32 if form.recipe.adapter == "full" else measuring_dtype(options.device)
    model = stage("load student", lambda: assets.load_model(pruned, dtype=dtype, device=options.device))
    if teacher is None:
        loaded = assets.load_model(parent, dtype=measuring_dtype(options.device), device=options.device)
        teacher = teacher_of(loaded, None, model)

    def steps() -> Any:
        return train(
            model,
            text,
            dev,
            form.recipe,
            teacher=teacher,
            saves_memory=form.saves_memory,
            portions=form.portions,
        )

    stage("healing", steps, form.peak.device)
    return line


def draw(options: argparse.Namespace, recipe: Recipe, seed: int) -> TokenText:
    """Draw as much random text as the steps of a recipe read."""
    generator = random.Random(seed)
    windows = max(4, recipe.steps * recipe.tokens_per_step // recipe.window)
    return TokenText(
        windows=tuple(
            tuple(generator.randrange(2, options.vocab) for _ in range(recipe.window)) for _ in range(windows)
        ),
        bytes=4 * windows * recipe.window,
    )


def _stored(
    options: argparse.Namespace, parent: Path, sizes: Parts, text: TokenText, form: HealingForm, stage: Stage
) -> StoredTeacher:
    """Store the teacher's answers, with all of it in memory where that fits."""
    recipe, accelerated = form.recipe, options.device != "cpu"
    size = min(recipe.tokens_per_step, PASS_TOKENS if accelerated else MAX_CPU_TOKENS)
    pieces = pieces_read(text.windows, recipe.steps, recipe.tokens_per_step, 0, bare=recipe.bare)
    layout = Layout(count=form.stored, vocab=options.vocab)
    store = Store.planned(parent.with_name(f"{parent.name}-answers"), "large", layout, pieces, size)
    peak = answering_peak(sizes, size, options.vocab, "resident", accelerated=accelerated)
    dtype, device = measuring_dtype(options.device), torch.device(options.device)

    def streamed() -> None:
        lazy = StreamedParent(parent, dtype=dtype, device=device)
        write_streamed_answers(store, lazy, None, temperature=1.0, precision="auto", tokens=SWEEP_TOKENS)

    def resident() -> None:
        teacher = Teacher(model=assets.load_model(parent, dtype=dtype, device=options.device))

        def answer(batch: PaddedBatch) -> Answers:
            with autocast(device):
                logits = teacher.logits(batch.ids.to(device), batch.places.to(device))
            return likeliest(logits, form.stored)

        write_answers(store, answer)

    if options.streaming == "always" or peak.device > MARGIN * options.total:
        peak = answering_peak(sizes, size, options.vocab, "streamed", accelerated=accelerated)
        stage("answers", streamed, peak.device)
    else:
        stage("answers", resident, peak.device)
    bytes_on_disk = sum(path.stat().st_size for path in store.folder.iterdir())
    places = sum(len(piece) - 1 for piece in pieces)
    print(f"answers: {bytes_on_disk / 1e9:.3f} GB on disk, {bytes_on_disk / places:.0f} bytes a place", flush=True)
    return StoredTeacher(store.folder, "large")
