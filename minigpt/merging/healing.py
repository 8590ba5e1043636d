"""Healing of a merge: answers, training, and the healed model, each of which is kept until the merge is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from minigpt import assets
from minigpt.files import fingerprint, read_json, write_json
from minigpt.merging.reader import DevReader
from minigpt.merging.recipe import MergeRecipe
from minigpt.progress.rates import Work
from minigpt.progress.stages import Numbered, Stage, discount, passing
from minigpt.results import Training
from minigpt.tickets.delta import digests, in_dtype, parameters_of
from minigpt.tickets.delta_healing import (
    TITLE,
    Lesson,
    changed_by_any,
    equal_shares,
    heal_merged,
    healing_recipe,
    store_lessons,
)
from minigpt.tickets.delta_merge import merged
from minigpt.tickets.delta_store import Ticket
from minigpt.tickets.language import put
from minigpt.tickets.rounds import load_tensors, save_tensors

STAGES = (
    Stage(name="answers", title="Storing the answers of each ticket"),
    Stage(name="heal", title="Healing the merged ticket"),
)
ANSWERS, CHECKPOINT, HEALED, RECORD = "answers", "checkpoint.safetensors", "healed.safetensors", "healed.json"
# A backward pass takes about twice as long as the forward pass.
PASSES_OF_A_STEP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """Record of a finished healing, beside its tensors.

    Attributes:
        key: fingerprint of tickets, text, merged weights and recipe.
        weights: fingerprint of the healed tensors.
        training: record of the training.
    """

    key: str
    weights: str
    training: Training


def heal(
    reader: DevReader,
    parent: Mapping[str, Tensor],
    tickets: Sequence[Ticket],
    weights: Mapping[str, Tensor],
    recipe: MergeRecipe,
    folder: Path,
    reporter: Numbered,
) -> tuple[dict[str, Tensor], Training]:
    """Train the changed weights of a merged model, and return its tensors in the stored type, with the record.

    Args:
        reader: texts of the domains, and the model that answers them.
        parent: the parent's tensors by name.
        tickets: the tickets that were merged, which teach.
        weights: tensors of the merged model, in the type that is stored.
        recipe: number of steps and learning rate.
        folder: folder of the answers, the checkpoint and the healed tensors, from which a killed healing goes on.
        reporter: told about progress.
    """
    changes, planned = [ticket.changes for ticket in tickets], healing_recipe(recipe.heal, recipe.learning_rate)
    texts = equal_shares(reader.training_texts())
    lessons = [
        Lesson(text=text, dev=dev, weights=partial(merged, parent, [change], "sum"))
        for text, dev, change in zip(texts, reader.dev, changes, strict=True)
    ]
    teachers = fingerprint([ticket.record.result for ticket in tickets])
    read = [text.digest for text in (*texts, *reader.dev)]
    start = fingerprint(teachers, read, planned, digests(weights))
    reporter.weigh(works_of(recipe, most=sum(text.tokens for text in texts)))
    with passing(reporter, "answers", "Storing the answers of each ticket"):
        teacher = store_lessons(lessons, reader.model, planned, folder / ANSWERS, key=teachers, reporter=reporter)
    with passing(reporter, "heal", TITLE):
        if (finished := _finished(folder, start)) is not None:
            discount(reporter, "heal")
            return finished
        model = put(assets.load_model(reader.folder, dtype=torch.float32, device=reader.model.device), weights)
        saved = folder / CHECKPOINT
        mask = changed_by_any(changes, parent)
        training = heal_merged(model, mask, lessons, planned, teacher, checkpoint=saved, reporter=reporter)
        training = replace(training, recipe="changed weights, " + training.recipe.removeprefix("all weights, "))
        dtype = next(iter(weights.values())).dtype
        healed = {name: tensor.to("cpu") for name, tensor in in_dtype(parameters_of(model), dtype).items()}
        save_tensors(healed, folder / HEALED)
        write_json(folder / RECORD, Healed(key=start, weights=fingerprint(digests(healed)), training=training))
    return healed, training


def works_of(recipe: MergeRecipe, most: float = math.inf) -> dict[str, Work]:
    """Return the work of a healing, in tokens: each ticket answers the text that is read, and training reads it.

    Args:
        recipe: number of steps; none is no work.
        most: tokens of the training text, where they are known.
    """
    if not recipe.heal:
        return {}
    tokens = healing_recipe(recipe.heal).tokens_per_step
    step = float(PASSES_OF_A_STEP * tokens)
    return {
        "answers": Work(kind="read", operations=min(most, recipe.heal * tokens)),
        "heal": Work(kind="train", operations=recipe.heal * step, loop=TITLE, per_item=step),
    }


def _finished(folder: Path, key: str) -> tuple[dict[str, Tensor], Training] | None:
    """Return the tensors and the record of a healing that is finished; None if there is none with this key."""
    if not (folder / RECORD).is_file() or not (folder / HEALED).is_file():
        return None
    record = read_json(folder / RECORD, Healed)
    if record.key != key:
        return None
    healed = load_tensors(folder / HEALED)
    return (healed, record.training) if fingerprint(digests(healed)) == record.weights else None
