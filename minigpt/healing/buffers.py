"""Batches of a fixed shape, as a captured training step needs them: windows packed into one row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.healing.data import PaddedBatch
from minigpt.transformer.logits import Packing


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """One row of fixed length that batches are laid into: windows one behind the other, then padding.

    Attributes:
        ids: int64 [1, tokens], the token ids; 0 in the padding.
        packing: says which window each token belongs to; windows do not see each other.
        weights: float32 [tokens - 1], 1 where the next token belongs to the same window, 0 elsewhere.
        origins: int64 [tokens], index of each token in the training text; 0 in the padding and where it is unknown.
    """

    ids: Tensor
    packing: Packing
    weights: Tensor
    origins: Tensor

    @property
    def max_windows(self) -> int:
        """Number of windows that the buffers have room for."""
        return len(self.packing.starts) - 1 - -(-self.ids.shape[1] // self.packing.longest)

    @classmethod
    def empty(cls, tokens: int, window: int, max_windows: int, device: torch.device) -> Buffers:
        """Make buffers that hold padding only.

        Args:
            tokens: length of the row.
            window: longest window in tokens.
            max_windows: number of windows to have room for.
            device: where the tensors lie.
        """
        # Padding behind the text is cut into pieces of at most `window` tokens, each of which needs a start, too.
        starts = torch.full((max_windows + -(-tokens // window) + 1,), tokens, dtype=torch.int32, device=device)
        positions = torch.zeros(1, tokens, dtype=torch.long, device=device)
        return cls(
            ids=torch.zeros(1, tokens, dtype=torch.long, device=device),
            packing=Packing(positions=positions, starts=starts, longest=window),
            weights=torch.zeros(tokens - 1, device=device),
            origins=torch.zeros(tokens, dtype=torch.long, device=device),
        )

    def fill(self, batch: PaddedBatch) -> None:
        """Lay a batch into the buffers; the padding behind it is cut into pieces no longer than a window.

        Raises:
            ValueError: the batch has too many tokens or windows, or a window that is too long.
        """
        tokens, longest = self.ids.shape[1], self.packing.longest
        used = int(batch.lengths.sum())
        ends = torch.cat([batch.lengths.cumsum(0), torch.arange(used, max(used, tokens), longest)[1:]])
        room = len(self.packing.starts) - (1 if used == tokens else 2)  # the first start, and the end of the padding
        if used > tokens or int(batch.lengths.max()) > longest or len(ends) > room:
            raise ValueError(f"a batch must have at most {tokens} tokens in windows of at most {longest}")
        columns = torch.arange(batch.ids.shape[1])[None, :]
        is_text = columns < batch.lengths[:, None]
        padding = torch.arange(tokens - used)
        starts = torch.full(self.packing.starts.shape, tokens, dtype=torch.int32)
        starts[0], starts[1 : len(ends) + 1] = 0, ends
        weights = torch.ones(tokens)
        weights[batch.lengths.cumsum(0) - 1] = 0  # the token behind a window's last one belongs to another window
        weights[used:] = 0
        self._copy(self.ids[0], torch.cat([batch.ids[is_text], torch.zeros_like(padding)]))
        self._copy(self.packing.positions[0], torch.cat([columns.expand_as(is_text)[is_text], padding % longest]))
        self._copy(self.packing.starts, starts)
        self._copy(self.weights, weights[:-1])
        origins = torch.zeros_like(batch.lengths) if batch.origins is None else batch.origins
        self._copy(self.origins, torch.cat([(origins[:, None] + columns)[is_text], torch.zeros_like(padding)]))

    @staticmethod
    def _copy(buffer: Tensor, values: Tensor) -> None:
        """Copy values into a buffer without waiting for the device, for which the memory must be pinned."""
        buffer.copy_(values.pin_memory() if buffer.is_cuda else values, non_blocking=True)
