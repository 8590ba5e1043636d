"""Tune the unpruned parent on the domain: the honest control, and the model that is pruned and taught from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from minigpt import assets
from minigpt.files import fingerprint, link, read_json, write_json
from minigpt.healing import Found, prolong, search, steps_for
from minigpt.machine import release
from minigpt.pipeline.context import Context, save_model
from minigpt.pipeline.sampling import first_key, sampled_text
from minigpt.pipeline.text import dev_sample, token_text
from minigpt.types import Training

RATES = (0.5, 1.0, 2.0)
"""Learning rates that are tried, as multiples of the recipe's own."""


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

    Where none of them helps, lower ones are tried. It writes what is sampled (:mod:`minigpt.pipeline.sampling`), and
    the control is this or better.
    """
    recipe, key = context.settings.tune, first_key(context)
    purpose = "the control" if context.settings.control else "the writer of sampled text"

    def make(folder: Path) -> None:
        tokenizer = assets.load_tokenizer(context.parent.path)
        text = token_text(tokenizer, context.real_documents(), recipe.window)
        dev = token_text(tokenizer, dev_sample(context.corpus.dev, context.settings.text.dev_bytes), recipe.window)
        with context.reporter.stage(f"Tuning the parent ({purpose})"):
            found = search(
                lambda: context.load(context.parent.path, training=True),
                text,
                dev,
                recipe,
                [factor * recipe.learning_rate for factor in RATES],
                seed=context.text_seed,
                title="Tuning",
                reporter=context.reporter,
            )
            save_model(found.model, tokenizer, folder / "model", context.options.dtype)
            _tell(folder, found, found.training)

    folder, done = context.common.stage("tuned_first", key, make)
    return _read(folder, key, done.seconds)


def tuned_parent(context: Context) -> Tuned:
    """The parent after tuning on the healing text, the best of every run by dev loss.

    Short runs at three rates read the real text (:func:`first_tuned`) and stop when the dev loss stops falling; the
    best rate then gets a run without patience over all that healing reads, sampled text included, and over as many
    tokens, so that the control has had every chance to use them. Text that the parent sampled rarely helps it.
    """
    heal = context.settings.heal
    first, sampled = first_tuned(context), sampled_text(context)
    most = heal.steps * max(heal.tokens_per_step, heal.window)  # that healing can read
    key = fingerprint(first.key, context.text_key, most)

    def make(folder: Path) -> None:
        found = Found(model=None, training=first.training, tried=first.tried)
        if sampled.documents or most > max(each.tokens for each in first.tried):
            found = _long_run(context, found, most)
        if found.model is None:
            shutil.copytree(first.path, folder / "model", copy_function=link)
        else:
            tokenizer = assets.load_tokenizer(context.parent.path)
            save_model(found.model, tokenizer, folder / "model", context.options.dtype)
        read = (" on the real text", " on all of it") if sampled.documents else ("", "")
        _tell(folder, found, found.told(*read))

    folder, done = context.workspace.stage("tuned", key, make)
    return _read(folder, key, max(first.seconds, sampled.seconds) + done.seconds)


def _long_run(context: Context, found: Found, tokens: int) -> Found:
    """What was found before, or the parent after a run on so many tokens of everything, if that is better."""
    recipe, seed = context.settings.tune, context.text_seed
    text, dev = context.training_text(assets.load_tokenizer(context.parent.path), recipe.window)
    with context.reporter.stage("Tuning the parent (the control) on all text"):
        model = context.load(context.parent.path, training=True)
        return prolong(
            found,
            lambda: model,
            text,
            dev,
            recipe,
            steps=max(steps_for(model, text, recipe, tokens, seed=seed), recipe.steps),
            seed=seed,
            checkpoint=context.workspace.work / "tuning.safetensors",
            title="Tuning",
            reporter=context.reporter,
        )


def _tell(folder: Path, found: Found, training: Training) -> None:
    """Write down what is known of the runs."""
    release()
    write_json(folder / "training.json", training)
    write_json(folder / "tried.json", found.tried)


def _read(folder: Path, key: str, seconds: float) -> Tuned:
    return Tuned(
        path=folder / "model",
        training=read_json(folder / "training.json", Training),
        tried=read_json(folder / "tried.json", tuple[Training, ...]),
        key=key,
        seconds=seconds,
    )
