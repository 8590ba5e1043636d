"""Text sampled from a model, thousands of pieces at once: what a teacher can say that its corpus does not.

Decoding goes token by token over key and value buffers of a fixed size, so that one step is one CUDA graph (a small
model spends nearly all of a step on launching kernels otherwise), one for every `STRIDE` places, since attention reads
all that it may. Prompts are read in the same way: while a text's prompt lasts, its next token is given, not drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import head_dim, shape_of

CACHED = "minigpt_cached"
WARM_UP = 3
STRIDE = 96
"""Attention reads keys and values up to the next multiple of this, not all that there is room for."""
ROWS_CPU, ROWS = 32, 2048
SHARE = 3
"""Keys and values may take one part in so many of an accelerator's memory."""

Prompts = Sequence[Sequence[int]]


@torch.no_grad()
def sample(
    model: Any,
    prompts: Prompts,
    *,
    length: int,
    temperature: float = 1.0,
    seed: int = 0,
    rows: int | None = None,
    reporter: Reporter = SILENT,
) -> list[list[int]]:
    """Continue each prompt up to `length` tokens by sampling from the model's whole distribution.

    Args:
        model: a causal language model of a family whose attention is plainly causal (:func:`can_sample`); in the
            precision it is to run in.
        prompts: token ids, each of 1 to `length` tokens.
        length: tokens of every text, its prompt included. Nothing stops at an end token: cut the texts as they need.
        temperature: divides the logits.
        seed: of the draws.
        rows: texts decoded together (default: by the device and its memory).
        reporter: told about progress.

    Returns:
        Token ids of every text, prompt included, in the order of the prompts.
    """
    device = next(model.parameters()).device
    if not prompts:
        return []
    size = min(len(prompts), rows or _rows_on(device, model, length))
    torch.manual_seed(seed)
    texts: list[list[int]] = []
    model.eval()
    buffers = _Buffers.empty(size, length, device)
    with _attending(model, buffers):
        step = _stepper(model, buffers, temperature)
        starts = range(0, len(prompts), size)
        for start in reporter.track(starts, title="Sampling", total=len(starts)):
            chosen = list(prompts[start : start + size])
            buffers.fill(chosen)
            for place in range(length - 1):
                step(reach(place, length))
            texts += buffers.tokens[: len(chosen)].tolist()
    return texts


def reach(place: int, length: int) -> int:
    """Places that attention reads when `place` (counted from 0) is the last that is written."""
    return min(length, (place // STRIDE + 1) * STRIDE)


def can_sample(config: Any, length: int) -> bool:
    """Whether a family's attention sees all `length` tokens before it and does nothing else to its scores."""
    window = getattr(config, "sliding_window", None)
    return getattr(config, "attn_logit_softcapping", None) is None and (window is None or window >= length)


def rows_within(config: Any, length: int, memory: int, *, width: int = 2) -> int:
    """Texts whose keys and values of `length` tokens take a third of `memory` bytes: a power of two, 2,048 at most.

    The whole memory counts, not what is free of it: how many texts share a draw decides what they say.

    Args:
        config: of the model.
        length: tokens of a text.
        memory: bytes of the device.
        width: bytes of a number.
    """
    shape = shape_of(config)
    row = 2 * shape.layers * shape.kv_groups * head_dim(config) * length * width
    return min(ROWS, 1 << max(0, (memory // SHARE // row).bit_length() - 1))


def _rows_on(device: torch.device, model: Any, length: int) -> int:
    if device.type != "cuda":
        return ROWS_CPU
    memory = int(torch.cuda.get_device_properties(device).total_memory)
    return rows_within(model.config, length, memory, width=model.dtype.itemsize)


@dataclass(slots=True, kw_only=True)
class _Buffers:
    """What a step reads and writes: `tokens` and `given` [rows, length], `place` [1], keys and values by layer.

    `read` is how many places attention reads.
    """

    tokens: Tensor
    given: Tensor
    place: Tensor
    read: int = 0
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def empty(cls, rows: int, length: int, device: torch.device) -> _Buffers:
        """All zeros."""
        return cls(
            tokens=torch.zeros(rows, length, dtype=torch.long, device=device),
            given=torch.zeros(rows, length, dtype=torch.bool, device=device),
            place=torch.zeros(1, dtype=torch.long, device=device),
        )

    def fill(self, prompts: Prompts) -> None:
        """Start over with these prompts. Old keys need no cleaning: nothing looks at places not yet written."""
        rows, length = self.tokens.shape
        tokens, given = torch.zeros(rows, length, dtype=torch.long), torch.zeros(rows, length, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            kept = torch.tensor(list(prompt[:length]))
            tokens[row, : len(kept)], given[row, : len(kept)] = kept, True
        self.tokens.copy_(tokens)
        self.given.copy_(given)
        self.place.zero_()

    def remember(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write a place's key and value, [rows, groups, 1, head]; returns those to read, [rows, groups, read, head]."""
        if layer not in self.keys:
            shape = (*key.shape[:2], self.tokens.shape[1], key.shape[3])
            self.keys[layer], self.values[layer] = key.new_zeros(shape), value.new_zeros(shape)
        self.keys[layer].index_copy_(2, self.place, key)
        self.values[layer].index_copy_(2, self.place, value)
        return self.keys[layer][:, :, : self.read], self.values[layer][:, :, : self.read]


@contextmanager
def _attending(model: Any, buffers: _Buffers) -> Iterator[None]:
    """Inside the block the model's attention reads the buffers; transformers builds no mask and no cache for it."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: Any, scaling: float | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        keys, values = buffers.remember(module.layer_idx, key, value)
        rows, heads, _one, size = query.shape
        grouped = query.view(rows, keys.shape[1], heads // keys.shape[1], size)
        scores = (grouped @ keys.transpose(-1, -2)).float() * (size**-0.5 if scaling is None else scaling)
        later = torch.arange(scores.shape[-1], device=scores.device) > buffers.place
        weights = scores.masked_fill(later, float("-inf")).softmax(-1).to(values.dtype)
        return (weights @ values).view(rows, 1, heads, size), None

    AttentionInterface.register(CACHED, attend)
    before = model.config._attn_implementation
    model.set_attn_implementation(CACHED)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        # the table of transformers lives as long as the process, and with it whatever its functions hold
        AttentionInterface.register(CACHED, sdpa_attention_forward)


def _stepper(model: Any, buffers: _Buffers, temperature: float) -> Callable[[int], None]:
    """A function that reads one place of every text, with so many places before it, and writes the next."""

    def step(read: int) -> None:
        buffers.read = read
        rows = buffers.tokens.shape[0]
        ids = buffers.tokens.index_select(1, buffers.place)
        logits = model(input_ids=ids, position_ids=buffers.place.expand(rows, 1), use_cache=False).logits[:, -1]
        odds = (logits.float() / temperature).softmax(-1)
        drawn = (odds / torch.empty_like(odds).exponential_(1)).argmax(-1, keepdim=True)
        buffers.place += 1
        told = buffers.given.index_select(1, buffers.place)
        kept = torch.where(told, buffers.tokens.index_select(1, buffers.place), drawn)
        buffers.tokens.index_copy_(1, buffers.place, kept)

    if buffers.tokens.device.type != "cuda":
        return step
    return _graphed(step, buffers)


def _graphed(step: Callable[[int], None], buffers: _Buffers) -> Callable[[int], None]:
    """The step as graphs, one for each number of places that is read, in shared memory: they follow each other."""
    length = buffers.tokens.shape[1]
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    reads = sorted({reach(place, length) for place in range(length - 1)})
    with torch.cuda.stream(stream):
        for read in [*reads, *reads[-1:] * WARM_UP][: length - 1]:
            step(read)
    torch.cuda.current_stream().wait_stream(stream)
    graphs: dict[int, Any] = {}
    for read in reads:
        buffers.place.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=next(iter(graphs.values())).pool() if graphs else None):
            step(read)
        graphs[read] = graph
    return lambda read: graphs[read].replay()
