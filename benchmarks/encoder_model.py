"""Models for `encoder.py`: the packaged encoder with conditional layers or without, and how it is trained and asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.encoder_tasks import Item, Task
from minigpt.conditional.base import ConditionalFFN, DenseWeights, Settings
from minigpt.conditional.convert import to_relu, to_trees
from minigpt.conditional.distill import DistillOptions, distill, ffn_inputs
from minigpt.conditional.swap import conditional_layers, dense_weights, ffn_layers, penalty_of, put
from minigpt.transformer.batches import Batch

LENGTH = 64
# Temperature of the similarities of texts that are matched (all-MiniLM-L6-v2 was trained with 0.05).
_TEMPERATURE = 0.05
_DISTILLED_TOKENS = 1024
# Steps before the capture: in them the optimizer and the libraries make what they need.
_EAGER_STEPS = 3


class Removed(ConditionalFFN):
    """A feed-forward layer that adds nothing: the control."""

    def _training(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def _hard(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def penalty(self) -> Tensor:
        """Return zero."""
        return torch.zeros(())

    def total_neurons(self) -> int:
        """Return zero."""
        return 0

    def visited_neurons(self, x: Tensor | None = None) -> float:
        """Return zero."""
        return 0.0

    def visited_weights(self, x: Tensor | None = None) -> float:
        """Return zero."""
        return 0.0


Make = Callable[[DenseWeights, Tensor], ConditionalFFN]


def _trees(trees: int, depth: int) -> Make:
    """Return the conversion to trees."""
    return lambda weights, x: to_trees(weights, x, depth=depth, trees=trees)


def _top(share: float) -> Make:
    """Return the conversion to the largest values, a share of all neurons."""
    return lambda weights, _: to_relu(weights, top_k=max(1, round(share * weights.neurons)))


def _sparse(l1: float) -> Make:
    """Return the conversion to ReLU with a penalty."""
    return lambda weights, _: to_relu(weights, activation="relu", l1=l1)


# Trees are named by their number and depth. Those of the first rows have about as many neurons as the dense layer has
# (1,536) and visit 50, 12, 3 and 1 % of that number. The deepest visits 12 of 4,095 neurons (0.3 %) as in the paper,
# and the smallest 5 neurons, 0.3 % of the dense layer's number.
ARMS: Mapping[str, Make | None] = {
    "dense": None,
    "control": lambda weights, _: Removed(Settings(hidden_size=weights.hidden_size)),
    **{
        f"trees-{trees}x{depth}": _trees(trees, depth)
        for trees, depth in ((256, 2), (31, 5), (6, 7), (2, 8), (1, 11), (1, 4))
    },
    **{f"top-{100 * share:g}%": _top(share) for share in (0.5, 0.12, 0.03, 0.01, 0.003)},
    **{f"relu-{l1:g}": _sparse(l1) for l1 in (1.0, 10.0)},
}


@dataclass(frozen=True)
class Encoder:
    """The encoder, its tokenizer, and the ids of texts that were encoded before."""

    model: Any
    tokenizer: Any
    known: dict[tuple[str, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the ids of texts and where text is: [texts, LENGTH]."""
        key = tuple(texts)
        if key not in self.known:
            self.known[key] = self._encoded(texts)
        return self.known[key]

    def _encoded(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return what `encode` does."""
        rows = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        return rows["input_ids"].to(device), rows["attention_mask"].bool().to(device)


def load(folder: str, device: str) -> Encoder:
    """Load an encoder in fp32, without dropout: a short training needs none, and forms can be compared exactly."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(
        folder, dtype=torch.float32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    return Encoder(model.to(device).eval(), AutoTokenizer.from_pretrained(folder))


def convert(encoder: Encoder, arm: str, texts: Sequence[str], steps: int) -> tuple[Any, list[float]]:
    """Return a copy of the model with an arm's layers, distilled layer by layer, and their errors on texts not used.

    Args:
        encoder: the dense encoder.
        arm: a name of `ARMS`.
        texts: text for conversion and distillation, of which an eighth only measures.
        steps: steps of distillation for a layer.
    """
    model, make = deepcopy(encoder.model), ARMS[arm]
    if make is None:
        return model, []
    ids, real = encoder.encode(texts)
    batches = [
        Batch(input_ids=ids[rows], position_ids=ids[rows], segment_ids=real[rows].long())
        for rows in torch.arange(len(ids), device=ids.device).split(64)
    ]
    indices = range(len(ffn_layers(model)))
    inputs = ffn_inputs(
        encoder.model, indices, batches, forward=lambda bert, batch: states(bert, batch.input_ids, real_of(batch))
    )
    layers, errors = {}, []
    for index in indices:
        x = inputs[index].to(ids.device)
        weights, unseen = dense_weights(model, index), len(x) // 8
        layers[index] = make(weights, x[unseen:])
        if list(layers[index].parameters()):
            options = DistillOptions(steps=steps, batch_tokens=_DISTILLED_TOKENS)
            errors.append(distill(layers[index], weights, x[unseen:], unseen=x[:unseen], options=options).after)
    put(model, layers)
    return model, errors


def real_of(batch: Batch) -> Tensor:
    """Return where text is."""
    return batch.segment_ids != 0


def states(model: Any, ids: Tensor, real: Tensor) -> Tensor:
    """Return the last hidden states; a mask of four dimensions keeps the library from looking at its values."""
    mask = real[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
    return model(input_ids=ids, attention_mask=mask).last_hidden_state  # type: ignore[no-any-return]


class Student(nn.Module):
    """The encoder with a head for one task: mean pooling, and a linear layer for classes or similarity for choices."""

    def __init__(self, model: Any, classes: int, hidden: int) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(hidden, classes) if classes else None

    def vectors(self, ids: Tensor, real: Tensor) -> Tensor:
        """Return a vector for each text: [texts, H]."""
        weights = real.float().unsqueeze(-1)
        return (states(self.model, ids, real) * weights).sum(1) / weights.sum(1).clamp(min=1)

    def loss(self, ids: Tensor, real: Tensor, answers: Tensor) -> Tensor:
        """Return the loss of a batch: of classes, or of texts in the first half that go with those in the second."""
        vectors = self.vectors(ids, real)
        if self.head is not None:
            return functional.cross_entropy(self.head(vectors), answers)
        asked, answer = functional.normalize(vectors, dim=-1).chunk(2)
        scores, right = asked @ answer.T / _TEMPERATURE, torch.arange(len(asked), device=ids.device)
        return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2

    @torch.no_grad()
    def answers(self, encoder: Encoder, items: Sequence[Item], *, batch: int = 512) -> list[int]:
        """Return the class or the choice that the model gives for each item."""
        self.head_mode()
        texts = [text for item in items for text in (item.text, *item.choices)]
        ids, real = encoder.encode(texts)
        parts = [self.vectors(ids[rows], real[rows]) for rows in torch.arange(len(ids)).split(batch)]
        vectors = torch.cat(parts)
        if self.head is not None:
            return self.head(vectors).argmax(-1).tolist()
        grouped = functional.normalize(vectors, dim=-1).view(len(items), -1, vectors.shape[-1])
        return torch.einsum("bh,bch->bc", grouped[:, 0], grouped[:, 1:]).argmax(-1).tolist()

    def head_mode(self) -> None:
        """Compute conditional layers in the form of training, which gives the same and is faster for many texts."""
        self.eval()
        for layer in conditional_layers(self).values():
            layer.train()


class Batches:
    """Batches of a task's training items in random order; matching takes pairs with different answers."""

    def __init__(self, encoder: Encoder, task: Task, size: int, seed: int) -> None:
        items = task.splits["train"]
        self.ids, self.real = encoder.encode([item.text for item in items])
        self.pairs = None if task.classes else encoder.encode([item.choices[item.answer] for item in items])
        self.answers = torch.tensor([item.answer for item in items], device=self.ids.device)
        self.size = min(size if task.classes else size // 2, len(items))
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.long)

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, where text is, and answers."""
        if len(self.order) < self.size:
            self.order = torch.cat([self.order, torch.randperm(len(self.answers), generator=self.generator)])
        rows, self.order = self.order[: self.size].to(self.ids.device), self.order[self.size :]
        if self.pairs is None:
            return self.ids[rows], self.real[rows], self.answers[rows]
        ids, real = self.pairs
        return torch.cat([self.ids[rows], ids[rows]]), torch.cat([self.real[rows], real[rows]]), self.answers[rows]


def train(student: Student, batches: Batches, *, steps: int, lr: float) -> None:
    """Train all weights with AdamW; the rate rises over a tenth of the steps and falls to zero.

    On a GPU the step is captured after the first ones, because launching its many small kernels takes longer than they.
    """
    room = [part.clone() for part in batches.next()]
    fast = room[0].is_cuda
    rate = torch.tensor(lr, device=room[0].device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate if fast else lr, capturable=fast, weight_decay=0.01)

    def step() -> None:
        loss, penalty = student.loss(*room), penalty_of(student)
        (loss + penalty if penalty.requires_grad else loss).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()

    student.head_mode()
    graph, stream = None, torch.cuda.Stream() if fast else None
    for number in range(steps):
        share = min((number + 1) / max(1, steps // 10), (steps - number) / steps)
        if fast:
            rate.fill_(lr * share)
        else:
            optimizer.param_groups[0]["lr"] = lr * share
        for part, value in zip(room, batches.next(), strict=True):
            part.copy_(value)
        if graph is not None:
            graph.replay()
        elif stream is None:
            optimizer.zero_grad(set_to_none=True)
            step()
        else:
            graph = on_stream(stream, optimizer, step, capture=number == _EAGER_STEPS)


def on_stream(stream: Any, optimizer: torch.optim.Optimizer, step: Callable[[], None], *, capture: bool) -> Any:
    """Take a step on a stream of its own, or capture the step there, run it once, and return its graph.

    Steps before the capture must run on the same stream, so that gradients are accumulated there.
    """
    stream.wait_stream(torch.cuda.current_stream())
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph() if capture else None
    if graph is None:
        with torch.cuda.stream(stream):
            step()
    else:
        with torch.cuda.graph(graph, stream=stream):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    if graph is not None:
        graph.replay()
    return graph


@torch.no_grad()
def visited(student: Student, encoder: Encoder, items: Sequence[Item]) -> tuple[float, float, float]:
    """Return the mean number of visited neurons of a layer, the number there is, and the difference of forms.

    The difference is the median one between what a layer gives in the form of training and in that of inference, which
    reads only the neurons that a token visits, relative to the size of the output.
    """
    layers = conditional_layers(student)
    neurons = [dense_weights(encoder.model, 0).neurons]
    if not layers:
        return float(neurons[0]), float(neurons[0]), 0.0
    ids, real = encoder.encode([item.text for item in items[:64]])
    counts, differences, handles = [], [0.0], []

    def look(layer: ConditionalFFN, args: tuple[Tensor, ...]) -> None:
        x = args[0][real]
        counts.append(layer.visited_neurons(x))
        one, other = layer.training_forward(x), layer.hard_forward(x)
        wrong = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp(min=1e-6)
        differences.append(float(wrong.median()))

    for layer in layers.values():
        handles.append(layer.register_forward_pre_hook(look))
    student.head_mode()
    student.vectors(ids, real)
    for handle in handles:
        handle.remove()
    total = sum(layer.total_neurons() for layer in layers.values()) / len(layers)
    return sum(counts) / len(counts), total, max(differences)
