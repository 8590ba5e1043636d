"""Repeats of the tuned parent with other seeds, which show the noise of a training run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from minigpt import assets
from minigpt.evaluation import Suite, summarize
from minigpt.files import fingerprint, read_json, write_json
from minigpt.healing import train
from minigpt.healing.schedules import REAL_TEXT
from minigpt.healing.tune import Attempt, best_of
from minigpt.machine import release
from minigpt.pipeline.measure import scores_of
from minigpt.pipeline.run import Run, load, save_model
from minigpt.pipeline.text import TrainingText, tokenized
from minigpt.pipeline.tuning import TunedParent
from minigpt.transformer.ends import configs_in, document_end

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A tuned parent with another order of the text.

    Attributes:
        seed: its seed.
        attempt: its run.
        bits: bits per byte on each measured text, by task.
    """

    seed: int
    attempt: Attempt
    bits: Mapping[str, float] = field(default_factory=dict)


def repeat_tuning(
    run: Run, suite: Suite, parent: assets.Parent, text: TrainingText, tuned: TunedParent
) -> tuple[Repeat, ...]:
    """Train the best recipe of the tuned parent again with other seeds, and measure each model; none is kept.

    Args:
        run: the build; the setting `tune.seeds` counts the tuned parent itself.
        suite: the texts that are measured.
        parent: the untuned parent.
        text: all training text.
        tuned: the tuned parent.
    """
    return tuple(_repeat(run, suite, parent, text, tuned, number) for number in range(1, run.settings.tune.seeds))


def _repeat(
    run: Run, suite: Suite, parent: assets.Parent, text: TrainingText, tuned: TunedParent, number: int
) -> Repeat:
    """Return one repeat, from its stage if it is finished."""
    best, seed, window = best_of(tuned.attempts), run.text_seed + number, run.settings.tune.window
    texts_only = replace(suite, questions={})

    def make(folder: Path) -> None:
        with run.reporter.stage(f"Tuning the parent again, with seed {seed}"):
            tokenizer, model = assets.load_tokenizer(parent.path), load(run, parent.path, training=True)
            end = document_end(tokenizer, *configs_in(parent.path))
            train_text, dev = tokenized(text, tokenizer, window, end=end, sampled=best.text != REAL_TEXT)
            training = train(model, train_text, dev, best.recipe, seed=seed, title="Tuning", reporter=run.reporter)
            save_model(model, tokenizer, folder / "model", run.options.dtype)
            del model
            release()
            items = scores_of(run, texts_only, load(run, folder / "model"), tokenizer)
            shutil.rmtree(folder / "model")
        bits = {result.task: result.value for result in summarize(items) if result.metric == "bits_per_byte"}
        attempt = replace(best, training=training)
        write_json(folder / "repeat.json", Repeat(seed=seed, attempt=attempt, bits=bits))

    key = fingerprint(VERSION, tuned.model.key, text.key, texts_only, run.settings.evaluation, seed)
    folder, _ = run.workspace.stage(f"tuned_seed{seed}", key, make)
    return read_json(folder / "repeat.json", Repeat)
