"""Texts that models wrote, for the page: continuations of the same beginnings, and answers won and lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minigpt.exchanges import Exchange
from minigpt.report.figures import final_stage
from minigpt.report.text import clean, stage_title
from minigpt.results import BuildReport

# Longest prompt and answer that are shown, in characters.
PROMPT_LIMIT, ANSWER_LIMIT = 600, 400
# Stages in the order in which they stand beside each other.
CONTROLS = ("parent", "parent_tuned")
NOTHING = "(nothing)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """One beginning, with the continuation of each model: pairs of its name and the text."""

    prompt: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExchange:
    """One prompt that only one of parent and specialist answers right: pairs of a model's name and its answer."""

    task: str
    won: bool
    prompt: str
    right: str
    answers: tuple[tuple[str, str], ...]


def continued(report: BuildReport) -> list[Continued]:
    """Set the continuations of each held-out beginning side by side; empty where the specialist wrote none."""
    final = final_stage(report)
    names = (*CONTROLS, final.stage)
    stages = [stage for stage in report.stages if stage.stage in names and stage.samples]
    if final not in stages:
        return []
    return [
        Continued(
            prompt=clean(prompt, PROMPT_LIMIT),
            texts=tuple((stage_title(stage.stage), _text(stage.samples[index])) for stage in stages),
        )
        for index, prompt in enumerate(report.sample_prompts)
    ]


def won_and_lost(report: BuildReport) -> list[ShownExchange]:
    """List the prompts that are shown, those won before those lost, in the order of the tasks."""
    pairs = [(entry.task, exchange) for entry in report.exchanges for exchange in entry.shown]
    return [_shown(task, exchange) for task, exchange in sorted(pairs, key=lambda pair: not pair[1].won)]


def _shown(task: str, exchange: Exchange) -> ShownExchange:
    """Put names to the answers of one prompt."""
    return ShownExchange(
        task=task,
        won=exchange.won,
        prompt=clean(exchange.prompt, PROMPT_LIMIT),
        right=clean(exchange.right, ANSWER_LIMIT),
        answers=tuple((stage_title(stage), _text(text)) for stage, text in _in_order(exchange.answers).items()),
    )


def _in_order(answers: Mapping[str, str]) -> dict[str, str]:
    """Put the controls before the specialist."""
    first = {stage: answers[stage] for stage in CONTROLS if stage in answers}
    return {**first, **answers}


def _text(text: str) -> str:
    """Write what a model wrote, or that it wrote nothing."""
    return clean(text.strip(), ANSWER_LIMIT) or NOTHING
