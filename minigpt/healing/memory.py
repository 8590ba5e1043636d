"""A teacher's answers to the training text, computed once and stored as its last hidden states.

A run reads its text several times, and the teacher would give the same answer each time. Its hidden states before the
head are stored in 2 bytes a number. The head then gives the exact answer, which a few of its largest logits would not,
and it is a small part of the teacher. A window that is shown without its opening token is taught the answers that the
teacher gives with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.healing.buffers import Buffers
from minigpt.healing.capture import capture
from minigpt.healing.data import TokenText, first_fit_batches, pad_pieces, pieces_of, split_into_pools
from minigpt.healing.fused import fused_kernels
from minigpt.healing.teacher import Teacher
from minigpt.progress import Reporter

# How often a run must read its text before storing the answers pays off.
MIN_READINGS = 2
# The states may take one part in this many of the accelerator's memory.
MEMORY_SHARE = 4
# Largest difference between the head's answers and the teacher's, relative to the largest logit; bf16 arithmetic in
# batches of another shape causes small differences.
LOGIT_TOLERANCE = 0.02
# Fields of model configs that change logits behind the head, so that the head alone does not give the answers.
LOGIT_TRANSFORMS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherMemory:
    """Stored answers of a teacher to a training text.

    Attributes:
        teacher: the teacher, whose head turns the states into logits.
        states: [tokens, hidden], its last hidden state at each token of the training text, in the order of
            :func:`minigpt.healing.data.pieces_of`.
    """

    teacher: Teacher
    states: Tensor

    def logits(self, places: Tensor) -> Tensor:
        """Return the teacher's logits [n, student vocabulary] at places (int64 [n]) of the training text."""
        return self.teacher.logits_of_states(self.states.index_select(0, places))


def memory_pays_off(text: TokenText, config: Any, to_read: int, device: torch.device) -> bool:
    """Say whether a teacher's answers are worth storing.

    They are if the run reads its text often enough, the states fit into the memory of the device, and the teacher does
    not change its logits behind the head.

    Args:
        text: the training text.
        config: the teacher's config.
        to_read: tokens that all steps of the run read together.
        device: where the teacher runs.
    """
    if any(getattr(config, name, None) not in (None, 1) for name in LOGIT_TRANSFORMS):
        return False
    tokens = sum(map(len, pieces_of(text.windows)))
    room = int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0
    return to_read >= MIN_READINGS * tokens and 2 * tokens * int(config.hidden_size) <= room // MEMORY_SHARE


@torch.no_grad()
def build_memory(teacher: Teacher, text: TokenText, buffers: Buffers, reporter: Reporter) -> TeacherMemory | None:
    """Let the teacher read the training text once, and store its last hidden states.

    Args:
        teacher: a teacher whose attention is packed (:func:`minigpt.healing.attention.causal_attention`).
        text: the training text, in the student's tokens.
        buffers: hold one batch at a time; they need room for the longest window.
        reporter: receives the progress.

    Returns:
        None if there is no text, or if the teacher's head does not reproduce its logits.
    """
    usable = pieces_of(text.windows)
    states: Tensor | None = None
    tokens = buffers.ids.shape[1]
    batches = [
        batch
        for pool in split_into_pools(usable, tokens)
        for batch in first_fit_batches(pool, tokens, buffers.max_windows)
    ]
    read: Callable[[], Tensor] | None = None
    for batch in reporter.track(batches, title="Asking the teacher", total=len(batches)):
        padded = pad_pieces(batch)
        buffers.fill(padded)
        used = int(padded.lengths.sum())
        if read is None:
            read = _reader(teacher, buffers)
        batch_states = read()[:used]
        if states is None:
            if not _head_reproduces_logits(teacher, buffers, batch_states):
                return None
            states = batch_states.new_empty(sum(map(len, usable)), batch_states.shape[1])
        states[buffers.origins[:used]] = batch_states
    return None if states is None else TeacherMemory(teacher=teacher, states=states)


def _reader(teacher: Teacher, buffers: Buffers) -> Callable[[], Tensor]:
    """Return a function that lets the teacher read the buffers, captured as a graph on a GPU.

    It returns the last hidden states [tokens, hidden], which its next call may overwrite.
    """

    def read() -> Tensor:
        return teacher.states(buffers.ids, buffers.packing)

    if not buffers.ids.is_cuda:
        return read
    with fused_kernels(teacher.model):
        replay, states = capture(read)

    def read_again() -> Tensor:
        replay()
        return states

    return read_again


def _head_reproduces_logits(teacher: Teacher, buffers: Buffers, states: Tensor) -> bool:
    """Say whether the head, given the states of the batch, gives the logits that the whole teacher gives."""
    places = torch.arange(min(len(states), 64), device=states.device)
    expected = teacher.logits(buffers.ids, places, buffers.packing).float()
    actual = teacher.logits_of_states(states[places]).float()
    return float((expected - actual).abs().max()) <= LOGIT_TOLERANCE * float(expected.abs().max())
