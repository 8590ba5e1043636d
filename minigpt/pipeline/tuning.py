"""Tuning of the parent on the domain: the tuned parent is the fair comparison, the pruned model and the teacher."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from minigpt import assets
from minigpt.files import fingerprint, link, read_json, write_json
from minigpt.healing import TuningResult, prolong, search, steps_for
from minigpt.healing.tokenized import token_text
from minigpt.machine import release
from minigpt.pipeline.run import Run, SavedModel, load, save_model
from minigpt.pipeline.text import TrainingText, tokenized
from minigpt.results import Training

# Learning rates that are tried, as multiples of the recipe's own.
RATES = (0.5, 1.0, 2.0)
# Version of the short tuning: raised when it changes, so that older results are made again.
SHORT_TUNING_VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedParent:
    """A tuned parent and the runs that it was chosen from.

    Attributes:
        model: the folder with the best weights, by dev loss.
        training: the run that made these weights.
        tried: all runs.
        seconds: time that all runs took, the sampling of text between them included.
    """

    model: SavedModel
    training: Training
    tried: tuple[Training, ...]
    seconds: float


def tune_briefly(run: Run, parent: assets.Parent, text: TrainingText) -> TunedParent:
    """Tune the parent in short runs on the real training text, at three learning rates; dev loss decides.

    Where none of the rates helps, lower ones are tried. The resulting model writes the sampled text, and the tuned
    parent is this model or a better one.
    """
    recipe, key = run.settings.tune, short_tuning_key(run, parent, text)
    purpose = "the fair comparison" if run.settings.tuned_parent else "the writer of sampled text"

    def make(folder: Path) -> None:
        tokenizer = assets.load_tokenizer(parent.path)
        real = token_text(tokenizer, (*text.real, *text.definitions), recipe.window)
        dev = token_text(tokenizer, text.dev, recipe.window)
        with run.reporter.stage(f"Tuning the parent ({purpose})"):
            result = search(
                lambda: load(run, parent.path, training=True),
                real,
                dev,
                recipe,
                [factor * recipe.learning_rate for factor in RATES],
                seed=run.text_seed,
                title="Tuning",
                reporter=run.reporter,
            )
            save_model(result.model, tokenizer, folder / "model", run.options.dtype)
            _write_runs(folder, result.training, result.tried)

    folder, done = run.common.stage("tuned_first", key, make)
    return _read(folder, key, done.seconds)


def short_tuning_key(run: Run, parent: assets.Parent, text: TrainingText) -> str:
    """Fingerprint the briefly tuned parent."""
    return fingerprint(
        SHORT_TUNING_VERSION,
        parent.fingerprint,
        text.real_key,
        (run.settings.tune, run.text_seed, run.options.dtype),
    )


def tune_parent(run: Run, parent: assets.Parent, text: TrainingText, short: TunedParent) -> TunedParent:
    """Tune the parent on all training text, and keep the best of all runs by dev loss.

    The short runs read the real text and stop when the dev loss stops falling. The best learning rate then gets a long
    run that does not stop early, over the same text and as many tokens as healing reads, so that the comparison with
    the healed model is fair.

    Args:
        run: the build.
        parent: the untuned parent.
        text: all training text, sampled text included.
        short: the briefly tuned parent, of :func:`tune_briefly`.
    """
    heal = run.settings.heal
    most = heal.steps * max(heal.tokens_per_step, heal.window)  # tokens that healing can read
    key = fingerprint(short.model.key, text.key, most)

    def make(folder: Path) -> None:
        result = TuningResult(model=None, training=short.training, tried=short.tried)
        if text.sampled or most > max(training.tokens for training in short.tried):
            result = _long_run(run, parent, text, result, most)
        if result.model is None:
            shutil.copytree(short.model.path, folder / "model", copy_function=link)
        else:
            tokenizer = assets.load_tokenizer(parent.path)
            save_model(result.model, tokenizer, folder / "model", run.options.dtype)
        read = (" on the real text", " on all of it") if text.sampled else ("", "")
        _write_runs(folder, result.training_record(*read), result.tried)

    folder, done = run.workspace.stage("tuned", key, make)
    return _read(folder, key, max(short.seconds, text.sampling_seconds) + done.seconds)


def _long_run(run: Run, parent: assets.Parent, text: TrainingText, before: TuningResult, tokens: int) -> TuningResult:
    """Train the parent over so many tokens of all training text; return the better of this and the earlier result."""
    recipe, seed = run.settings.tune, run.text_seed
    train, dev = tokenized(text, assets.load_tokenizer(parent.path), recipe.window)
    with run.reporter.stage("Tuning the parent (the fair comparison) on all text"):
        model = load(run, parent.path, training=True)
        return prolong(
            before,
            lambda: model,
            train,
            dev,
            recipe,
            steps=max(steps_for(model, train, recipe, tokens, seed=seed), recipe.steps),
            seed=seed,
            checkpoint=run.workspace.work / "tuning.safetensors",
            title="Tuning",
            reporter=run.reporter,
        )


def _write_runs(folder: Path, training: Training, tried: tuple[Training, ...]) -> None:
    """Write the records of the chosen run and of all runs, and free memory."""
    release()
    write_json(folder / "training.json", training)
    write_json(folder / "tried.json", tried)


def _read(folder: Path, key: str, seconds: float) -> TunedParent:
    """Read a tuned parent from its stage folder."""
    return TunedParent(
        model=SavedModel(path=folder / "model", key=key),
        training=read_json(folder / "training.json", Training),
        tried=read_json(folder / "tried.json", tuple[Training, ...]),
        seconds=seconds,
    )
