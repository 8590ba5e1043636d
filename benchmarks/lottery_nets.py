"""Networks, data and training of the classic lottery-ticket curves (`lottery_classic.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from minigpt.healing.capture import capture
from minigpt.tickets.masks import Masks
from minigpt.tickets.rounds import Trained, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of every training: steps, batch, learning rate, warm-up steps and steps between two looks."""

    steps: int
    batch: int
    rate: float
    warmup: int
    look: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Size of the small GPT: hidden size, number of layers, and bytes of a window."""

    width: int = 192
    layers: int = 4
    window: int = 256


class Arena(Protocol):
    """A network and its data."""

    recipe: Recipe
    device: str
    name: str  # of network and data
    better: str  # name of the measure in the picture

    def fresh(self, seed: int) -> nn.Module:
        """Make the network with random weights."""

    def batch(self, generator: torch.Generator) -> Tensor:
        """Draw a training batch: rows of the data, or windows of the text."""

    def loss(self, network: nn.Module, rows: Tensor) -> Tensor:
        """Return the loss on a batch."""

    def look(self, network: nn.Module) -> tuple[float, float]:
        """Return the validation loss and the measure on test data."""


class Digits:
    """Lenet-300-100 on the 1,797 digits of scikit-learn: 60 % training, 20 % validation, 20 % test."""

    better, name = "test accuracy", "Lenet-300-100, digits"

    def __init__(self, device: str, recipe: Recipe) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(data.data, dtype=torch.float32)[order] / 16, torch.tensor(data.target)[order]
        ends = [round(0.6 * len(y)), round(0.8 * len(y))]
        self.x = [part.to(device) for part in torch.tensor_split(x, ends)]
        self.y = [part.to(device) for part in torch.tensor_split(y, ends)]
        self.device, self.recipe = device, recipe

    def fresh(self, seed: int) -> nn.Module:
        """Make the network; biases start at zero and weights as Glorot and Bengio draw them."""
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
        for weight in network.parameters():
            nn.init.xavier_normal_(weight) if weight.ndim == 2 else nn.init.zeros_(weight)
        return network.to(self.device)

    def batch(self, generator: torch.Generator) -> Tensor:
        """Draw the numbers of the digits of a batch."""
        return torch.randint(len(self.y[0]), (self.recipe.batch,), generator=generator).to(self.device)

    def loss(self, network: nn.Module, rows: Tensor) -> Tensor:
        """Return the cross-entropy of a batch."""
        return functional.cross_entropy(network(self.x[0][rows]), self.y[0][rows])

    @torch.no_grad()
    def look(self, network: nn.Module) -> tuple[float, float]:
        """Return the validation loss and the test accuracy."""
        loss = functional.cross_entropy(network(self.x[1]), self.y[1])
        return float(loss), float((network(self.x[2]).argmax(1) == self.y[2]).float().mean())


class SmallGPT:
    """A small llama on the text of a domain, read as bytes; measured in bits per byte."""

    better = "held-out bits per byte"

    def __init__(self, device: str, recipe: Recipe, domain: str, limit: int | None, size: Size) -> None:
        corpus = build_corpus(load_domain(domain))
        self.train, self.dev, self.test = (
            torch.frombuffer(bytearray("\n\n".join(item.text for item in part).encode()[:limit]), dtype=torch.uint8)
            .long()
            .to(device)
            for part in (corpus.train, corpus.dev, corpus.heldout)
        )
        self.device, self.recipe, self.size = device, recipe, size
        self.name = f"GPT of {size.layers} layers, width {size.width}, window {size.window}, {domain}"

    def fresh(self, seed: int) -> nn.Module:
        """Make the network as transformers initialises it."""
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        size = self.size
        config = LlamaConfig(
            vocab_size=256, hidden_size=size.width, intermediate_size=8 * size.width // 3, tie_word_embeddings=True,
            num_hidden_layers=size.layers, num_attention_heads=size.width // 32,
            num_key_value_heads=size.width // 32, max_position_embeddings=size.window,
        )  # fmt: skip
        return LlamaForCausalLM(config).to(self.device)

    def batch(self, generator: torch.Generator) -> Tensor:
        """Draw windows of the training text, as bytes."""
        return self._windows(self.train, self.recipe.batch, generator)

    def loss(self, network: nn.Module, rows: Tensor) -> Tensor:
        """Return the cross-entropy of a batch of windows."""
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.device.startswith("cuda")):
            logits = network(input_ids=rows).logits
        return functional.cross_entropy(logits[:, :-1].float().reshape(-1, 256), rows[:, 1:].reshape(-1))

    def _windows(self, text: Tensor, count: int, generator: torch.Generator) -> Tensor:
        starts = torch.randint(len(text) - self.size.window, (count,), generator=generator).to(self.device)
        return text[starts[:, None] + torch.arange(self.size.window, device=self.device)]

    @torch.no_grad()
    def look(self, network: nn.Module) -> tuple[float, float]:
        """Return the validation loss and the bits per byte of 64 windows each, the same ones at every look."""
        losses = []
        for text in (self.dev, self.test):
            rows = self._windows(text, 64, torch.Generator().manual_seed(1))
            losses.append(float(self.loss(network, rows)) / torch.log(torch.tensor(2.0)).item())
        return losses[0], losses[1]


def fit(arena: Arena, weights: Weights, masks: Masks, seed: int, *, steps: int | None = None) -> Trained:
    """Train weights under masks; the measures are those at the lowest validation loss.

    Args:
        arena: network and data.
        weights: all weights by name.
        masks: weights that are trained.
        seed: seed of the batches.
        steps: number of steps, after which the weights are returned unmeasured (None: the whole recipe).
    """
    network, recipe, generator = arena.fresh(0), arena.recipe, torch.Generator().manual_seed(seed)
    known = dict(network.named_parameters())
    with torch.no_grad():
        for name, parameter in known.items():
            parameter.copy_(weights[name])
    kept = [(known[name], mask.to(known[name].device)) for name, mask in masks.items() if not mask.all()]
    take_step = stepper(arena, network, kept, generator)
    best = {"loss": float("inf"), "measure": 0.0, "step": 0}
    for step in range(steps if steps is not None else recipe.steps):
        take_step(recipe.rate * min(1.0, (step + 1) / max(1, recipe.warmup)))
        if steps is None and (step + 1) % recipe.look == 0:
            loss, measure = arena.look(network)
            if loss < best["loss"]:
                best = {"loss": loss, "measure": measure, "step": step + 1}
    return Trained(weights={name: value.detach().cpu().clone() for name, value in known.items()}, facts=best)


def stepper(
    arena: Arena, network: nn.Module, kept: Sequence[tuple[nn.Parameter, Tensor]], generator: torch.Generator
) -> Callable[[float], None]:
    """Return the function that takes one step at a rate; on a GPU the step is replayed from a CUDA graph.

    Args:
        arena: gives batches and losses.
        network: is trained in place.
        kept: weights and the masks that they are multiplied with after each step.
        generator: draws the batches.
    """
    rows = arena.batch(generator)
    rate = torch.zeros((), device=arena.device)
    captured = arena.device.startswith("cuda")
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True, capturable=captured)

    def work() -> None:
        optimizer.zero_grad(set_to_none=False)
        arena.loss(network, rows).backward()
        optimizer.step()
        with torch.no_grad():
            for parameter, mask in kept:
                parameter.mul_(mask)

    run: Callable[[], Any] = work
    if captured:
        # At rate zero the steps before the capture change no weight; the moments that they leave are cleared.
        run, _ = capture(work)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    first = True

    def take(new: float) -> None:
        nonlocal first
        if not first:
            rows.copy_(arena.batch(generator))
        first = False
        rate.fill_(new)
        run()

    return take
