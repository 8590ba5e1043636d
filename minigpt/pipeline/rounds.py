"""Rounds of a lottery ticket in a build: training and pruning on the build's text before anything is planned."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.files import fingerprint, read_json, write_json
from minigpt.healing import Recipe
from minigpt.healing.teacher import teacher_of
from minigpt.machine import release
from minigpt.methods import method_named
from minigpt.methods.material import gather
from minigpt.methods.ranking import rank
from minigpt.methods.scores import Scores
from minigpt.methods.table import ROUNDS
from minigpt.pipeline.run import Run, SavedModel, load
from minigpt.pipeline.text import PlanningText, TrainingText, calibration, tokenized
from minigpt.pipeline.workspace import ROUNDS_WORK
from minigpt.results import TicketRound
from minigpt.tickets.checks import check_units
from minigpt.tickets.language import Lesson, early_point, take
from minigpt.tickets.rounds import RoundRecord, load_tensors, save_tensors
from minigpt.tickets.settings import LotterySettings
from minigpt.tickets.structured import scores_from, structured_rounds
from minigpt.transformer.batches import Batch
from minigpt.transformer.ends import configs_in, document_end

SCORES, RECORDS = "scores.safetensors", "rounds.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredTicket:
    """Result of the rounds of a build.

    Attributes:
        scores: ranking of all units.
        rounds: record of each round, for the report.
        key: fingerprint of everything that the ranking depends on.
        seconds: time that the rounds took.
    """

    scores: Scores
    rounds: tuple[TicketRound, ...]
    key: str
    seconds: float


def lesson_of(
    run: Run, parent: assets.Parent, source: SavedModel, text: TrainingText, recipe: Recipe, tokenizer: Any
) -> Lesson:
    """Prepare the training that all rounds repeat, from the parent, with another model as the teacher.

    Args:
        run: the build.
        parent: the untuned parent.
        source: the teacher, which is loaded only if the recipe distills.
        text: the training text.
        recipe: recipe of a round.
        tokenizer: the parent's tokenizer.
    """
    end = document_end(tokenizer, *configs_in(parent.path))
    train_text, dev = tokenized(text, tokenizer, recipe.window, end=end)
    model = load(run, parent.path, training=True)
    return Lesson(
        model=model,
        text=train_text,
        dev=dev,
        recipe=recipe,
        teacher=teacher_of(load(run, source.path), None, model) if recipe.distill else None,
        seed=run.options.seed,
        backs_off=True,
        reporter=run.reporter,
    )


def check_rounds(run: Run, parent: assets.Parent) -> None:
    """Refuse what rounds of a method cannot do, before anything is read or trained for them.

    Raises:
        UnsupportedModel: the family has no units that they rank.
        ConfigError: the settings do not fit.
    """
    if ROUNDS in method_named(run.options.method).needs:
        settings, model = run.settings, assets.load_outline(parent.path)
        check_units(model, settings.lottery.for_units(settings.heal.steps), settings.heal)


def ticket_of(
    run: Run, parent: assets.Parent, planning: PlanningText, text: TrainingText, source: SavedModel
) -> StructuredTicket | None:
    """Run the rounds of a method that needs them; None for the other methods.

    Rounds start from the parent, with the recipe of healing and the model that is pruned as the teacher. A finished
    round is not repeated after a kill.

    Args:
        run: the build.
        parent: the untuned parent.
        planning: calibration text for the criterion.
        text: the training text.
        source: the model that is pruned and that teaches.

    Raises:
        UnsupportedModel: the family has no units that rounds rank.
        ConfigError: the settings do not fit.
    """
    if ROUNDS not in method_named(run.options.method).needs:
        return None
    check_rounds(run, parent)  # a point of a sweep was not checked before
    heal = run.settings.heal
    settings = run.settings.lottery.for_units(heal.steps)
    recipe = replace(heal, steps=settings.steps_of(heal.steps))
    key = fingerprint(
        parent.fingerprint, source.key, planning.key, text.key, settings, recipe, run.options.seed, *point_of(settings)
    )
    work = run.common.work / ROUNDS_WORK / key

    def make(folder: Path) -> None:
        tokenizer = assets.load_tokenizer(parent.path)
        lesson = lesson_of(run, parent, source, text, recipe, tokenizer)
        batches = calibration(planning, tokenizer, run.settings.plan.tokens)
        start = early_point(lesson, take(lesson.model), settings.rewind, work / "early.safetensors")
        ticket, scores = structured_rounds(
            work,
            start,
            lesson,
            lambda trained: _ranked(trained, batches, settings.criterion),
            settings,
            key=key,
            reporter=run.reporter,
        )
        save_tensors({name: getattr(scores, name) for name in ("ffn", "kv_groups", "layers")}, folder / SCORES)
        write_json(folder / RECORDS, [for_report(record) for record in ticket.records])
        del lesson
        release()

    folder, done = run.common.stage("rounds", key, make)
    shutil.rmtree(work.parent, ignore_errors=True)
    return StructuredTicket(
        scores=scores_from(load_tensors(folder / SCORES)),
        rounds=read_json(folder / RECORDS, tuple[TicketRound, ...]),
        key=key,
        seconds=done.seconds,
    )


def point_of(settings: LotterySettings) -> tuple[str, ...]:
    """Return what a key says of the weights that are rewound to: older versions took other weights of that training."""
    return ("last step",) if settings.rewind else ()


def _ranked(model: Any, batches: list[Batch], criterion: str) -> Scores:
    """Score the units of a trained model by the criterion."""
    scores = rank(method_named(criterion), gather(model, batches))
    assert scores is not None  # checked before any work
    return scores


def for_report(record: RoundRecord) -> TicketRound:
    """Turn the record of a round into that of the report."""
    return TicketRound(
        number=record.number,
        remaining=record.remaining,
        dev_bits_per_byte=record.facts["dev_bits_per_byte"],
        steps=round(record.facts["steps"]),
        tokens=round(record.facts["tokens"]),
        distance=record.distance,
        seconds=record.seconds,
    )
