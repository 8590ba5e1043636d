"""Tune the unpruned parent on the domain: the honest control, and the model that is pruned and taught from."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.files import fingerprint, read_json, write_json
from minigpt.heal import Found, prolong, search
from minigpt.pipeline.context import Context, release, save_model
from minigpt.pipeline.presets import TUNE_LEARNING_RATES
from minigpt.pipeline.text import dev_sample, token_text
from minigpt.types import Training

MARGIN = 1.1
"""Steps of the control beyond the healing's own: batches are padded to different shares."""


VERSION = 3
"""Of how the control is chosen: an older one in a workspace is tuned again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The tuned parent and how it was chosen; `tried` are the runs at all learning rates."""

    path: Path
    training: Training
    tried: tuple[Training, ...]
    key: str
    seconds: float


def first_tuned(context: Context) -> Tuned:
    """The parent after short runs on the real training text, at the best of three learning rates by dev loss.

    It writes what is sampled (:mod:`minigpt.pipeline.sampled`), and the control is this or better.
    """
    recipe = context.settings.tune
    key = fingerprint(
        VERSION,
        context.parent.fingerprint,
        context.text_key,
        recipe,
        context.text_seed,
        context.options.dtype,
        TUNE_LEARNING_RATES,
    )

    def make(folder: Path) -> None:
        tokenizer = assets.load_tokenizer(context.parent.path)
        text = token_text(tokenizer, context.real_documents(), recipe.window)
        dev = token_text(tokenizer, dev_sample(context.corpus.dev, context.settings.text.dev_bytes), recipe.window)
        with context.reporter.stage("Tuning the parent (the control)"):
            found = search(
                lambda: context.load(context.parent.path, training=True),
                text,
                dev,
                recipe,
                TUNE_LEARNING_RATES,
                seed=context.text_seed,
                title="Tuning",
                reporter=context.reporter,
            )
            _save(context, found, tokenizer, folder)

    folder, done = context.common.stage("tuned_first", key, make)
    return _read(folder, key, done.seconds)


def tuned_parent(context: Context) -> Tuned:
    """The parent after tuning on the healing text, the best of every run by dev loss.

    Short runs at three rates read the real text (:func:`first_tuned`) and stop when the dev loss stops falling; the
    best rate then gets a run without patience over all that healing reads, sampled text included, and over as many
    tokens, so that the control has had every chance to use them. Text that the parent sampled rarely helps it.
    """
    recipe, heal = context.settings.tune, context.settings.heal
    first = first_tuned(context)
    longest = math.ceil(MARGIN * heal.steps * heal.tokens_per_step / recipe.tokens_per_step)
    key = fingerprint(first.key, longest)

    def make(folder: Path) -> None:
        if not context.settings.text.sampled and longest <= max(each.steps for each in first.tried):
            shutil.copytree(first.path.parent, folder, dirs_exist_ok=True)
            return
        tokenizer = assets.load_tokenizer(context.parent.path)
        text, dev = context.training_text(tokenizer, recipe.window)
        with context.reporter.stage("Tuning the parent (the control) for long"):
            found = prolong(
                Found(model=None, training=first.training, tried=first.tried),
                lambda: context.load(context.parent.path, training=True),
                text,
                dev,
                recipe,
                steps=longest,
                seed=context.text_seed,
                title="Tuning",
                reporter=context.reporter,
            )
            if found.model is None:
                shutil.copytree(first.path, folder / "model")
            _save(context, found, tokenizer, folder)

    folder, done = context.workspace.stage("tuned", key, make)
    return _read(folder, key, first.seconds + done.seconds)


def _save(context: Context, found: Found, tokenizer: Any, folder: Path) -> None:
    """Weights, unless they are there, and what is known of the runs."""
    if found.model is not None:
        save_model(found.model, tokenizer, folder / "model", context.options.dtype)
    release()
    write_json(folder / "training.json", found.training)
    write_json(folder / "tried.json", found.tried)


def _read(folder: Path, key: str, seconds: float) -> Tuned:
    return Tuned(
        path=folder / "model",
        training=read_json(folder / "training.json", Training),
        tried=read_json(folder / "tried.json", tuple[Training, ...]),
        key=key,
        seconds=seconds,
    )
