"""Masks of weights: the weights that a ticket keeps, chosen by scores over all layers, in each layer or in groups.

A mask has an entry for each matrix that is pruned: a tensor of its shape, true where the weight is kept. Frankle and
Carbin 2019 (arXiv 1803.03635, section 2) remove the weights of lowest magnitude, in each layer or over all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError
from minigpt.transformer.arch import arch_of, decoder_layers
from minigpt.transformer.specs import STACKED, ExpertSpec

Masks = Mapping[str, Tensor]
# Score of a weight that is gone already: below every score.
GONE = float("-inf")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Rule of where kept weights may lie.

    Attributes:
        name: `global` (one ranking over all matrices), `lamp` (one ranking, of each weight's share of its matrix),
            `layer` (one ranking in each matrix, and in that of each expert) or `N:M`, of which at most N of M weights
            in a row are kept.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in ("global", "lamp", "layer") and self._parts() is None:
            raise ConfigError(f"A pattern is global, lamp, layer or N:M such as 2:4 (N below M), not {self.name!r}.")

    def _parts(self) -> tuple[int, int] | None:
        """Read N and M from the name; None if it does not say them."""
        kept, _, size = self.name.partition(":")
        if not (kept.isdecimal() and size.isdecimal() and 0 < int(kept) < int(size)):
            return None
        return int(kept), int(size)

    @property
    def across(self) -> bool:
        """True if weights of different matrices are compared."""
        return self.name in ("global", "lamp")

    @property
    def group(self) -> tuple[int, int] | None:
        """N and M of an N:M pattern; None for the others."""
        return self._parts() if ":" in self.name else None


def prunable(model: Any) -> tuple[str, ...]:
    """List the matrices of the decoder layers by name: the weights that tickets of language models are made of.

    These are the weights of linear layers, and the stacked matrices of experts. Embeddings, head and norms stay whole,
    as in Wanda and SparseGPT, and so do routers and what a layer with a state has beside its linear layers.
    """
    experts = arch_of(model).experts
    inside = {id(weight) for layer in decoder_layers(model) for weight in _matrices(layer, experts)}
    return tuple(name for name, weight in model.named_parameters() if id(weight) in inside)


def _matrices(layer: nn.Module, experts: ExpertSpec | None) -> Iterator[Tensor]:
    """Yield the matrices of one decoder layer."""
    from transformers.pytorch_utils import Conv1D

    for path, module in layer.named_modules():
        is_router = experts is not None and f"{path}.".startswith(f"{experts.router}.")
        if isinstance(module, nn.Linear | Conv1D) and not is_router and min(module.weight.shape) > 1:
            yield module.weight
        if experts is not None and path == experts.experts:
            yield from (weight for weight in module.parameters(recurse=False) if weight.ndim == STACKED)


def weights_of(model: Any, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the named weights of a model, detached and not copied."""
    known = dict(model.named_parameters())
    return {name: known[name].detach() for name in names}


def full(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the mask that keeps every weight."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def magnitudes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Score every weight by its magnitude."""
    return {name: weight.detach().abs().float() for name, weight in weights.items()}


def keep_best(scores: Mapping[str, Tensor], remaining: float, pattern: Pattern, masks: Masks | None = None) -> Masks:
    """Keep the weights with the highest scores.

    Args:
        scores: score of each weight by the matrix's name.
        remaining: share of all weights that stays; an N:M pattern keeps round(remaining x M) of M, at least N.
        pattern: where kept weights may lie.
        masks: weights that are still there; others stay removed (None: all are there).
    """
    if masks is not None:
        scores = {name: score.masked_fill(~masks[name], GONE) for name, score in scores.items()}
    if pattern.group is not None:
        kept, size = pattern.group
        kept = max(kept, round(remaining * size))
        return _and({name: best_of_groups(score, kept, size) for name, score in scores.items()}, masks)
    if pattern.name == "layer":
        return {
            name: _of_each(lambda matrix: _best(matrix, round(remaining * matrix.numel())), score)
            for name, score in scores.items()
        }
    if pattern.name == "lamp":
        scores = {name: _of_each(lamp, score) for name, score in scores.items()}
    flat = torch.cat([score.flatten() for score in scores.values()])
    flags = _best(flat, round(remaining * flat.numel()))
    parts = torch.split(flags, [score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


def _of_each(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a function to matrices; those of experts, which lie in one tensor, are taken one by one."""
    if tensors[0].ndim < STACKED:
        return function(*tensors)
    return torch.stack([function(*parts) for parts in zip(*tensors, strict=True)])


def lamp(scores: Tensor) -> Tensor:
    """Score weights by their share of what their matrix would have left: LAMP.

    Lee et al. 2021 (arXiv 2010.07611, equation 4): score(u) = W[u]^2 / sum of W[v]^2 over all v with |W[v]| >= |W[u]|.
    Matrices of different scales become comparable, and the last weight of a matrix has the highest score of all, so
    that no matrix empties.

    Args:
        scores: magnitudes of the weights; weights that are gone stay so.
    """
    order = scores.flatten().argsort(stable=True)
    squares = scores.flatten()[order].clamp_min(0).double().square()
    above = squares.flip(0).cumsum(0).flip(0)
    shares = torch.empty_like(squares).scatter_(0, order, squares / above.clamp_min(torch.finfo(above.dtype).tiny))
    return shares.view_as(scores).masked_fill(scores == GONE, GONE)


def _best(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` highest scores, never one that is gone; ties keep the first."""
    flat = scores.flatten()
    count = min(count, int((flat > GONE).sum()))
    marked = torch.zeros_like(flat, dtype=torch.bool)
    if count:
        bar = flat.kthvalue(len(flat) - count + 1).values if flat.device.type == "cpu" else flat.sort().values[-count]
        marked = flat > bar
        equal = (flat == bar).nonzero().flatten()
        marked[equal[: count - int(marked.sum())]] = True
    return marked.view_as(scores)


def best_of_groups(scores: Tensor, kept: int, size: int) -> Tensor:
    """Mark the `kept` highest of every `size` scores that lie next to each other in a row; ties keep the first.

    Raises:
        ConfigError: the length of a row is not a multiple of `size`.
    """
    if scores.shape[-1] % size:
        raise ConfigError(
            f"Rows of {scores.shape[-1]} weights do not divide into groups of {size}; choose another pattern."
        )
    groups = scores.reshape(-1, size)
    order = groups.argsort(dim=1, descending=True, stable=True)[:, :kept]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order, True).view(scores.shape)


def _and(masks: Masks, others: Masks | None) -> Masks:
    """Intersect two masks; None is the mask that keeps everything."""
    return masks if others is None else {name: mask & others[name] for name, mask in masks.items()}


def random_like(masks: Masks, seed: int, pattern: Pattern) -> Masks:
    """Draw a random mask that keeps as many weights in each matrix: the control of every ticket.

    Args:
        masks: the ticket.
        seed: seed of the draw.
        pattern: of the ticket; in an N:M pattern every group keeps as many.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.rand(mask.shape, generator=generator).to(mask.device) for name, mask in masks.items()}
    if pattern.group is not None:
        size = pattern.group[1]
        return {
            name: best_of_groups(noise[name], round(float(mask.float().mean()) * size), size)
            for name, mask in masks.items()
        }
    return {
        name: _of_each(lambda values, flags: _best(values, int(flags.sum())), noise[name], mask)
        for name, mask in masks.items()
    }


def density(masks: Masks) -> float:
    """Return the share of all weights that a mask keeps."""
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def densities(masks: Masks) -> dict[str, float]:
    """Return the share that a mask keeps in each matrix."""
    return {name: int(mask.sum()) / mask.numel() for name, mask in masks.items()}


def smallest(masks: Masks) -> float:
    """Return the smallest share that a mask keeps in a matrix, those of experts one by one."""
    shares = (
        mask.flatten(-2).float().mean(-1) if mask.ndim == STACKED else mask.float().mean() for mask in masks.values()
    )
    return min(float(share.min()) for share in shares)


@torch.no_grad()
def apply_masks(model: Any, masks: Masks) -> None:
    """Set the weights outside of a mask to zero, in place."""
    known = dict(model.named_parameters())
    for name, mask in masks.items():
        known[name].mul_(mask.to(known[name].device))
