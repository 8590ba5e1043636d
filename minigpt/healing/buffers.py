"""Batches of a fixed shape, as a captured step takes them: windows one behind the other, none seeing another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.healing.data import Padded
from minigpt.transformer.logits import Packing


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """A batch of fixed shape: windows one behind the other, filled up with padding.

    `ids` int64 [1, tokens], `packing` says which token belongs where, `weights` [tokens - 1] is 1 inside of windows,
    `origins` int64 [tokens] is where each token stands in the training text (0 for padding, and where it is not known).
    """

    ids: Tensor
    packing: Packing
    weights: Tensor
    origins: Tensor

    @property
    def most(self) -> int:
        """Windows there is room for."""
        return len(self.packing.starts) - 1 - -(-self.ids.shape[1] // self.packing.longest)

    @classmethod
    def empty(cls, tokens: int, window: int, most: int, device: torch.device) -> Buffers:
        """Room for `tokens` tokens in `most` windows of at most `window`."""
        starts = torch.full((most + -(-tokens // window) + 1,), tokens, dtype=torch.int32, device=device)
        positions = torch.zeros(1, tokens, dtype=torch.long, device=device)
        return cls(
            ids=torch.zeros(1, tokens, dtype=torch.long, device=device),
            packing=Packing(positions=positions, starts=starts, longest=window),
            weights=torch.zeros(tokens - 1, device=device),
            origins=torch.zeros(tokens, dtype=torch.long, device=device),
        )

    def fill(self, batch: Padded) -> None:
        """Lay a batch into the buffers; padding behind it falls into pieces that are no longer than a window.

        Raises:
            ValueError: the batch does not fit, or a window is longer than was said.
        """
        tokens, longest = self.ids.shape[1], self.packing.longest
        used = int(batch.lengths.sum())
        ends = torch.cat([batch.lengths.cumsum(0), torch.arange(used, max(used, tokens), longest)[1:]])
        room = len(self.packing.starts) - (1 if used == tokens else 2)  # the first start, and the end of the padding
        if used > tokens or int(batch.lengths.max()) > longest or len(ends) > room:
            raise ValueError(f"a batch must have at most {tokens} tokens in windows of at most {longest}")
        columns = torch.arange(batch.ids.shape[1])[None, :]
        text = columns < batch.lengths[:, None]
        rest = torch.arange(tokens - used)
        starts = torch.full(self.packing.starts.shape, tokens, dtype=torch.int32)
        starts[0], starts[1 : len(ends) + 1] = 0, ends
        weights = torch.ones(tokens)
        weights[batch.lengths.cumsum(0) - 1] = 0
        weights[used:] = 0
        self._put(self.ids[0], torch.cat([batch.ids[text], torch.zeros_like(rest)]))
        self._put(self.packing.positions[0], torch.cat([columns.expand_as(text)[text], rest % longest]))
        self._put(self.packing.starts, starts)
        self._put(self.weights, weights[:-1])
        origins = torch.zeros_like(batch.lengths) if batch.origins is None else batch.origins
        self._put(self.origins, torch.cat([(origins[:, None] + columns)[text], torch.zeros_like(rest)]))

    @staticmethod
    def _put(buffer: Tensor, values: Tensor) -> None:
        """Copy without waiting, which takes memory that is pinned."""
        buffer.copy_(values.pin_memory() if buffer.is_cuda else values, non_blocking=True)
