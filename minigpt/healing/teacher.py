"""Teachers for distillation, also those whose vocabulary is larger than the student's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.healing.data import TokenText
from minigpt.transformer.logits import Packing, logits_at, states_before_head

# Precisions of a teacher whose answers can be captured in a graph.
HALF_PRECISION = (torch.bfloat16, torch.float16)
# Logit of a token that the teacher lacks; finite, so that arithmetic with it gives no NaN.
NEVER_LOGIT = -1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A model that a student learns from by distillation.

    Attributes:
        model: a causal language model, usually the tuned parent; its weights are not changed.
        parent_ids: int64 [student vocabulary], the teacher's id of each of the student's tokens, -1 for a token that
            the teacher lacks; None if both have the same vocabulary.
        head: output projection with the rows of the student's tokens only; None if both have the same vocabulary.
    """

    model: Any
    parent_ids: Tensor | None = None
    head: nn.Linear | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.model is not None and self.parent_ids is not None:
            object.__setattr__(self, "head", restricted_head(self.model.get_output_embeddings(), self.parent_ids))

    def readable_part(self, text: TokenText) -> TokenText:
        """Return the windows of a training text that hold only tokens known to the teacher.

        These are nearly all of them: the teacher lacks a few tokens for rare control characters at most. The result is
        not for measuring, because its `bytes` stays that of the whole text.
        """
        return readable_part(text, self.parent_ids)

    @property
    def models(self) -> list[Any]:
        """Models that it has in memory."""
        return [self.model]

    @property
    def is_in_half_precision(self) -> bool:
        """True if its weights have 16 bits."""
        return next(self.model.parameters()).dtype in HALF_PRECISION

    @torch.no_grad()
    def logits(self, ids: Tensor, places: Tensor, packing: Packing | None = None) -> Tensor:
        """Return the teacher's logits at some places, over the student's vocabulary.

        Args:
            ids: the student's token ids, int64 [rows, length], on the teacher's device.
            places: int64 [n], indices into the flattened ids.
            packing: the windows of `ids`, if it is one row of packed windows.

        Returns:
            [n, student vocabulary].
        """
        with self._restricted():
            return logits_at(
                self.model, places, input_ids=self.translated(ids), **(packing.arguments if packing else {})
            )

    @torch.no_grad()
    def states(self, ids: Tensor, packing: Packing | None = None) -> Tensor:
        """Return the hidden states that the teacher's head is given, [rows x length, hidden].

        Args:
            ids: the student's token ids, int64 [rows, length], on the teacher's device.
            packing: the windows of `ids`, if it is one row of packed windows.
        """
        with self._restricted():
            return states_before_head(
                self.model, input_ids=self.translated(ids), **(packing.arguments if packing else {})
            )

    @torch.no_grad()
    def logits_of_states(self, states: Tensor) -> Tensor:
        """Return the logits [n, student vocabulary] that the head alone computes from hidden states [n, hidden]."""
        return torch.as_tensor((self.head or self.model.get_output_embeddings())(states))

    def _restricted(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the head for the student's tokens, where there is one."""
        return nullcontext() if self.head is None else _exchanged_head(self.model, self.head)

    def translated(self, ids: Tensor) -> Tensor:
        """Translate the student's token ids into the teacher's; a token that the teacher lacks becomes id 0."""
        return ids if self.parent_ids is None else self.parent_ids.to(ids.device)[ids].clamp_min(0)


def readable_part(text: TokenText, parent_ids: Tensor | None) -> TokenText:
    """Return the windows of a training text that hold only tokens known to a teacher; see :class:`Teacher`."""
    if parent_ids is None or int(parent_ids.min()) >= 0:
        return text
    unknown = frozenset((parent_ids < 0).nonzero().flatten().tolist())
    windows = tuple(window for window in text.windows if unknown.isdisjoint(window))
    return TokenText(windows=windows, bytes=text.bytes)


def restricted_head(head: nn.Linear, parent_ids: Tensor) -> nn.Linear:
    """Make an output projection with only the rows that stand for the student's tokens.

    Args:
        head: projection from the hidden size to the parent's vocabulary.
        parent_ids: int64 [student vocabulary], the parent's id of each token; -1 marks a token that the parent lacks,
            which the result gives no probability.
    """
    weight = head.weight.detach()
    ids = parent_ids.to(weight.device)
    known = (ids >= 0).to(weight.dtype)
    smaller = nn.Linear(weight.shape[1], len(ids), device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        smaller.weight.copy_(weight.index_select(0, ids.clamp_min(0)) * known[:, None])
        smaller.bias.copy_((1 - known) * NEVER_LOGIT)
        if head.bias is not None:
            smaller.bias.add_(head.bias.detach().index_select(0, ids.clamp_min(0)) * known)
    return smaller.requires_grad_(False)


@contextmanager
def _exchanged_head(model: Any, head: nn.Linear) -> Iterator[None]:
    """Give the model another output projection inside the block."""
    before = model.get_output_embeddings()
    model.set_output_embeddings(head)
    try:
        yield
    finally:
        model.set_output_embeddings(before)


def teacher_of(model: Any, tokens: Sequence[int] | None, student: Any) -> Teacher:
    """Make an unpruned model the teacher of a pruned one.

    Args:
        model: the unpruned model; its weights are frozen.
        tokens: its ids of the student's tokens, in the student's order (None: both have the same vocabulary).
        student: the pruned model.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    ids = parent_ids_of(tokens, student.config.vocab_size)
    return Teacher(model=model, parent_ids=None if ids is None else ids.to(model.device))


def parent_ids_of(tokens: Sequence[int] | None, vocab: int) -> Tensor | None:
    """Return a teacher's ids of the student's tokens, int64 [vocab]; None if both have the same vocabulary.

    Args:
        tokens: the teacher's ids of the tokens that the student has, in the student's order.
        vocab: rows of the student's embedding, which may be more.
    """
    if tokens is None:
        return None
    ids = torch.full((vocab,), -1, dtype=torch.long)
    ids[: len(tokens)] = torch.tensor(tokens)
    return ids
