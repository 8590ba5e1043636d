"""Tuning of the parent on the domain: the tuned parent is the fair comparison, the pruned model and the teacher."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.files import fingerprint, link, read_json, write_json
from minigpt.healing import TuningResult, prolong, search, steps_for
from minigpt.healing.ledger import Ledger
from minigpt.healing.tune import Attempt
from minigpt.machine import release
from minigpt.pipeline.run import Run, SavedModel, load, save_model
from minigpt.pipeline.text import TrainingText, tokenized
from minigpt.pipeline.workspace import LEDGERS
from minigpt.results import Training
from minigpt.transformer.ends import configs_in, document_end

# Versions of the two parts of tuning: raised when they change, so that older results are made again.
SHORT_TUNING_VERSION = 6
LONG_TUNING_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedParent:
    """A tuned parent and the runs that it was chosen from.

    Attributes:
        model: the folder with the best weights, by dev loss.
        training: the record of the training, as the report shows it.
        attempts: all runs.
        seconds: time that all runs took, the sampling of text between them included.
    """

    model: SavedModel
    training: Training
    attempts: tuple[Attempt, ...]
    seconds: float


def tune_briefly(run: Run, parent: assets.Parent, text: TrainingText) -> TunedParent:
    """Tune the parent in short runs on the real training text; dev loss decides between rates, lengths and optimizers.

    The resulting model writes the sampled text, and the tuned parent is this model or a better one. A run that is
    finished is not repeated after a kill.
    """
    settings, key = run.settings.tune, short_tuning_key(run, parent, text)
    purpose = "the fair comparison" if run.settings.tuned_parent else "the writer of sampled text"
    ledger = Ledger(folder=run.common.work / LEDGERS[0], key=key, reporter=run.reporter)

    def make(folder: Path) -> None:
        tokenizer = assets.load_tokenizer(parent.path)
        end = document_end(tokenizer, *configs_in(parent.path))
        real, dev = tokenized(text, tokenizer, settings.window, end=end, sampled=False)
        with run.reporter.stage(f"Tuning the parent ({purpose})"):
            result = search(
                lambda: load(run, parent.path, training=True),
                real,
                dev,
                settings,
                seed=run.text_seed,
                ledger=ledger,
                title="Tuning",
                reporter=run.reporter,
            )
            save_model(result.model, tokenizer, folder / "model", run.options.dtype)
            _write_runs(folder, result)

    return _stage(run.common.stage, "tuned_first", key, make, ledger)


def short_tuning_key(run: Run, parent: assets.Parent, text: TrainingText) -> str:
    """Fingerprint the briefly tuned parent; repeats with other seeds, and the end of the long run, do not change it."""
    settings = replace(run.settings.tune, seeds=1, looks=0)
    return fingerprint(
        SHORT_TUNING_VERSION, parent.fingerprint, text.real_key, (settings, run.text_seed, run.options.dtype)
    )


def tune_parent(run: Run, parent: assets.Parent, text: TrainingText, short: TunedParent) -> TunedParent:
    """Tune the parent on all training text, and keep the best of all runs by dev loss.

    The short runs read the real text. Where there is sampled text, the best recipe also gets a long run over all of it
    and as many tokens as healing reads, which is ended early if the dev loss stops falling. Without sampled text there
    is a long run only if no short one read as much as healing does, and it runs to its end, so that the comparison
    with the healed model is fair.

    Args:
        run: the build.
        parent: the untuned parent.
        text: all training text, sampled text included.
        short: the briefly tuned parent, of :func:`tune_briefly`.
    """
    heal = run.settings.heal
    most = heal.steps * max(heal.tokens_per_step, heal.window)  # tokens that healing can read
    key = fingerprint(LONG_TUNING_VERSION, short.model.key, text.key, most, run.settings.tune.looks)
    ledger = Ledger(folder=run.workspace.work / LEDGERS[1], key=key, reporter=run.reporter)

    def make(folder: Path) -> None:
        result = TuningResult(model=None, attempts=short.attempts)
        if text.sampled or most > max(attempt.training.tokens for attempt in short.attempts):
            result = _long_run(run, parent, text, result, most, ledger)
        if result.model is None:
            shutil.copytree(short.model.path, folder / "model", copy_function=link)
        else:
            tokenizer = assets.load_tokenizer(parent.path)
            save_model(result.model, tokenizer, folder / "model", run.options.dtype)
        _write_runs(folder, result)

    tuned = _stage(run.workspace.stage, "tuned", key, make, ledger)
    return replace(tuned, seconds=max(short.seconds, text.sampling_seconds) + tuned.seconds)


def _long_run(
    run: Run, parent: assets.Parent, text: TrainingText, before: TuningResult, tokens: int, ledger: Ledger
) -> TuningResult:
    """Train the parent over so many tokens of all training text; return the better of this and the earlier result."""
    settings, seed = run.settings.tune, run.text_seed
    tokenizer = assets.load_tokenizer(parent.path)
    end = document_end(tokenizer, *configs_in(parent.path))
    train, dev = tokenized(text, tokenizer, settings.window, end=end)
    with run.reporter.stage("Tuning the parent (the fair comparison) on all text"):
        model = load(run, parent.path, training=True)
        return prolong(
            before,
            lambda: model,
            train,
            dev,
            settings,
            steps=max(steps_for(model, train, settings.recipe(), tokens, seed=seed), settings.steps),
            ends_early=bool(text.sampled),
            seed=seed,
            ledger=ledger,
            title="Tuning",
            reporter=run.reporter,
        )


def _write_runs(folder: Path, result: TuningResult) -> None:
    """Write the record of the training and all runs, and free memory."""
    release()
    write_json(folder / "training.json", result.training_record())
    write_json(folder / "attempts.json", result.attempts)


def _stage(stage: Callable[..., Any], name: str, key: str, make: Callable[[Path], None], ledger: Ledger) -> TunedParent:
    """Run a stage of tuning unless it is finished, drop the ledger of its runs, and read the result."""
    folder, done = stage(name, key, make)
    ledger.remove()
    return TunedParent(
        model=SavedModel(path=folder / "model", key=key),
        training=read_json(folder / "training.json", Training),
        attempts=read_json(folder / "attempts.json", tuple[Attempt, ...]),
        seconds=done.seconds,
    )
