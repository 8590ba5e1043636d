"""Outlook of a build: the operations and the bytes of each stage, from sizes alone, by the arithmetic of `estimate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from minigpt import assets
from minigpt.errors import MiniGPTError
from minigpt.evaluation import Suite
from minigpt.healing import Recipe
from minigpt.methods import method_named
from minigpt.pipeline.budget import target_parameters
from minigpt.pipeline.run import Run
from minigpt.pipeline.settings import Settings
from minigpt.planning.budget import allowed_axes
from minigpt.planning.planner import shipped_costs
from minigpt.planning.probes import probes_of
from minigpt.planning.target import DTYPE_BYTES
from minigpt.progress.rates import Kind, Work
from minigpt.transformer.arch import arch_of, parameters_of
from minigpt.transformer.estimate import estimate

# Passes of a training step: one forward, and a backward that takes twice as much.
TRAINING_PASSES = 3
# Numbers for each weight in a checkpoint of training: the weight, its best value, and two of the optimizer.
CHECKPOINT_NUMBERS = 4
FLOAT32_BYTES = 4
# Texts that the ratio of tokens to bytes is counted on.
SAMPLE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes that work and disk of a build's stages follow from.

    Attributes:
        settings: settings of the build.
        parent: operations of the parent for a token; 0 where they are not known.
        student: operations of the specialist for a token, in proportion to its parameters.
        tokens: tokens of the texts and questions that are measured, about.
        parent_bytes: bytes of a saved model of the parent's size.
        student_bytes: bytes of a saved specialist.
        student_parameters: parameters of the specialist.
        probes: copies that are cut and read to measure what each axis costs; 0 where shipped costs are taken.
    """

    settings: Settings
    parent: float
    student: float
    tokens: float
    parent_bytes: int
    student_bytes: int
    student_parameters: int
    probes: int = 0


def sizes_of(run: Run, parent: assets.Parent, suite: Suite) -> Sizes:
    """Gather the sizes of a build.

    Args:
        run: the build.
        parent: the untuned parent.
        suite: the texts and questions that are measured.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(parent.path)
    whole = parameters_of(config)
    left = whole if run.options.delta is not None else target_parameters(run, parent, config)
    try:
        operations = float(estimate(config).flops_per_token)
    except MiniGPTError:  # layers with a state are not in its arithmetic
        operations = 0.0
    width, tokenizer = DTYPE_BYTES[run.options.dtype], assets.load_tokenizer(parent.path)
    return Sizes(
        settings=run.settings,
        parent=operations,
        student=operations * left / whole,
        tokens=tokens_of(suite, lambda text: len(tokenizer.encode(text))),
        parent_bytes=width * whole,
        student_bytes=width * left,
        student_parameters=left,
        probes=_probes(run, config) if run.options.delta is None else 0,
    )


def _probes(run: Run, config: Any) -> int:
    """Count the probes of a plan, about: none with one axis, with shipped costs, or for families without shapes."""
    try:
        axes = allowed_axes(method_named(run.options.method), run.options.kinds, arch_of(config))
        if len(axes) < 2 or shipped_costs(config, run.settings.plan, accelerated=run.device != "cpu") is not None:
            return 0
        return len(probes_of(config, axes))
    except MiniGPTError:
        return 0


def tokens_of(suite: Suite, count: Callable[[str], int]) -> float:
    """Count the tokens of a suite's texts and questions, about: their bytes, by the ratio of the first few texts.

    Args:
        suite: the texts and questions that are measured.
        count: counts the tokens of a text.
    """
    texts = [*_texts(suite)]
    sample = texts[:SAMPLE]
    read = sum(len(text.encode()) for text in sample)
    return sum(len(text.encode()) for text in texts) * sum(map(count, sample)) / read if read else 0.0


def _texts(suite: Suite) -> Iterable[str]:
    """Yield everything that a model reads in an evaluation without decoding; a question counts once."""
    for documents in (*suite.texts.values(), *suite.recitations.values()):
        yield from (document.text for document in documents)
    for questions in suite.questions.values():
        yield from (" ".join((one.question, *one.choices)) for one in questions.questions)


def reading(per_token: float, tokens: float, kind: Kind = "read") -> Work | None:
    """Return the work of reading tokens with a model; None where its operations are not known."""
    return Work(kind=kind, operations=per_token * tokens, per_token=per_token) if per_token else None


def training(recipe: Recipe, student: float, teacher: float, loop: str, *, steps: float | None = None) -> Work | None:
    """Return the work of a training: three passes of the student, and one of the teacher where there is one.

    Args:
        recipe: steps and tokens of a step.
        student: operations of the trained model for a token.
        teacher: operations of the teacher.
        loop: beginning of the title of its loop.
        steps: steps (None: the recipe's).
    """
    if not student:
        return None
    tokens = max(recipe.tokens_per_step, recipe.window)
    item = tokens * (TRAINING_PASSES * student + (teacher if recipe.distill else 0.0))
    count = recipe.steps if steps is None else steps
    return Work(kind="train", operations=count * item, per_item=item, loop=loop)


def checkpoint_bytes(parameters: int) -> int:
    """Return the bytes of a checkpoint of training so many parameters."""
    return FLOAT32_BYTES * CHECKPOINT_NUMBERS * parameters
