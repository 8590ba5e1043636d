"""Answers of a teacher that is larger than the memory: all text passes through a layer before the next one is read."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from minigpt.healing.answers import likeliest
from minigpt.healing.data import TokenText
from minigpt.healing.recipe import Precision
from minigpt.healing.stored import Part, Store
from minigpt.healing.teacher import Teacher
from minigpt.progress import SILENT, Reporter
from minigpt.streaming.parent import StreamedParent
from minigpt.streaming.reading import Reading


def write_streamed_answers(
    store: Store,
    parent: StreamedParent,
    parent_ids: Tensor | None,
    *,
    temperature: float,
    precision: Precision,
    tokens: int,
    reporter: Reporter = SILENT,
) -> None:
    """Let a streamed parent answer all windows whose answers are not stored yet.

    Each sweep over the parent reads `tokens` tokens of text, whose hidden states wait in the memory of the process, so
    fewer tokens take less memory and read the parent more often. What a sweep has answered is kept.

    Args:
        store: the folder.
        parent: the teacher; its head has only the student's tokens afterwards.
        parent_ids: its ids of the student's tokens, as in :class:`minigpt.healing.teacher.Teacher`.
        temperature: divides the logits.
        precision: of the arithmetic.
        tokens: tokens of one sweep.
        reporter: receives the progress.
    """
    missing = store.missing(reporter)
    teacher = Teacher(model=parent.model, parent_ids=parent_ids)
    if teacher.head is not None:
        parent.model.set_output_embeddings(teacher.head)
    for parts in divided(missing, tokens):
        batches = [part.batch for part in parts]
        translated = [replace(batch, ids=teacher.translated(batch.ids)) for batch in batches]
        windows = tuple(tuple(piece.ids) for part in parts for piece in part.pieces)
        text = TokenText(windows=windows, bytes=1)
        reading = Reading(parent.model, text, parent.device, batches=translated, precision=precision, home=parent.home)
        for index, layer in enumerate(parent.sweep(title="Storing the teacher's answers", reporter=reporter)):
            reading.move(index, layer)
        for place, part in enumerate(parts):
            store.write(part, likeliest(reading.logits(place), store.layout.count, temperature))


def divided(parts: list[Part], tokens: int) -> list[list[Part]]:
    """Divide parts, in order, into groups of at most `tokens` tokens, or of one part."""
    groups: list[list[Part]] = []
    room = 0
    for part in parts:
        size = sum(map(len, part.pieces))
        if not groups or size > room:
            groups.append([])
            room = tokens
        groups[-1].append(part)
        room -= size
    return groups
