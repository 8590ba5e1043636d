"""A teacher with its own, larger vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.healing.data import TokenText
from minigpt.transformer.logits import Packing, logits_at, states_before_head

NEVER = -1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A model to learn from and, for each token of the student, the teacher's id of it (-1: it has none).

    `parent_ids` is int64 [student vocabulary]; None means that both speak the same vocabulary. Otherwise the teacher
    answers through a head of its own that has the student's rows only, made when the teacher is.
    """

    model: Any
    parent_ids: Tensor | None = None
    head: nn.Linear | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.model is not None and self.parent_ids is not None:
            object.__setattr__(self, "head", restricted_head(self.model.get_output_embeddings(), self.parent_ids))

    def can_read(self, text: TokenText) -> TokenText:
        """The windows made of tokens that the teacher knows (all but a few with rare control characters).

        `bytes` stays that of the whole text: a text to train on, not one to measure.
        """
        if self.parent_ids is None or int(self.parent_ids.min()) >= 0:
            return text
        strange = frozenset((self.parent_ids < 0).nonzero().flatten().tolist())
        windows = tuple(window for window in text.windows if strange.isdisjoint(window))
        return TokenText(windows=windows, bytes=text.bytes)

    @torch.no_grad()
    def logits(self, ids: Tensor, places: Tensor, packing: Packing | None = None) -> Tensor:
        """Logits at the chosen places over the student's vocabulary.

        Args:
            ids: the student's token ids, int64 [rows, length], on the teacher's device.
            places: int64 [n], into the flattened ids.
            packing: see :func:`minigpt.transformer.logits.logits_at`.

        Returns:
            [n, student vocabulary].
        """
        with self._speaking():
            return logits_at(
                self.model, places, input_ids=self._translated(ids), **(packing.arguments if packing else {})
            )

    @torch.no_grad()
    def states(self, ids: Tensor, packing: Packing | None = None) -> Tensor:
        """What goes into the head, [rows x length, hidden]; arguments as for :meth:`logits`."""
        with self._speaking():
            return states_before_head(
                self.model, input_ids=self._translated(ids), **(packing.arguments if packing else {})
            )

    @torch.no_grad()
    def answers(self, states: Tensor) -> Tensor:
        """What the head alone makes of such states, [n, student vocabulary]."""
        return torch.as_tensor((self.head or self.model.get_output_embeddings())(states))

    def _speaking(self) -> AbstractContextManager[None]:
        return nullcontext() if self.head is None else _head(self.model, self.head)

    def _translated(self, ids: Tensor) -> Tensor:
        return ids if self.parent_ids is None else self.parent_ids.to(ids.device)[ids].clamp_min(0)


def restricted_head(head: nn.Linear, parent_ids: Tensor) -> nn.Linear:
    """The rows of a language model's head that stand for the student's tokens.

    Args:
        head: hidden size -> parent vocabulary.
        parent_ids: int64 [student vocabulary]; -1 marks tokens the parent lacks, which it then never predicts.
    """
    weight = head.weight.detach()
    ids = parent_ids.to(weight.device)
    known = (ids >= 0).to(weight.dtype)
    smaller = nn.Linear(weight.shape[1], len(ids), device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        smaller.weight.copy_(weight.index_select(0, ids.clamp_min(0)) * known[:, None])
        smaller.bias.copy_((1 - known) * NEVER)
        if head.bias is not None:
            smaller.bias.add_(head.bias.detach().index_select(0, ids.clamp_min(0)) * known)
    return smaller.requires_grad_(False)


@contextmanager
def _head(model: Any, head: nn.Linear) -> Iterator[None]:
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
    if tokens is None:
        return Teacher(model=model)
    ids = torch.full((student.config.vocab_size,), -1, dtype=torch.long)
    ids[: len(tokens)] = torch.tensor(tokens)
    return Teacher(model=model, parent_ids=ids.to(model.device))
