"""A teacher's answers, computed once: its last hidden state at every token of the training text.

Training reads its text several times, and the teacher would say the same each time. Kept are its states before the
head, 2 bytes for each of a few hundred numbers (6 GB for 5 million tokens of the default parent). What its head makes
of them is exact, which a few of its largest logits are not, and the head is a small part of the teacher. Windows shown
without their opening token are taught what the teacher says with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.healing.buffers import Buffers
from minigpt.healing.data import TokenText, gathered, parts, pieces, together
from minigpt.healing.teacher import Teacher
from minigpt.progress import Reporter

READ_OFTEN = 2
"""Reading of the text, that many times at least, that pays for going through it once more."""
SHARE = 4
"""The states may take one part in so many of an accelerator's memory."""
CLOSE = 0.02
"""How far the head's answers may be from the teacher's, relative to the largest: bf16 in batches of another shape."""
BENT_BY = ("final_logit_softcapping", "logits_scaling", "logit_scale")
"""What families do to the logits of their heads, as their configs name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A teacher's `states` [tokens of the text, hidden], in the order of :func:`minigpt.healing.data.pieces`."""

    teacher: Teacher
    states: Tensor

    def logits(self, places: Tensor) -> Tensor:
        """Logits [n, student vocabulary] at places (int64 [n]) of the text."""
        return self.teacher.answers(self.states.index_select(0, places))


def pays(text: TokenText, config: Any, to_read: int, device: torch.device) -> bool:
    """Whether `to_read` tokens go through the text often enough, its states fit, and the head alone makes the answers.

    Args:
        text: to train on.
        config: of the teacher.
        to_read: tokens of all steps together.
        device: of the teacher.
    """
    if any(getattr(config, name, None) not in (None, 1) for name in BENT_BY):
        return False
    tokens = sum(map(len, pieces(text.windows)))
    room = int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0
    return to_read >= READ_OFTEN * tokens and 2 * tokens * int(config.hidden_size) <= room // SHARE


@torch.no_grad()
def remember(teacher: Teacher, text: TokenText, buffers: Buffers, reporter: Reporter) -> Memory | None:
    """Have the teacher read the text once.

    Args:
        teacher: whose attention is packed (:func:`minigpt.healing.attention.causal_attention`).
        text: to train on, in the student's tokens.
        buffers: to lay the batches into, with room for the longest window.
        reporter: told about progress.

    Returns:
        What it said; None without text, or where it does more to its answers than its head does (soft caps, scales).
    """
    usable = pieces(text.windows)
    states: Tensor | None = None
    tokens = buffers.ids.shape[1]
    batches = [batch for part in parts(usable, tokens) for batch in together(part, tokens, buffers.most)]
    for batch in reporter.track(batches, title="Asking the teacher", total=len(batches)):
        told = gathered(batch)
        buffers.fill(told)
        used = int(told.lengths.sum())
        found = teacher.states(buffers.ids, buffers.packing)[:used]
        if states is None:
            if not _by_head_alone(teacher, buffers, found):
                return None
            states = found.new_empty(sum(map(len, usable)), found.shape[1])
        states[buffers.origins[:used]] = found
    return None if states is None else Memory(teacher=teacher, states=states)


def _by_head_alone(teacher: Teacher, buffers: Buffers, found: Tensor) -> bool:
    """Whether the head makes the teacher's answers of these states."""
    places = torch.arange(min(len(found), 64), device=found.device)
    whole, ours = teacher.logits(buffers.ids, places, buffers.packing).float(), teacher.answers(found[places]).float()
    return float((whole - ours).abs().max()) <= CLOSE * float(whole.abs().max())
