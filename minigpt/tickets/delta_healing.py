"""Healing of merged delta tickets: the changed weights train on, and each ticket teaches the text of its own domain.

Every ticket answers its text before the training begins, so that one model at a time is in memory. The
loss is the divergence from these answers alone, and weights that no ticket changes keep the parent's values to the bit.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.files import fingerprint
from minigpt.healing import Recipe, TokenText
from minigpt.healing.answers import Answers, likeliest
from minigpt.healing.data import MIN_TOKENS, PaddedBatch, Piece, batch_by_length, pieces_read
from minigpt.healing.forward import MAX_CPU_TOKENS, autocast
from minigpt.healing.planes import Layout
from minigpt.healing.stored import Part, Store, StoredTeacher
from minigpt.progress import SILENT, Reporter
from minigpt.results import Training
from minigpt.tickets.delta_settings import MERGED_RATE, DeltaSettings
from minigpt.tickets.delta_training import round_recipe, train_masked
from minigpt.tickets.language import put
from minigpt.transformer.logits import logits_at

# Version of the answers: raised when they change, so that older ones are written again.
VERSION = 1
# Likeliest tokens that are stored at each place.
TOP = 64
# Tokens of one pass that answers.
PASS_TOKENS = 8192
# Title of the training, in messages.
TITLE = "Healing the merged ticket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Texts and specialist of one domain, for the healing of a merged ticket.

    Attributes:
        text: training text of the domain.
        dev: its dev text.
        weights: returns the tensors of the domain's own specialist by name, which answers the text.
    """

    text: TokenText
    dev: TokenText
    weights: Callable[[], Mapping[str, Tensor]]


def healing_recipe(steps: int, rate: float = MERGED_RATE) -> Recipe:
    """Return the recipe of healing: AdamW without weight decay, distillation alone.

    Args:
        steps: optimizer steps.
        rate: peak of the learning rate.
    """
    return round_recipe(Recipe(), DeltaSettings(learning_rate=rate, distill=1.0), steps)


def changed_by_any(tickets: Sequence[Mapping[str, Any]], parent: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mask of the weights that at least one ticket changes, for the tensors that have such weights.

    Args:
        tickets: changes of each ticket by name of the tensor.
        parent: the parent's tensors by name, for the shapes.
    """
    mask = {}
    for name, before in parent.items():
        if touching := [ticket[name].positions for ticket in tickets if name in ticket]:
            flat = torch.zeros(before.numel(), dtype=torch.bool)
            flat[torch.cat(touching)] = True
            mask[name] = flat.view(before.shape)
    return mask


def equal_shares(texts: Sequence[TokenText]) -> list[TokenText]:
    """Cut texts down to about the tokens of the smallest, so that every domain trains with as many.

    The beginning of each is kept, which is a fair sample of it, since splits are shuffled. Windows that are too short
    to train on are left out. `bytes` stay those of the whole text.
    """
    usable = [replace(text, windows=tuple(filter(_is_usable, text.windows))) for text in texts]
    most = min(text.tokens for text in usable)
    shares = []
    for text in usable:
        before = accumulate((len(window) - 1 for window in text.windows), initial=0)
        kept = takewhile(lambda pair: pair[1] < most, zip(text.windows, before, strict=False))
        shares.append(replace(text, windows=tuple(window for window, _ in kept)))
    return shares


def joined_text(texts: Sequence[TokenText]) -> TokenText:
    """Put texts one behind the other."""
    windows = tuple(window for text in texts for window in text.windows)
    return TokenText(windows=windows, bytes=sum(text.bytes for text in texts))


def store_lessons(
    lessons: Sequence[Lesson],
    model: Any,
    recipe: Recipe,
    folder: Path,
    *,
    key: str,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> StoredTeacher:
    """Let each specialist answer the windows of its own text that the healing will read, and store the answers.

    Args:
        lessons: text and specialist of each domain; the texts are those of :func:`equal_shares`.
        model: model of the parent's shape, which becomes each specialist in turn, in place.
        recipe: recipe of the healing.
        folder: folder of the answers; those of an earlier run with this key are kept.
        key: fingerprint of the tickets.
        seed: order of the text.
        reporter: receives progress.
    """
    text = joined_text([lesson.text for lesson in lessons])
    device = next(model.parameters()).device
    layout = Layout(count=TOP, vocab=model.config.get_text_config().vocab_size)
    key = fingerprint(VERSION, key, text.digest, recipe, seed, TOP, str(model.dtype))
    tokens = min(PASS_TOKENS if device.type == "cuda" else MAX_CPU_TOKENS, recipe.tokens_per_step)
    pieces = pieces_read(text.windows, recipe.steps, recipe.tokens_per_step, seed, bare=recipe.bare)
    ends = list(accumulate(sum(map(len, lesson.text.windows)) for lesson in lessons))
    parts = [
        _parts(folder, owner, [piece for piece in pieces if bisect(ends, piece.origin) == owner], tokens)
        for owner in range(len(lessons))
    ]
    store = Store(folder=folder, key=key, layout=layout, parts=tuple(part for group in parts for part in group))
    missing = store.missing(reporter)

    def answer(batch: PaddedBatch) -> Answers:
        with torch.no_grad(), autocast(device, recipe.precision):
            logits = logits_at(model, batch.places.to(device), input_ids=batch.ids.to(device))
        return likeliest(logits, layout.count, recipe.temperature)

    for lesson, group in zip(lessons, parts, strict=True):
        if left := [part for part in group if part in missing]:
            put(model, lesson.weights())
            for part in reporter.track(left, title="Storing the ticket's answers", total=len(left)):
                store.write(part, answer(part.batch))
    return StoredTeacher(folder, key)


def heal_merged(
    model: Any,
    mask: Mapping[str, Tensor],
    lessons: Sequence[Lesson],
    recipe: Recipe,
    teacher: StoredTeacher,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    reporter: Reporter = SILENT,
) -> Training:
    """Train the weights of a mask on the text of all domains together, and keep those that are best on all dev text.

    Args:
        model: the merged model in fp32, which is trained in place.
        mask: weights that may change, of :func:`changed_by_any`.
        lessons: text and dev text of each domain.
        recipe: recipe of the healing.
        teacher: the answers of :func:`store_lessons` with the same lessons, recipe and seed.
        seed: order of the text.
        checkpoint: file to resume from.
        reporter: receives progress.
    """
    text = joined_text([lesson.text for lesson in lessons])
    dev = joined_text([lesson.dev for lesson in lessons])
    return train_masked(
        model,
        mask,
        text,
        dev,
        recipe,
        teacher=teacher,
        seed=seed,
        checkpoint=checkpoint,
        title=TITLE,
        reporter=reporter,
    )


def _is_usable(window: Sequence[int]) -> bool:
    """Return whether a window is long enough to be trained on."""
    return len(window) >= MIN_TOKENS


def _parts(folder: Path, owner: int, pieces: Sequence[Piece], tokens: int) -> list[Part]:
    """Divide the windows of one domain into parts of a store."""
    return [
        Part(path=folder / f"part-{owner:02d}-{number:05d}.safetensors", pieces=tuple(batch))
        for number, batch in enumerate(batch_by_length(pieces, tokens))
    ]
