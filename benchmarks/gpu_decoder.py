"""A Llama that decodes a token at a time with any feed-forward layers: lean, and fit for a CUDA graph.

One step reads a token, writes the cache in place and leaves the next token where it read this one, so that a captured
step can be replayed. All between the feed-forward layers is one function that the compiler may fuse; it is the same for
all forms of them. Names of weights are those of transformers' Llama with tied embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Ffn = Callable[[Tensor], Tensor]
_EPSILON, _THETA, _DEVIATION = 1e-5, 10_000.0, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The shape of a model.

    Attributes:
        layers: number of layers.
        hidden: hidden size.
        ffn: neurons of a feed-forward layer.
        heads: heads of queries.
        kv_heads: heads of keys and values.
        vocab: tokens of the vocabulary.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int

    @property
    def head(self) -> int:
        """Size of a head."""
        return self.hidden // self.heads


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer.

    Attributes:
        qkv: projections to queries, keys and values below each other.
        out: projection of what attention read.
        norm: scales before attention.
        ffn_norm: scales before the feed-forward layer.
        gate: gate projection [N, H].
        up: input projection [N, H].
        down: output projection [H, N].
        rows: the output projection by neuron [N, H].
    """

    qkv: Tensor
    out: Tensor
    norm: Tensor
    ffn_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor
    rows: Tensor

    def rest(self) -> tuple[Tensor, ...]:
        """Return the weights of attention and its norms."""
        return self.qkv, self.out, self.norm, self.ffn_norm


@dataclass(frozen=True, slots=True)
class Model:
    """Weights of a model: embeddings, which are the head as well, layers, and the scales before the head."""

    sizes: Sizes
    embedding: Tensor
    layers: list[Layer]
    norm: Tensor

    def bytes_of_rest(self) -> int:
        """Count the bytes of the weights that a step reads beside those of feed-forward layers."""
        return sum(weight.nbytes for layer in self.layers for weight in layer.rest()) + self.embedding.nbytes


def random_model(sizes: Sizes, device: str, dtype: torch.dtype) -> Model:
    """Draw the weights where they will be, in their type."""

    def drawn(*shape: int) -> Tensor:
        return torch.empty(shape, device=device, dtype=dtype).normal_(0, _DEVIATION)

    rows = (sizes.heads + 2 * sizes.kv_heads) * sizes.head
    layers = []
    for _ in range(sizes.layers):
        gate, up, down = drawn(sizes.ffn, sizes.hidden), drawn(sizes.ffn, sizes.hidden), drawn(sizes.hidden, sizes.ffn)
        one = torch.ones(sizes.hidden, device=device, dtype=dtype)
        out = drawn(sizes.hidden, sizes.hidden)
        layers.append(Layer(drawn(rows, sizes.hidden), out, one, one, gate, up, down, down.T.contiguous()))
    return Model(sizes, drawn(sizes.vocab, sizes.hidden), layers, torch.ones(sizes.hidden, device=device, dtype=dtype))


def model_of(state: Mapping[str, Tensor], sizes: Sizes) -> Model:
    """Return the model of a state of transformers' Llama."""
    layers = []
    for number in range(sizes.layers):
        weight = {
            name.removeprefix(f"model.layers.{number}."): value
            for name, value in state.items()
            if name.startswith(f"model.layers.{number}.")
        }
        qkv = torch.cat([weight[f"self_attn.{name}_proj.weight"] for name in "qkv"])
        norms = (weight["input_layernorm.weight"], weight["post_attention_layernorm.weight"])
        gate, up, down = (weight[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        layers.append(Layer(qkv, weight["self_attn.o_proj.weight"], *norms, gate, up, down, down.T.contiguous()))
    return Model(sizes, state["model.embed_tokens.weight"], layers, state["model.norm.weight"])


class Decoder:
    """A model with room for sequences that it decodes together.

    Attributes:
        model: the weights.
        token: next token of each sequence [B].
        position: place of that token [1]; behind the last place follows the first that is decoded.
    """

    def __init__(self, model: Model, tokens: int, context: int, steps: int, *, compiled: bool = False) -> None:
        sizes, like = model.sizes, model.embedding
        self.model, self.context, self.end = model, context, context + steps
        shape = (tokens, sizes.kv_heads, self.end, sizes.head)
        self.keys = [torch.randn(shape, device=like.device, dtype=like.dtype) for _ in model.layers]
        self.values = [torch.randn(shape, device=like.device, dtype=like.dtype) for _ in model.layers]
        self.first = torch.randint(sizes.vocab, (tokens,), device=like.device)
        self.token, self.position = self.first.clone(), torch.full((1,), context, device=like.device)
        self.places = torch.arange(self.end, device=like.device)
        turns = _THETA ** (-torch.arange(0, sizes.head, 2, device=like.device) / sizes.head)
        angles = (self.places[:, None] * turns).repeat(1, 2)
        self.cos, self.sin = angles.cos().to(like.dtype), angles.sin().to(like.dtype)
        self.attend = torch.compile(attend, dynamic=False) if compiled else attend
        self.finish = torch.compile(finish, dynamic=False) if compiled else finish

    def restart(self) -> None:
        """Go back to the first token."""
        self.token.copy_(self.first)
        self.position.fill_(self.context)

    def step(self, ffns: Sequence[Ffn]) -> Tensor:
        """Decode one token of each sequence, and return its logits [B, vocabulary]."""
        model = self.model
        hidden = functional.embedding(self.token, model.embedding)
        added = torch.zeros_like(hidden)
        turn, visible = (self.cos[self.position], self.sin[self.position]), self.places <= self.position
        for layer, ffn, keys, values in zip(model.layers, ffns, self.keys, self.values, strict=True):
            hidden, inner = self.attend(hidden, added, *layer.rest(), keys, values, *turn, visible, self.position)
            added = ffn(inner)
        logits = functional.linear(self.finish(hidden, added, model.norm), model.embedding)
        self.token.copy_(logits.argmax(-1))
        self.position.copy_((self.position + 1 - self.context) % (self.end - self.context) + self.context)
        return logits


def normed(x: Tensor, scales: Tensor) -> Tensor:
    """Normalize tokens by their root mean square."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPSILON)).to(x.dtype) * scales


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn halves of heads by the angles of a position (2104.09864)."""
    one, other = x.chunk(2, -1)
    return x * cos + torch.cat((-other, one), -1) * sin


def finish(hidden: Tensor, added: Tensor, norm: Tensor) -> Tensor:
    """Return what the head reads."""
    return normed(hidden + added, norm)


def attend(
    hidden: Tensor,
    added: Tensor,
    qkv: Tensor,
    out: Tensor,
    norm: Tensor,
    ffn_norm: Tensor,
    keys: Tensor,
    values: Tensor,
    cos: Tensor,
    sin: Tensor,
    visible: Tensor,
    position: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute all that is between two feed-forward layers.

    Args:
        hidden: tokens [B, H] before the last feed-forward layer.
        added: what that layer adds to them.
        qkv: see `Layer`, with the three that follow.
        out: see there.
        norm: see there.
        ffn_norm: see there.
        keys: the cache [B, heads, places, size of a head], which gets this position's.
        values: as the keys.
        cos: of the angles of this position.
        sin: of the angles of this position.
        visible: which places count.
        position: this position.

    Returns:
        The tokens after attention, and what the next feed-forward layer reads.
    """
    hidden = hidden + added
    tokens, heads, _, size = keys.shape
    q, k, v = functional.linear(normed(hidden, norm), qkv).view(tokens, -1, size).split(
        (qkv.shape[0] // size - 2 * heads, heads, heads), 1
    )  # fmt: skip
    keys.index_copy_(2, position, turned(k, cos, sin)[:, :, None])
    values.index_copy_(2, position, v[:, :, None])
    grouped = turned(q, cos, sin).view(tokens, heads, -1, size)
    scores = (grouped @ keys.transpose(2, 3)).float() / size**0.5
    shares = scores.masked_fill(~visible, float("-inf")).softmax(-1).to(hidden.dtype)
    hidden = hidden + functional.linear((shares @ values).view(tokens, -1), out)
    return hidden, normed(hidden, ffn_norm)
