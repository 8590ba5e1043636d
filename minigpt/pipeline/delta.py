"""Delta ticket of a build: a specialist that changes a few of the parent's weights, stored as these changes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from minigpt import assets
from minigpt.evaluation import ItemScores
from minigpt.files import fingerprint, read_json, write_json
from minigpt.healing import Recipe, Teacher, TokenText, train
from minigpt.healing.teacher import teacher_of
from minigpt.machine import release
from minigpt.methods.ranking import keep_everything
from minigpt.pipeline.controls import compare_with_controls
from minigpt.pipeline.groundwork import Groundwork
from minigpt.pipeline.healing import bound_of
from minigpt.pipeline.measure import measure
from minigpt.pipeline.recipe import absolute_base
from minigpt.pipeline.run import Run, SavedModel, load, save_model
from minigpt.pipeline.text import tokenized
from minigpt.results import StageReport, Training
from minigpt.tickets.delta import apply, in_dtype, parameters_of
from minigpt.tickets.delta_places import FOLDER
from minigpt.tickets.delta_store import DTYPES, make_ticket, read, save_specialist, write
from minigpt.tickets.delta_training import Round, mask_of, rewind, round_recipe, rounds_of, train_masked
from minigpt.tickets.language import put
from minigpt.transformer.arch import shape_of
from minigpt.transformer.ends import configs_in, document_end
from minigpt.types import PrunePlan

# Version of delta tickets: raised when their making changes, so that older ones are made again.
VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaBuild:
    """A finished delta ticket.

    Attributes:
        ticket: folder of the ticket.
        model: folder of the model that it stands for, made from the ticket's files.
        stage: the stage of the report; its bytes are those of the ticket.
        plan: a plan that keeps everything.
        scores: items of the model.
    """

    ticket: Path
    model: Path
    stage: StageReport
    plan: PrunePlan
    scores: ItemScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """Text and parent that every round reads.

    Attributes:
        text: training text.
        dev: dev text.
        parent: the parent's tensors by name, in the type that is stored.
        tokenizer: the parent's tokenizer.
    """

    text: TokenText
    dev: TokenText
    parent: dict[str, Tensor]
    tokenizer: Any


def make_delta(run: Run, ground: Groundwork, fraction: float) -> DeltaBuild:
    """Find a delta ticket in rounds, store it, and measure the model that comes back from its files.

    Args:
        run: the build.
        ground: corpora, parent, text and controls; the tuned parent is where the rounds start.
        fraction: share of the weights that it may change.
    """
    trainee = _trainee(run, ground)
    trainings, seconds = list[Training](), 0.0
    if ground.tuned is not None:
        start = ground.tuned.model
    else:
        start, training, seconds = _dense(run, ground, trainee)
        trainings.append(training)
    last = start
    for number, step in enumerate(rounds_of(fraction, run.settings.delta), 1):
        last, training, took = _round(run, ground, trainee, start, last, step, number)
        trainings.append(training)
        seconds += took
    base = absolute_base(run.options.base)
    key = fingerprint(VERSION, last.key, run.settings.delta.values, run.options.dtype, base, run.domain.name)

    def make(folder: Path) -> None:
        with run.reporter.stage("Storing the delta ticket"):
            result = in_dtype(_weights_after(trainee, last), DTYPES[run.options.dtype])
            ticket = make_ticket(
                trainee.parent,
                result,
                base=base,
                domains=(run.domain.name,),
                values=run.settings.delta.values,
            )
            write(ticket, folder / FOLDER)
            save_specialist(folder / FOLDER, folder / "model", reporter=run.reporter)

    folder, done = run.workspace.stage("delta", key, make)
    measured = measure(run, ground.suite, "delta", SavedModel(path=folder / "model", key=key))
    size = sum(path.stat().st_size for path in (folder / FOLDER).iterdir())
    measured = replace(measured, report=replace(measured.report, bytes=size))
    stage = compare_with_controls(
        ground.controls,
        measured,
        same_vocabulary=True,
        seconds=seconds + done.seconds,
        training=combined(trainings, fraction, run.settings.delta.rounds),
    )
    plan = keep_everything(
        shape_of(AutoConfig.from_pretrained(ground.parent.path)),
        base_model=run.options.base,
        method="delta",
        seed=run.options.seed,
    )
    parameters = stage.parameters
    whole = replace(plan, parameters_before=parameters, parameters_after=parameters, target_parameters=parameters)
    return DeltaBuild(ticket=folder / FOLDER, model=folder / "model", stage=stage, plan=whole, scores=measured.scores)


def combined(trainings: list[Training], fraction: float, rounds: int) -> Training:
    """Combine the trainings of a ticket: tokens, steps and seconds of all, the losses of the last one.

    Args:
        trainings: records of the rounds in order, behind that of all weights where there is no tuned parent.
        fraction: share of the weights that the last round may change.
        rounds: number of rounds.
    """
    last = trainings[-1]
    before = sum(training.steps for training in trainings[:-1])
    return replace(
        last,
        tokens=sum(training.tokens for training in trainings),
        steps=before + last.steps,
        best_step=before + last.best_step,
        seconds=sum(training.seconds for training in trainings),
        dev_losses=tuple((before + step, loss) for step, loss in last.dev_losses),
        recipe=f"{rounds} round{'s' if rounds > 1 else ''} down to {100 * fraction:g} % of the weights, from "
        f"{'all weights trained' if len(trainings) > rounds else 'the tuned parent'}; the last: "
        + last.recipe.removeprefix("all weights, "),
    )


def _trainee(run: Run, ground: Groundwork) -> Trainee:
    """Tokenize the text, and read the parent in the type that is stored."""
    path, recipe = ground.parent.path, run.settings.heal
    tokenizer = assets.load_tokenizer(path)
    text, dev = tokenized(ground.text, tokenizer, recipe.window, end=document_end(tokenizer, *configs_in(path)))
    dtype = DTYPES[run.options.dtype]
    model: Any = assets.load_model(path, dtype=dtype)
    # transformers keeps some tensors of some families in fp32, which would not be those that are stored.
    return Trainee(text=text, dev=dev, parent=parameters_of(model.to(dtype)), tokenizer=tokenizer)


def _dense(run: Run, ground: Groundwork, trainee: Trainee) -> tuple[SavedModel, Training, float]:
    """Train all weights of the parent where the settings leave out the tuned parent: the rounds need a start."""
    recipe = replace(run.settings.heal, distill=0.0, noise=0.0)
    key = fingerprint(
        VERSION, ground.parent.fingerprint, ground.text.key, recipe, run.options.seed, run.options.dtype,
        *_bounded(run, ground),
    )  # fmt: skip

    def make(folder: Path) -> None:
        with run.reporter.stage("Training all weights, where the ticket starts"):
            model = load(run, ground.parent.path, training=True)
            title, saved = "Training all weights", run.workspace.work / "delta_dense.safetensors"
            training = train(
                model,
                trainee.text,
                trainee.dev,
                recipe,
                bound=bound_of(run, ground.corpora, ground.parent, model, trainee.tokenizer),
                seed=run.options.seed,
                backs_off=True,
                checkpoint=saved,
                title=title,
                reporter=run.reporter,
            )
            save_model(model, trainee.tokenizer, folder / "model", run.options.dtype)
            write_json(folder / "training.json", training)
            del model
            release()

    folder, done = run.workspace.stage("delta_dense", key, make)
    dense = SavedModel(path=folder / "model", key=key)
    return dense, read_json(folder / "training.json", Training), done.seconds


def _round(
    run: Run, ground: Groundwork, trainee: Trainee, start: SavedModel, last: SavedModel, step: Round, number: int
) -> tuple[SavedModel, Training, float]:
    """Run one round, unless it is finished: choose the mask, rewind the rest to the parent, train on.

    Args:
        run: the build.
        ground: the parent.
        trainee: text and parent.
        start: the tuned parent, which is also the teacher.
        last: the model of the round before; `start` for the first.
        step: share and steps of the round.
        number: number of the round, from 1.

    Returns:
        The folder of the round's changes in fp32, the record of its training, and its seconds.
    """
    settings, seed = run.settings.delta, run.options.seed + number - 1
    recipe = round_recipe(run.settings.heal, settings, step.steps)
    chosen_by = (settings.score, settings.scope)
    key = fingerprint(
        VERSION, start.key, last.key, ground.text.key, recipe, step, chosen_by, seed, run.options.dtype,
        *_bounded(run, ground),
    )  # fmt: skip
    title = f"Round {number} of {settings.rounds}: {100 * step.fraction:.3g} % of the weights"

    def make(folder: Path) -> None:
        with run.reporter.stage(title):
            model = _model_after(run, ground, trainee, last, first=last is start)
            mask = mask_of(
                model, trainee.parent, step.fraction, settings, text=trainee.text, recipe=recipe, seed=run.text_seed
            )
            rewind(model, trainee.parent, mask)
            training = train_masked(
                model,
                mask,
                trainee.text,
                trainee.dev,
                recipe,
                teacher=_teacher(run, start, recipe, model),
                bound=bound_of(run, ground.corpora, ground.parent, model, trainee.tokenizer),
                seed=seed,
                checkpoint=run.workspace.work / f"delta_{number}.safetensors",
                title=title,
                reporter=run.reporter,
            )
            before = in_dtype(trainee.parent, torch.float32)
            after = {name: tensor.detach().cpu() for name, tensor in parameters_of(model).items()}
            write(make_ticket(before, after, base=run.options.base, domains=(run.domain.name,)), folder / FOLDER)
            write_json(folder / "training.json", training)
            del model
            release()

    folder, done = run.workspace.stage(f"delta_{number}", key, make)
    changes = SavedModel(path=folder / FOLDER, key=key)
    return changes, read_json(folder / "training.json", Training), done.seconds


def _bounded(run: Run, ground: Groundwork) -> tuple[Any, ...]:
    """Return what a key says of the bound on general text; nothing where there is none."""
    general, limit = ground.corpora.general, run.settings.keep_general
    return () if general is None or limit is None else (limit, general.fingerprint)


def _teacher(run: Run, start: SavedModel, recipe: Recipe, model: Any) -> Teacher | None:
    """Load the tuned parent as the teacher; None where nothing is distilled."""
    return teacher_of(load(run, start.path), None, model) if recipe.distill else None


def _model_after(run: Run, ground: Groundwork, trainee: Trainee, last: SavedModel, *, first: bool) -> Any:
    """Load the model that a round starts from, in fp32: the tuned parent, or what the last round left."""
    if first:
        return load(run, last.path, training=True)
    return put(load(run, ground.parent.path, training=True), _weights_after(trainee, last))


def _weights_after(trainee: Trainee, last: SavedModel) -> dict[str, Tensor]:
    """Return the tensors after a round, in fp32: those of the parent in the stored type, with the round's changes."""
    tensors = in_dtype(trainee.parent, torch.float32)
    apply(tensors, read(last.path).changes)
    return tensors
