"""The way of a model in memory: planned, pruned, saved, loaded by stock classes, and healed."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

import minigpt
from minigpt.healing import Recipe
from minigpt.planning.settings import PlanSettings
from tests.support.archsuite import logits, random_batch
from tests.support.tiny import tiny_tokenizer

SETTINGS = PlanSettings(tokens=512, probe_tokens=128, sensitivity="measure")
RECIPE = Recipe(tokens_per_step=256, window=64, learning_rate=1e-3, warmup=1, evaluate_every=2)


def check_the_whole_way(model: Any, texts: list[str], size: int, folder: Path) -> None:
    """Check that the planned size is met, stock classes load the same logits, and a step of healing runs."""
    tokenizer, teacher = tiny_tokenizer(), deepcopy(model)
    plan = minigpt.plan(model, tokenizer, texts, params=size, settings=SETTINGS)
    pruned, short = minigpt.prune(model, tokenizer, plan, repair=texts[:4])
    assert sum(parameter.numel() for parameter in pruned.parameters()) == plan.parameters_after
    pruned.save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = random_batch(vocab=len(short), pad=0).input_ids
    torch.testing.assert_close(logits(loaded, ids), logits(pruned, ids), rtol=1e-5, atol=1e-5)
    training = minigpt.heal(pruned, short, texts[:6], dev=texts[6:], steps=2, recipe=RECIPE, teacher=teacher, plan=plan)
    losses = [loss for _, loss in training.dev_losses]
    assert training.steps == 2 and losses[-1] != losses[0]
