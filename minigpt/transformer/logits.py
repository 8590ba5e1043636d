"""Logits and hidden states of causal language models, computed only at the places that are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

# Weights of the output projection that are held in float32 at a time (2**26 are 256 MB).
HEAD_BLOCK = 2**26


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Windows that lie one behind the other in one row and do not see each other.

    Attributes:
        positions: int64 [1, tokens], the position of each token in its window.
        starts: int32 [windows + 1], where each window starts, and where the last one ends.
        longest: most tokens of a window.
    """

    positions: Tensor
    starts: Tensor
    longest: int

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of a model for packed text, under the names that transformers has for flash attention."""
        ends = {"cu_seq_lens_q": self.starts, "cu_seq_lens_k": self.starts}
        return {"position_ids": self.positions, "max_length_q": self.longest, "max_length_k": self.longest, **ends}


def logits_at(model: Any, places: Tensor, **inputs: Any) -> Tensor:
    """Return the logits [n, vocab] of a model at some places only.

    The output projection is given the hidden states at these places, so that no logits of other places are computed or
    copied. What a family does to its logits afterwards (soft caps, scales) stays as it is. A model without an output
    projection (an exported runtime) computes all logits, of which those at the places are taken.

    Args:
        model: a causal language model that takes `inputs` as keywords.
        places: int64 [n], indices into the flattened [rows, length] of the input.
        **inputs: keyword arguments of the model, among them `input_ids` [rows, length]; no cache is used.
    """

    def select_places(_head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0].flatten(0, 1).index_select(0, places.to(args[0].device)).unsqueeze(0),)

    with _before_head(model, select_places):
        logits: Tensor = model(**inputs, use_cache=False).logits.flatten(0, 1)
    return logits if len(logits) == len(places) else logits[places.to(logits.device)]


def states_before_head(model: Any, **inputs: Any) -> Tensor:
    """Return the hidden states that the model's output projection is given, [rows x length, hidden].

    Args:
        model: a causal language model with an output projection.
        **inputs: as for :func:`logits_at`.
    """
    states: list[Tensor] = []

    def keep_states(_head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        states.append(args[0])
        return (args[0][:, :1],)  # one logit a row: the others would be thrown away

    with _before_head(model, keep_states):
        model(**inputs, use_cache=False)
    return states[0].flatten(0, 1)


@contextmanager
def float_head(model: Any) -> Iterator[None]:
    """Let the output projection compute in float32 inside the block, whatever the dtype of its weights.

    A bf16 projection rounds logits to three digits. Its weights stay as they are: a copy is made, of large ones a block
    at a time, which bounds the memory. Projections that are no plain linear layer stay as they are.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.dtype == torch.float32:
        yield
        return
    weight = head.weight.detach()
    precision = "medium" if weight.dtype == torch.bfloat16 else "highest"
    weight = weight.float() if weight.numel() <= HEAD_BLOCK else weight

    def forward(states: Tensor) -> Tensor:
        # Numbers that bf16 holds are multiplied exactly by units for bf16, which are faster; sums are in float32.
        exact = states.dtype == torch.bfloat16
        with _matmul_precision(precision if exact else "highest"):
            return _float_linear(states.float(), weight, head.bias)

    # An attribute of the object hides the method of its class, so that the hooks of the layer still run.
    vars(head)["forward"] = forward
    try:
        yield
    finally:
        del vars(head)["forward"]


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    """Let products of float32 matrices use units of this precision inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _float_linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Project float32 states [..., hidden] by weights of any dtype [vocab, hidden], in float32."""
    if weight.dtype == torch.float32:
        return linear(states, weight, None if bias is None else bias.float())
    rows = max(1, HEAD_BLOCK // weight.shape[1])
    logits = torch.empty(*states.shape[:-1], len(weight), dtype=torch.float32, device=states.device)
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        logits[..., part] = linear(states, weight[part].float(), None if bias is None else bias[part].float())
    return logits


@contextmanager
def _before_head(model: Any, hook: Callable[[Any, tuple[Tensor, ...]], tuple[Tensor]]) -> Iterator[None]:
    """Let `hook` replace the input of the output projection inside the block, where the model has one."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(hook) if head is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
