"""Choices of rounds on a small student: how steps are divided, the score that prunes, and Muon under a mask.

A perceptron of three matrices with heavy-tailed weights teaches a copy of itself that is pruned, so that a mask can be
good or bad and the loss comes from the mask alone. Inputs have a falling spectrum, as activations do. A minute or two
on a processor for each row; it says what may be worth a run on a real parent, not what holds there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from minigpt.files import write_json
from minigpt.healing.average import Average
from minigpt.healing.muon import MOMENTUM, ROOT_MEAN_SQUARE, orthogonalize
from minigpt.healing.recipe import Recipe, schedule
from minigpt.tickets.masks import Masks, Pattern, full, keep_best, magnitudes
from minigpt.tickets.oneshot import sparsegpt, wanda_scores
from minigpt.tickets.overlap import has_settled
from minigpt.tickets.settings import SCORES

INPUTS, WIDTH, BATCH, WINDOWS = 128, 256, 128, 6000
# Steps of each training, of 1,000 in all; a pruning comes before every one but the first.
SPLITS: Mapping[str, tuple[int, ...]] = {
    "5 x 200": (200,) * 5,
    "4 x 100, 600": (100, 100, 100, 100, 600),
    "0, 3 x 100, 700": (0, 100, 100, 100, 700),
    "one shot, 1,000": (0, 1000),
}
# Distances of masks that end a training early, and looks at the mask in each.
EARLY, LOOKS = (0.1, 0.05, 0.02), 20
Weights = dict[str, Tensor]


class World:
    """A teacher, text to train on and text to measure, all of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed, generator = seed, torch.Generator().manual_seed(seed)
        shapes = {"first": (WIDTH, INPUTS), "second": (WIDTH, WIDTH), "third": (INPUTS, WIDTH)}
        self.teacher: Weights = {}
        for name, shape in shapes.items():
            size = torch.exp(0.7 * torch.randn(shape, generator=generator))
            weight = torch.randn(shape, generator=generator) * size
            self.teacher[name] = weight / weight.norm() * 1.2 * shape[0] ** 0.5
        spectrum = torch.arange(1, INPUTS + 1).float() ** -0.5
        spectrum /= spectrum.square().mean().sqrt()
        self.train, self.test = (
            torch.randn(count, INPUTS, generator=generator) * spectrum for count in (WINDOWS, 2000)
        )

    def loss(self, weights: Weights, x: Tensor) -> Tensor:
        """Return the mean square of what the student gets wrong."""
        return (inputs_of(weights, x)[-1] - inputs_of(self.teacher, x)[-1]).square().mean()

    @torch.no_grad()
    def measure(self, weights: Weights) -> float:
        """Return the error on test inputs, relative to the teacher's outputs."""
        return float(self.loss(weights, self.test) / inputs_of(self.teacher, self.test)[-1].square().mean())


def inputs_of(weights: Weights, x: Tensor) -> list[Tensor]:
    """Return the inputs of the three matrices, and the output."""
    states = [x]
    for name, weight in weights.items():
        y = states[-1] @ weight.T
        states.append(y if name == "third" else silu(y))
    return states


def trained(
    world: World,
    weights: Weights,
    masks: Masks,
    steps: int,
    rate: float,
    *,
    late: bool = False,
    has_emerged: Callable[[Weights], bool] = lambda _: False,
) -> tuple[Weights, int]:
    """Train under masks by Muon, and return the average of the weights and the number of steps.

    Args:
        world: teacher and text.
        weights: weights to begin with.
        masks: weights that are left.
        steps: number of steps.
        rate: learning rate.
        late: mask the orthogonalized update only, not the gradient before.
        has_emerged: is asked `LOOKS` times, and ends the training.
    """
    generator, recipe = torch.Generator().manual_seed(world.seed), Recipe(steps=steps, learning_rate=rate)
    weights = {name: (weight * masks[name]).requires_grad_() for name, weight in weights.items()}
    momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    average = Average([*weights.values()], recipe.average)  # type: ignore[arg-type]
    done = steps
    for step in range(steps):
        rows = torch.randint(WINDOWS, (BATCH,), generator=generator)
        gradients = torch.autograd.grad(world.loss(weights, world.train[rows]), [*weights.values()])
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            gradient = gradient if late else gradient * masks[name]
            ahead = torch.lerp(gradient, momenta[name].lerp_(gradient, 1 - MOMENTUM), MOMENTUM)
            scale = rate * schedule(step, recipe) * ROOT_MEAN_SQUARE * max(weight.shape) ** 0.5
            weight.data -= scale * orthogonalize(ahead[None])[0] * masks[name]
        average.update()
        if (step + 1) % max(1, steps // LOOKS) == 0 and has_emerged(weights):
            done = step + 1
            break
    return dict(zip(weights, average.values, strict=True)), done


def ticket(
    world: World, remaining: float, split: Sequence[int], criterion: str, rate: float, early: float = 0
) -> tuple[Weights, int]:
    """Train and prune by a split of the steps, and keep the weights when the rate rewinds.

    Args:
        world: teacher and text.
        remaining: share of the weights that is left.
        split: steps of the trainings.
        criterion: `magnitude`, `wanda` or `sparsegpt`, which also moves the weights that are left.
        rate: learning rate.
        early: distance of masks below which a training but the last one ends; the last one gets the steps that are
            saved (0: all steps are trained).

    Returns:
        The last weights, and the steps of the last training.
    """
    weights, spared = dict(world.teacher), 0
    masks: Masks = full(weights)
    for number, steps in enumerate(split):
        if number:
            weights, masks = pruned(world, weights, masks, remaining ** (number / (len(split) - 1)), criterion)
        is_last = number == len(split) - 1
        level = remaining ** ((number + 1) / (len(split) - 1))
        watch = emerging(level, masks, early) if early and not is_last else lambda _: False
        weights, done = trained(world, weights, masks, steps + is_last * spared, rate, has_emerged=watch)
        spared += steps - done
    return weights, done


def pruned(world: World, weights: Weights, masks: Masks, level: float, criterion: str) -> tuple[Weights, Masks]:
    """Prune each matrix to a share of its weights, and return the weights, which SparseGPT moves, and the masks."""
    scores = magnitudes(weights)
    if criterion != "magnitude":
        states = zip(weights.items(), inputs_of(weights, world.train[:2000]), strict=False)
        grams = {name: x.T @ x for (name, _), x in states}
        if criterion == "sparsegpt":
            both = {
                name: sparsegpt(weights[name], grams[name], level, Pattern("layer"), masks[name]) for name in weights
            }
            return {name: pair[0] for name, pair in both.items()}, {name: pair[1] for name, pair in both.items()}
        scores = {name: wanda_scores(weight, grams[name]) for name, weight in weights.items()}
    return weights, keep_best(scores, level, Pattern("layer"), masks)


def emerging(level: float, masks: Masks, limit: float) -> Callable[[Weights], bool]:
    """Return what says whether the mask that pruning would give has settled."""
    recent: list[Masks] = []

    def has_emerged(weights: Weights) -> bool:
        recent.append(
            keep_best(magnitudes({k: v.detach() for k, v in weights.items()}), level, Pattern("layer"), masks)
        )
        return has_settled(recent, limit)

    return has_emerged


def update_rows() -> list[dict[str, float]]:
    """Measure Muon's update of a masked gradient, whose signal has a low rank, by the share of weights left."""
    generator, side = torch.Generator().manual_seed(0), 576
    signal = torch.randn(side, 32, generator=generator) @ torch.randn(32, side, generator=generator)
    gradient = signal + 0.3 * torch.randn(side, side, generator=generator)
    rows = []
    for share in (1.0, 0.7, 0.5, 0.3, 0.2, 0.1):
        mask = torch.rand(side, side, generator=generator) < share
        update = orthogonalize((gradient * mask)[None])[0] * mask
        cosine = (update * gradient * mask).sum() / update.norm() / (gradient * mask).norm()
        size = (update.square().sum() / mask.sum()).sqrt() * math.sqrt(side)
        rows.append({"remaining": share, "step_of_a_weight": float(size), "cosine_to_gradient": float(cosine)})
    return rows


def main() -> None:
    """Measure the update, the splits by each score, and the masking of Muon."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--remaining", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--criteria", default=",".join(SCORES), help="comma-separated")
    options = parser.parse_args()
    result: dict[str, Any] = {"updates": update_rows(), "rows": []}
    print(*result["updates"], sep="\n")
    worlds = [World(seed) for seed in range(options.seeds)]
    for criterion in options.criteria.split(","):
        for name, split in SPLITS.items():
            for early in (0.0, *EARLY) if len(split) > 2 and all(split) else (0.0,):
                tickets = [ticket(world, options.remaining, split, criterion, options.rate, early) for world in worlds]
                errors = [world.measure(weights) for world, (weights, _) in zip(worlds, tickets, strict=True)]
                row = {"criterion": criterion, "steps": name, "early": early, "last": [steps for _, steps in tickets]}
                result["rows"].append({**row, "errors": errors, "mean": mean(errors)})
                print(result["rows"][-1], flush=True)
    for late in (False, True):
        errors = []
        for world in worlds:
            masks = keep_best(magnitudes(world.teacher), options.remaining, Pattern("layer"))
            errors.append(world.measure(trained(world, world.teacher, masks, 400, options.rate, late=late)[0]))
        result["rows"].append({"masked": "update" if late else "gradient", "errors": errors, "mean": mean(errors)})
        print(result["rows"][-1], flush=True)
    write_json(options.json, result)


if __name__ == "__main__":
    main()
