"""Heal the pruned model on the domain's text, taught by the model it was cut from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.files import fingerprint, read_json, write_json
from minigpt.healing import Bound, Teacher, bits_per_byte, train
from minigpt.machine import release
from minigpt.pipeline.context import Context, save_model
from minigpt.pipeline.sampling import sampled_text
from minigpt.pipeline.text import token_text
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.types import PrunePlan, Training

VERSION = 3
"""Of how healing goes: a model that an older one healed is healed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """The healed model and its training."""

    path: Path
    training: Training
    key: str
    seconds: float


def heal(context: Context, pruned: Path, pruned_key: str, plan: PrunePlan, source: Path) -> Healed:
    """Train the model in `pruned`; with `heal.distill` above 0 the model in `source` is its teacher."""
    options = context.options
    recipe = context.settings.heal.after_pruning(removed_of_decoder(source, pruned))
    key = fingerprint(VERSION, pruned_key, recipe, context.text_key, context.settings.keep_general, options.seed)
    told = context.settings.control or context.shared is not None  # by the control, or not a single point's time
    written = 0.0 if told else sampled_text(context).seconds

    def make(folder: Path) -> None:
        with context.reporter.stage("Healing"):
            tokenizer = assets.load_tokenizer(pruned)
            text, dev = context.training_text(tokenizer, recipe.window)
            bound = _bound(context, tokenizer)
            model = context.load(pruned, training=True)
            teacher = _teacher(context, source, plan, model) if recipe.distill else None
            training = train(
                model,
                text,
                dev,
                recipe,
                teacher=teacher,
                bound=bound,
                seed=options.seed,
                backs_off=True,
                reporter=context.reporter,
                checkpoint=context.workspace.work / "healing.safetensors",
            )
            save_model(model, tokenizer, folder / "model", options.dtype)
            write_json(folder / "training.json", training)
            del model, teacher
            release()

    folder, done = context.workspace.stage("healed", key, make)
    training = read_json(folder / "training.json", Training)
    return Healed(path=folder / "model", training=training, key=key, seconds=done.seconds + written)


def removed_of_decoder(parent: Path, pruned: Path) -> float:
    """The share of the parameters of the parent, embeddings aside, that the pruned model lacks."""
    from transformers import AutoConfig

    sizes = []
    for folder in (parent, pruned):
        config = AutoConfig.from_pretrained(folder)
        sizes.append(parameters_of(config, replace(shape_of(config), vocab_size=0)))
    return max(0.0, 1 - sizes[1] / sizes[0])


def _bound(context: Context, tokenizer: Any) -> Bound | None:
    """What the general dev text may cost the specialist, if that is bounded: a multiple of what it costs the parent."""
    if context.bounded is None or context.settings.keep_general is None:
        return None
    documents, window = context.bounded.dev, context.settings.heal.window
    parent, own = context.load(context.parent.path), assets.load_tokenizer(context.parent.path)
    cost = bits_per_byte(parent, token_text(own, documents, window))
    del parent
    release()
    return Bound(text=token_text(tokenizer, documents, window), limit=context.settings.keep_general * cost)


def _teacher(context: Context, source: Path, plan: PrunePlan, student: Any) -> Teacher:
    """The unpruned model as a teacher of the pruned one."""
    return teacher_of(context.load(source), plan, student)


def teacher_of(model: Any, plan: PrunePlan, student: Any) -> Teacher:
    """`model` and its id of every token of the student (-1: the parent lacks it)."""
    import torch

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if plan.tokens is None:
        return Teacher(model=model)
    ids = torch.full((student.config.vocab_size,), -1, dtype=torch.long)
    ids[: len(plan.tokens)] = torch.tensor(plan.tokens)
    return Teacher(model=model, parent_ids=ids.to(model.device))
