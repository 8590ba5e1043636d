"""Healing of the pruned model on the training text, with the model it was cut from as its teacher."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.evaluation import choose_opening
from minigpt.files import fingerprint, link, read_json, write_json
from minigpt.healing import Bound, Recipe, TokenText, bits_per_byte, train
from minigpt.healing import checkpoint as checkpoints
from minigpt.healing.adapters import check_adapter
from minigpt.healing.stored import StoredTeacher
from minigpt.healing.teacher import Teacher, teacher_of
from minigpt.healing.tokenized import behind, token_text
from minigpt.machine import free_memory, release
from minigpt.pipeline.read import Corpora
from minigpt.pipeline.run import Run, SavedModel, load, save_model
from minigpt.pipeline.teaching import stored_teacher
from minigpt.pipeline.text import TrainingText, tokenized
from minigpt.pipeline.unchanged import only_tokens_are_missing
from minigpt.planning import memory
from minigpt.planning.memory_healing import HealingForm, choose_healing, healing_peak, ways_to_teach
from minigpt.results import Training
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.transformer.ends import configs_in, document_end
from minigpt.types import PrunePlan

# Version of healing: raised when it changes, so that models of an older version are healed again.
VERSION = 4
# Words of a record of training that was left out.
LEFT_OUT = "left out"
NOTHING_TO_LEARN = (
    "Only tokens were removed, so the specialist already gives its teacher's probabilities for those it has, and "
    "training to copy them would add noise alone. Healing is left out. To train on the text itself, too: "
    "--set heal.distill=0.5, perhaps with a lower heal.learning_rate."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """A healed model.

    Attributes:
        model: the folder of the model.
        training: its training record.
        seconds: time that healing took.
    """

    model: SavedModel
    training: Training
    seconds: float


def heal(
    run: Run,
    corpora: Corpora,
    parent: assets.Parent,
    text: TrainingText,
    source: SavedModel,
    plan: PrunePlan,
    pruned: SavedModel,
    *,
    stage: str = "healed",
    title: str = "Healing",
) -> Healed:
    """Train the pruned model; with `heal.distill` above 0, the model it was cut from is its teacher.

    Args:
        run: the build.
        corpora: domain and general text; a bound reads the general dev text.
        parent: the untuned parent; a bound is relative to it.
        text: all training text.
        source: the model that was pruned.
        plan: the units that were kept.
        pruned: the model to heal.
        stage: name of the folder that the result is kept in.
        title: what the progress says.
    """
    if has_nothing_to_learn(run.settings.heal, source, plan, pruned):
        return _left_out(run, source, pruned, stage=stage, title=title)
    options, form = run.options, healing_form(run, source, pruned)
    recipe = form.recipe
    kept = [("stored", form.stored)] if form.stored else []
    key = fingerprint(VERSION, source.key, pruned.key, recipe, text.key, run.settings.keep_general, options.seed, *kept)

    def make(folder: Path) -> None:
        if not recipe.steps:
            _leave(pruned, recipe.describe(), recipe, folder)
            return
        with run.reporter.stage(title):
            tokenizer = assets.load_tokenizer(pruned.path)
            end = document_end(tokenizer, *configs_in(pruned.path))
            train_text, dev = tokenized(text, tokenizer, recipe.window, end=end)
            taught = _stored(run, form, source, plan, pruned, train_text, stage)
            model = load(run, pruned.path, training=not (form.saves_memory and recipe.adapter != "full"))
            bound = bound_of(run, corpora, parent, model, tokenizer)
            if recipe.distill and taught is None:
                taught = teacher_of(load(run, source.path), plan.tokens, model)
            training = train(
                model,
                train_text,
                dev,
                recipe,
                teacher=taught,
                bound=bound,
                seed=options.seed,
                backs_off=True,
                saves_memory=form.saves_memory,
                portions=form.portions,
                title=title,
                reporter=run.reporter,
                checkpoint=run.workspace.work / f"{stage}.safetensors",
            )
            save_model(model, tokenizer, folder / "model", options.dtype)
            write_json(folder / "training.json", training)
            del model, taught
            release()

    folder, done = run.workspace.stage(stage, key, make)
    return _healed(folder, key, done.seconds)


def _healed(folder: Path, key: str, seconds: float) -> Healed:
    """Read the record of a healed model, and return both."""
    training = read_json(folder / "training.json", Training)
    return Healed(model=SavedModel(path=folder / "model", key=key), training=training, seconds=seconds)


def check_healing(run: Run, parent: assets.Parent) -> None:
    """Refuse healing with adapters that the parent cannot have, before anything is built of it.

    Raises:
        ConfigError: the settings of the adapters do not fit.
    """
    heals = not run.options.masked and run.options.delta is None
    if heals and run.settings.heal.adapter != "full":
        check_adapter(assets.load_outline(parent.path), run.settings.heal)


def has_nothing_to_learn(recipe: Recipe, source: SavedModel, plan: PrunePlan, pruned: SavedModel) -> bool:
    """Say whether the teacher is all that would be learned from, and the pruned model gives its probabilities already.

    Args:
        recipe: the recipe of healing.
        source: the teacher, which was pruned.
        plan: the units that were kept.
        pruned: the pruned model.
    """
    if not recipe.steps or recipe.distill < 1 or plan.tokens is None:
        return False
    return only_tokens_are_missing(source.path, pruned.path, plan.tokens)


def _left_out(run: Run, source: SavedModel, pruned: SavedModel, *, stage: str, title: str) -> Healed:
    """Take a pruned model that has nothing to learn as the healed one, and say so."""
    recipe = run.settings.heal
    key = fingerprint(VERSION, source.key, pruned.key, recipe, "left out")

    def make(folder: Path) -> None:
        with run.reporter.stage(title):
            run.reporter.note(NOTHING_TO_LEARN)
            _leave(pruned, f"{recipe.describe()}; {LEFT_OUT}, as only tokens were removed", recipe, folder)

    folder, done = run.workspace.stage(stage, key, make)
    checkpoints.remove(run.workspace.work / f"{stage}.safetensors")  # of a healing that an older version began
    return _healed(folder, key, done.seconds)


def _stored(
    run: Run, form: HealingForm, source: SavedModel, plan: PrunePlan, pruned: SavedModel, text: TokenText, stage: str
) -> StoredTeacher | Teacher | None:
    """Store the teacher's answers, before the student is in memory, where the form reads them; else return None."""
    if not form.stored:
        return None
    vocab = int(configs_in(pruned.path)[0].vocab_size)
    return stored_teacher(run, source, plan, vocab, text, form.recipe, top=form.stored, stage=stage)


def healing_form(run: Run, source: SavedModel, pruned: SavedModel) -> HealingForm:
    """Choose how a pruned model is healed: by the recipe of the settings if that fits, else in a smaller form.

    Raises:
        ConfigError: nothing fits.
    """
    recipe = run.settings.heal.after_pruning(removed_of_decoder(source.path, pruned.path))
    student = memory.parts_of(configs_in(pruned.path)[0])
    teacher = memory.parts_of(configs_in(source.path)[0]) if recipe.distill else None
    accelerated, total = run.device != "cpu", free_memory(run.device)[1]
    if run.settings.memory.healing == "recipe":
        stored = ways_to_teach(teacher, recipe, run.settings.memory)[0] if recipe.steps else 0
        peak = healing_peak(student, teacher, recipe, saves_memory=False, accelerated=accelerated, stored=stored)
        return HealingForm(recipe=recipe, saves_memory=False, peak=peak, stored=stored)
    form = choose_healing(student, teacher, recipe, total=total, accelerated=accelerated, settings=run.settings.memory)
    if form.saves_memory or form.portions > 1 or form.stored:
        run.reporter.note(form.describe(student, total=total))
    return form


def _leave(pruned: SavedModel, description: str, recipe: Recipe, folder: Path) -> None:
    """Take a pruned model as the healed one: without a step there is nothing to load."""
    shutil.copytree(pruned.path, folder / "model", copy_function=link)
    nothing = Training(
        tokens=0, steps=0, learning_rate=recipe.learning_rate, best_step=0, seconds=0.0, recipe=description
    )
    write_json(folder / "training.json", nothing)


def removed_of_decoder(parent: Path, pruned: Path) -> float:
    """Return the fraction of the parent's parameters, embeddings aside, that the pruned model lacks."""
    from transformers import AutoConfig

    sizes = []
    for folder in (parent, pruned):
        config = AutoConfig.from_pretrained(folder)
        sizes.append(parameters_of(config, replace(shape_of(config), vocab_size=0)))
    return max(0.0, 1 - sizes[1] / sizes[0])


def bound_of(run: Run, corpora: Corpora, parent: assets.Parent, pruned: Any, tokenizer: Any) -> Bound | None:
    """Set the bound on general dev text: a multiple of the parent's bits per byte; None where there is no bound.

    Each model reads the text behind the opening that suits it best on the domain's dev text, as it is measured.

    Args:
        run: the build.
        corpora: domain and general text.
        parent: the untuned parent.
        pruned: the model that will be trained.
        tokenizer: its tokenizer.
    """
    limit = run.settings.keep_general
    if corpora.general is None or limit is None:
        return None
    documents, window = corpora.general.dev, run.settings.heal.window

    def read_by(model: Any, tokenizer: Any) -> TokenText:
        text, batch_tokens = token_text(tokenizer, documents, window), run.settings.evaluation.batch_tokens
        opening = choose_opening(model, tokenizer, corpora.domain.dev, batch_tokens=batch_tokens, reporter=run.reporter)
        return behind(text, opening.token)

    model = load(run, parent.path)
    cost = bits_per_byte(model, read_by(model, assets.load_tokenizer(parent.path)))
    del model
    release()
    return Bound(text=read_by(pruned, tokenizer), limit=limit * cost)
