"""Tune the unpruned parent on the domain: the honest control, and the model that is pruned and taught from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from minigpt import assets
from minigpt.files import fingerprint, read_json, write_json
from minigpt.heal import train_best
from minigpt.pipeline.context import Context, release, save_model
from minigpt.pipeline.presets import TUNE_LEARNING_RATES
from minigpt.types import Training

MARGIN = 1.1
"""Steps of the control beyond the healing's own: batches are padded to different shares."""


VERSION = 2
"""Of how the control is chosen: an older one in a workspace is tuned again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The tuned parent and how it was chosen; `tried` are the runs at all learning rates."""

    path: Path
    training: Training
    tried: tuple[Training, ...]
    key: str
    seconds: float


def tuned_parent(context: Context) -> Tuned:
    """The parent after tuning on the healing text, at the best of three learning rates by dev loss.

    The runs at the three rates stop when the dev loss stops falling; unless one of them read as many tokens as healing
    takes, the best rate then gets a run without patience over that many, so that it has had every chance to use them.
    The best dev step of all runs is the control.
    """
    recipe, heal = context.settings.tune, context.settings.heal
    longest = math.ceil(MARGIN * heal.steps * heal.tokens_per_step / recipe.tokens_per_step)
    key = fingerprint(
        VERSION,
        context.parent.fingerprint,
        context.text_key,
        recipe,
        longest,
        context.options.seed,
        context.options.dtype,
        TUNE_LEARNING_RATES,
    )

    def make(folder: Path) -> None:
        tokenizer = assets.load_tokenizer(context.parent.path)
        text, dev = context.training_text(tokenizer, recipe.window)
        with context.reporter.stage("Tuning the parent (the control)"):
            model, final, tried = train_best(
                lambda: context.load(context.parent.path, training=True),
                text,
                dev,
                recipe,
                TUNE_LEARNING_RATES,
                steps=longest,
                seed=context.options.seed,
                title="Tuning",
                reporter=context.reporter,
            )
            save_model(model, tokenizer, folder / "model", context.options.dtype)
            del model
            release()
            write_json(folder / "training.json", final)
            write_json(folder / "tried.json", tried)

    folder, done = context.workspace.stage("tuned", key, make)
    return Tuned(
        path=folder / "model",
        training=read_json(folder / "training.json", Training),
        tried=read_json(folder / "tried.json", tuple[Training, ...]),
        key=key,
        seconds=done.seconds,
    )
