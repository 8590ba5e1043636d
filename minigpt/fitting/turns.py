"""Turns: models decode a few tokens each, one after the other, so that what disturbs one of them disturbs all alike.

A machine is not equally fast all the time: clocks, caches and other work change what it gives by tens of percent within
a minute. Two speeds of different times therefore say little, but two turns that follow each other see the same machine.
A speed is the median of a model's turns, and a ratio is the median of the ratios of paired turns: neither a lucky turn
nor a disturbed one decides. The 95 % intervals are those of order statistics, which assume nothing about the noise
(David and Nagaraja 2003, Order Statistics, section 7.1).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import comb

from minigpt.models.bench import PROMPT_TEXT, Workload
from minigpt.progress import SILENT, Reporter
from minigpt.results import Interval
from minigpt.runtimes import Runtime

# Steps of a turn, and how many of them do not count: the model before has taken the caches.
TURN, COLD = 8, 2
# Fewest turns of a model, and half the width of the interval of every ratio, as a share of it, that ends a session.
FEWEST_TURNS, NARROW = 16, 0.02
# Seconds after which a session ends with the turns that it has.
PATIENCE = 60.0
# Share of the distribution of a median that may lie outside of its interval on either side.
TAIL = 0.025


def take_turns(models: Sequence[Runtime], work: Workload, reporter: Reporter = SILENT) -> list[list[float]]:
    """Let models decode by turns, until the ratios to the first of them are known well or time is up.

    Every round reads the prompt once in each model; the order of the models is turned round from turn to turn.

    Args:
        models: the models; the first is the one that the others are compared with.
        work: prompt and steps of a round, and the largest number of rounds.
        reporter: told about progress.

    Returns:
        Tokens a second of every turn, [models][turns].
    """
    speeds: list[list[float]] = [[] for _ in models]
    tokens = [model.tokenizer.encode(PROMPT_TEXT, add_special_tokens=False) for model in models]
    steps, started = min(TURN, work.decode), time.perf_counter()
    for _ in reporter.track(range(work.repeats), title="Timing by turns", total=work.repeats):
        for model, words in zip(models, tokens, strict=True):
            model.begin((words * (work.prompt // len(words) + 1))[: work.prompt])
        for turn in range(max(1, work.decode // TURN)):
            for place in range(len(models))[:: -1 if turn % 2 else 1]:
                speeds[place].append(turn_speed(models[place], tokens[place], steps))
        late = time.perf_counter() - started > PATIENCE
        if enough(speeds) or (late and len(speeds[0]) >= FEWEST_TURNS // 2):
            break
    return speeds


def turn_speed(model: Runtime, tokens: Sequence[int], steps: int) -> float:
    """Measure the tokens a second of one turn, without its first steps."""
    cold = min(COLD, steps - 1)
    started = 0.0
    for step in range(steps):
        if step == cold:
            started = time.perf_counter()
        model.step(tokens[step % len(tokens)])
    return (steps - cold) / (time.perf_counter() - started)


def enough(speeds: Sequence[Sequence[float]]) -> bool:
    """Tell whether every model's ratio to the first one, or the speed of a lone one, is known well."""
    if len(speeds[0]) < FEWEST_TURNS:
        return False
    known = [paired_ratio(own, speeds[0]) for own in speeds[1:]] or [median_interval(speeds[0])]
    return all((item.high - item.low) / 2 <= NARROW * item.value for item in known)


def paired_ratio(own: Sequence[float], other: Sequence[float]) -> Interval:
    """Return the median ratio of the turns of one model to those of another, turn by turn, with its interval."""
    return median_interval([one / two for one, two in zip(own, other, strict=True)])


def median_interval(values: Sequence[float]) -> Interval:
    """Return the median of values with its 95 % interval; with fewer than six values their range, which is less.

    The k-th smallest and the k-th largest of n values hold the median between them unless fewer than k of them are on
    one side of it, so k is the largest number with P(Binomial(n, 1/2) < k) <= 0.025.
    """
    ordered, number = sorted(values), len(values)
    rank, outside = 0, 1
    while outside <= TAIL * 2**number:
        rank += 1
        outside += comb(number, rank)
    place = max(rank - 1, 0)
    middle = (ordered[(number - 1) // 2] + ordered[number // 2]) / 2
    return Interval(value=middle, low=ordered[place], high=ordered[number - 1 - place])
