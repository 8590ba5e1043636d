"""Sampling of thousands of texts at once from a language model.

Decoding goes token by token over key and value buffers of a fixed size, so that one step is one CUDA graph; without a
graph a small model spends most of a step on launching kernels. Attention reads a fixed number of places, so there is
one graph for every `STRIDE` places. Prompts are read in the same way: while a text's prompt lasts, its next token is
given, not drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minigpt.distributed import current
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import has_fixed_work, head_dim, shape_of

# Name under which the attention function is registered with transformers.
CACHED = "minigpt_cached"
# Steps that run again before the capture, so that kernels are set up outside of the graphs.
WARM_UP_STEPS = 3
# Attention reads keys and values up to the next multiple of this, instead of all that there is room for.
STRIDE = 96
# Texts that are decoded together on any device but a GPU.
CPU_ROWS = 32
# Most texts that are decoded together on a GPU.
MAX_ROWS = 2048
# Keys and values may take one part in this many of a GPU's memory.
MEMORY_SHARE = 3
# Distance of the seeds of two blocks of texts, further than seeds of builds are apart.
SEEDS_PER_BLOCK = 1_000_003

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
    ends: Collection[int] = (),
    turn: tuple[int, int] = (0, 1),
    reporter: Reporter = SILENT,
) -> list[list[int]]:
    """Continue each prompt up to `length` tokens by sampling from the model's whole distribution.

    Args:
        model: a causal language model whose attention is plainly causal (:func:`can_sample`), in the precision that it
            runs in.
        prompts: token ids of each prompt, 1 to `length` of them.
        length: most tokens of a text, its prompt included.
        temperature: divisor of the logits, above 0; a value below 1 gives more probable text.
        seed: sets the draws; torch's global random generator is seeded with it, and with another one for each block of
            texts that are decoded together.
        rows: texts that are decoded together (None: as many as suit the device and its memory). Draws depend on it.
        ends: tokens that end a text. Texts that are decoded together go on until all of them have ended, which costs
            time but changes no text; each is then cut behind its end.
        turn: number of this process and of all that share the blocks; the texts of other processes' blocks are empty.
        reporter: receives the progress.

    Returns:
        Token ids of every text, prompt and end token included, in the order of the prompts.
    """
    device = next(model.parameters()).device
    texts: list[list[int]] = [[] for _ in prompts]
    size = min(len(prompts), rows or _default_rows(device, model, length))
    blocks = list(enumerate(range(0, len(prompts), max(1, size))))[turn[0] :: turn[1]]
    if not blocks:
        return texts
    torch.manual_seed(seed)
    model.eval()
    buffers = _Buffers.empty(size, length, device)
    with _buffered_attention(model, buffers):
        step = _make_step(model, buffers, temperature)
        for block, start in reporter.track(blocks, title="Sampling", total=len(blocks)):
            together = list(prompts[start : start + size])
            # A seed for each block, so that it does not matter which process decodes it, and what it did before.
            torch.manual_seed(seed + block * SEEDS_PER_BLOCK)
            buffers.fill(together)
            _decode(step, buffers, len(together), length, ends)
            rows_of_tokens = buffers.tokens[: len(together)].tolist()
            texts[start : start + size] = [
                cut_behind_end(row, len(prompt), ends) for row, prompt in zip(rows_of_tokens, together, strict=True)
            ]
    return texts


def _decode(step: Callable[[int], None], buffers: _Buffers, rows: int, length: int, ends: Collection[int]) -> None:
    """Decode the first rows of the buffers up to their length, or until each has ended."""
    for place in range(length - 1):
        # Looking costs a wait for the device, so it is done once for each graph.
        if ends and place % STRIDE == 0 and buffers.have_ended(rows, place, ends):
            break
        step(places_to_read(place, length))


def cut_behind_end(row: Sequence[int], prompt: int, ends: Collection[int]) -> list[int]:
    """Cut a text behind the first end token that follows its prompt.

    Args:
        row: token ids of the text.
        prompt: tokens of its prompt, which may hold end tokens.
        ends: tokens that end a text.
    """
    stop = next((place for place in range(prompt, len(row)) if row[place] in ends), len(row))
    return list(row[: stop + 1])


def places_to_read(place: int, length: int) -> int:
    """Return how many places attention reads when `place`, counted from 0, is the last that is written.

    Args:
        place: the last place that is written.
        length: tokens of a text.
    """
    return min(length, (place // STRIDE + 1) * STRIDE)


def can_sample(config: Any, length: int) -> bool:
    """Say whether steps are the same work for every token, and attention over `length` tokens is plainly causal."""
    window = getattr(config, "sliding_window", None)
    plain = has_fixed_work(config) and getattr(config, "attn_logit_softcapping", None) is None
    return plain and (window is None or window >= length)


def rows_within(config: Any, length: int, memory: int, *, width: int = 2) -> int:
    """Return how many texts can be decoded together: a power of two, at most `MAX_ROWS`.

    Their keys and values take one part in `MEMORY_SHARE` of the memory. All memory of the device counts, whether it is
    free or not, because the number of texts that are drawn together changes the draws.

    Args:
        config: config of the model.
        length: tokens of a text.
        memory: bytes of the device's memory.
        width: bytes of one number.
    """
    shape = shape_of(config)
    row = 2 * shape.layers * shape.kv_groups * head_dim(config) * length * width
    return min(MAX_ROWS, 1 << max(0, (memory // MEMORY_SHARE // row).bit_length() - 1))


def _default_rows(device: torch.device, model: Any, length: int) -> int:
    """Return how many texts of `length` tokens are decoded together on this device."""
    if device.type != "cuda":
        return CPU_ROWS
    memory = int(torch.cuda.get_device_properties(device).total_memory)
    return rows_within(model.config, length, memory, width=model.dtype.itemsize)


@dataclass(slots=True, kw_only=True)
class _Buffers:
    """Tensors that a decoding step reads and writes.

    Attributes:
        tokens: int64 [rows, length], the token ids of the texts so far.
        given: bool [rows, length], true where a token belongs to the prompt.
        place: int64 [1], the place whose token is read next.
        read: number of places that attention reads.
        keys: by layer, [rows, groups, length, head size].
        values: by layer, [rows, groups, length, head size].
    """

    tokens: Tensor
    given: Tensor
    place: Tensor
    read: int = 0
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def empty(cls, rows: int, length: int, device: torch.device) -> _Buffers:
        """Make buffers of zeros; those for keys and values are made by the first step."""
        return cls(
            tokens=torch.zeros(rows, length, dtype=torch.long, device=device),
            given=torch.zeros(rows, length, dtype=torch.bool, device=device),
            place=torch.zeros(1, dtype=torch.long, device=device),
        )

    def fill(self, prompts: Prompts) -> None:
        """Start over with new prompts; old keys may stay, because no step reads places that are not yet written."""
        rows, length = self.tokens.shape
        tokens, given = torch.zeros(rows, length, dtype=torch.long), torch.zeros(rows, length, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids = torch.tensor(list(prompt[:length]))
            tokens[row, : len(ids)], given[row, : len(ids)] = ids, True
        self.tokens.copy_(tokens)
        self.given.copy_(given)
        self.place.zero_()

    def have_ended(self, rows: int, place: int, ends: Collection[int]) -> bool:
        """Say whether each of the first texts has an end token behind its prompt, up to a place."""
        written = self.tokens[:rows, : place + 1]
        is_end = torch.isin(written, torch.tensor(sorted(ends), device=written.device))
        return bool((is_end & ~self.given[:rows, : place + 1]).any(dim=1).all())

    def store(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's key and value of the current place, and return all that attention reads.

        Args:
            layer: index of the layer.
            key: [rows, groups, 1, head size].
            value: [rows, groups, 1, head size].

        Returns:
            Keys and values, [rows, groups, read, head size] each.
        """
        if layer not in self.keys:
            shape = (*key.shape[:2], self.tokens.shape[1], key.shape[3])
            self.keys[layer], self.values[layer] = key.new_zeros(shape), value.new_zeros(shape)
        self.keys[layer].index_copy_(2, self.place, key)
        self.values[layer].index_copy_(2, self.place, value)
        return self.keys[layer][:, :, : self.read], self.values[layer][:, :, : self.read]


@contextmanager
def _buffered_attention(model: Any, buffers: _Buffers) -> Iterator[None]:
    """Let the model's attention read the buffers inside the block; transformers builds no mask and no cache for it."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: Any, scaling: float | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        keys, values = buffers.store(module.layer_idx, key, value)
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
        # The table of transformers lives as long as the process and would keep the buffers in memory.
        AttentionInterface.register(CACHED, sdpa_attention_forward)


def _make_step(model: Any, buffers: _Buffers, temperature: float) -> Callable[[int], None]:
    """Return a function that reads the current token of every text and writes the next one.

    Its argument is the number of places that attention reads.
    """

    def step(read: int) -> None:
        buffers.read = read
        rows = buffers.tokens.shape[0]
        ids = buffers.tokens.index_select(1, buffers.place)
        logits = model(input_ids=ids, position_ids=buffers.place.expand(rows, 1), use_cache=False).logits[:, -1]
        probabilities = (logits.float() / temperature).softmax(-1)
        # The largest of p / Exp(1) is a draw from p, and needs no size that depends on data, as a graph requires.
        drawn = (probabilities / torch.empty_like(probabilities).exponential_(1)).argmax(-1, keepdim=True)
        buffers.place += 1
        is_given = buffers.given.index_select(1, buffers.place)
        following = torch.where(is_given, buffers.tokens.index_select(1, buffers.place), drawn)
        buffers.tokens.index_copy_(1, buffers.place, following)

    if buffers.tokens.device.type != "cuda":
        return step
    return _captured(step, buffers)


def _captured(step: Callable[[int], None], buffers: _Buffers) -> Callable[[int], None]:
    """Capture the step as CUDA graphs, one for each number of places that attention reads.

    The graphs share their memory, because they run one after the other.
    """
    length = buffers.tokens.shape[1]
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    reads = sorted({places_to_read(place, length) for place in range(length - 1)})
    with torch.cuda.stream(stream):
        for read in [*reads, *reads[-1:] * WARM_UP_STEPS][: length - 1]:
            step(read)
    torch.cuda.current_stream().wait_stream(stream)
    graphs: dict[int, Any] = {}
    for read in reads:
        buffers.place.zero_()
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(graphs.values())).pool() if graphs else None
        # NCCL has a thread of its own where several processes work.
        mode = "global" if current() is None else "thread_local"
        with torch.cuda.graph(graph, pool=pool, capture_error_mode=mode):
            step(read)
        graphs[read] = graph
    return lambda read: graphs[read].replay()
