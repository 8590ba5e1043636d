"""Packed text as tensors, and the attention mask that keeps the documents of a window apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.errors import ConfigError
from minigpt.transformer.arch import base_model, has_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of packed windows.

    Attributes:
        input_ids: int64 [batch, length], the token ids.
        position_ids: int64 [batch, length]; they restart at 0 in every piece of a document.
        segment_ids: int64 [batch, length]; 0 for padding, and 1, 2 ... for the pieces of documents in a window.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ids: Tensor

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int((self.segment_ids != 0).sum())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return Batch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            segment_ids=self.segment_ids.to(device),
        )


def to_batches(packed: Any, *, batch_tokens: int = 8192) -> Iterator[Batch]:
    """Cut packed windows into batches, without the columns that are padding in all windows of a batch.

    Args:
        packed: has `input_ids`, `position_ids` and `segment_ids`, int64 [windows, length].
        batch_tokens: tokens of a batch, about; a batch has at least one window.
    """
    ids, positions, segments = (
        torch.as_tensor(getattr(packed, name), dtype=torch.long)
        for name in ("input_ids", "position_ids", "segment_ids")
    )
    rows = max(1, batch_tokens // max(1, ids.shape[1]))
    for start in range(0, ids.shape[0], rows):
        part = slice(start, start + rows)
        length = _used_length(segments[part])
        yield Batch(
            input_ids=ids[part, :length], position_ids=positions[part, :length], segment_ids=segments[part, :length]
        )


def _used_length(segments: Tensor) -> int:
    """Return the number of columns up to the last one that is not padding in all rows, at least 1."""
    used = (segments != 0).any(dim=0).nonzero()
    return int(used.max()) + 1 if len(used) else 1


def take_tokens(batches: Iterable[Batch], max_tokens: int | None) -> Iterator[Batch]:
    """Yield whole windows from the front of `batches` until there are `max_tokens` tokens of text (None: all)."""
    left = max_tokens
    for batch in batches:
        if left is None:
            yield batch
            continue
        counts = (batch.segment_ids != 0).sum(dim=1).cumsum(dim=0)
        rows = int((counts < left).sum()) + 1
        yield Batch(
            input_ids=batch.input_ids[:rows],
            position_ids=batch.position_ids[:rows],
            segment_ids=batch.segment_ids[:rows],
        )
        left -= int(counts[min(rows, len(counts)) - 1])
        if left <= 0:
            return


def split_rows(batch: Batch, tokens: int) -> Iterator[Batch]:
    """Split a batch into smaller ones of about `tokens` tokens, padding included, with at least one window each."""
    rows = max(1, tokens // batch.input_ids.shape[1])
    for start in range(0, len(batch.input_ids), rows):
        part = slice(start, start + rows)
        yield Batch(
            input_ids=batch.input_ids[part],
            position_ids=batch.position_ids[part],
            segment_ids=batch.segment_ids[part],
        )


def block_mask(segment_ids: Tensor, dtype: torch.dtype, *, window: int | None = None) -> Tensor:
    """Return a causal attention mask [batch, 1, length, length] in which no piece of a document sees another.

    Padding sees padding only. So no row of the mask is empty, and no softmax divides by zero.

    Args:
        segment_ids: int64 [batch, length]; 0 for padding, and another number for each piece of a window.
        dtype: `torch.bool` gives True where attention is allowed; a float type gives 0 there and the type's lowest
            number elsewhere, which every attention implementation of transformers adds to its scores.
        window: sliding window, the number of positions that a query sees, itself included (None: all before it).
    """
    length = segment_ids.shape[1]
    place = torch.arange(length, device=segment_ids.device)
    distance = place[:, None] - place[None, :]
    allowed = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    mask = (segment_ids[:, None, :, None] == segment_ids[:, None, None, :]) & allowed
    if dtype == torch.bool:
        return mask
    lowest = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)


def attention_mask(config: Any, segment_ids: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """Return the mask as the family's decoder takes it: one tensor, or one for each kind of layer.

    A mask that is passed to the decoder replaces its own with the sliding window in it, so the window is added here.

    Args:
        config: the model's config.
        segment_ids: int64 [batch, length].
        dtype: see :func:`block_mask`.
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return block_mask(segment_ids, dtype, window=window)
    masks = {"full_attention": block_mask(segment_ids, dtype)}
    if "sliding_attention" in kinds or window is not None:
        masks["sliding_attention"] = block_mask(segment_ids, dtype, window=window)
    return masks


def apart(model: Any, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches that a model can read: a state runs from token to token, so each piece gets a window of its own.

    Batches of models without a state stay as they are.
    """
    for batch in batches:
        yield _unpacked(batch) if has_state(model) and batch.segment_ids.max() > 1 else batch


def _unpacked(batch: Batch) -> Batch:
    """Put every piece of a document at the start of a window of its own, in order."""
    places = [(row, int(piece)) for row, ids in enumerate(batch.segment_ids) for piece in range(1, int(ids.max()) + 1)]
    masks = [batch.segment_ids[row] == piece for row, piece in places]
    length = max(int(mask.sum()) for mask in masks)
    shape = (len(masks), length)
    ids, positions, segments = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for index, ((row, _), mask) in enumerate(zip(places, masks, strict=True)):
        count = int(mask.sum())
        ids[index, :count] = batch.input_ids[row][mask]
        positions[index, :count] = batch.position_ids[row][mask]
        segments[index, :count] = 1
    return Batch(input_ids=ids, position_ids=positions, segment_ids=segments)


def run_decoder(model: Any, batch: Batch) -> Tensor:
    """Run the decoder without the language-model head on a batch; documents do not see each other.

    Returns:
        Hidden states after the final norm, [batch, length, hidden].

    Raises:
        ConfigError: documents share a window, and the model's layers carry a state from one to the next.
    """
    batch = batch.to(model.device)
    mask: Any = (batch.segment_ids != 0).long()
    if not has_state(model):
        mask = attention_mask(model.config, batch.segment_ids, model.dtype)
    elif batch.segment_ids.max() > 1:
        raise ConfigError("Layers with a state would mix the documents of a window; put each into its own (apart).")
    output = base_model(model)(
        input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=mask, use_cache=False
    )
    states: Tensor = output.last_hidden_state
    return states
