"""Codes of a delta ticket: positions as gaps or as a bitmap, whichever is smaller, and codes of 4 bits in pairs.

A gap is the number of unchanged weights before a change. It is stored as bytes: each byte 255 stands for 255 unchanged
weights, and the first smaller byte ends the gap. With a share f of the weights changed, gaps take about f bytes a
weight (a little more where f is small), the bitmap an eighth of a byte.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from minigpt.errors import AssetError

# Forms in which positions are stored.
Form = Literal["gaps", "bitmap"]
# Byte that stands for as many unchanged weights and does not end a gap.
SKIP = 255


def encode_positions(positions: Tensor, size: int) -> tuple[Form, Tensor]:
    """Encode ascending positions.

    Args:
        positions: int64 [n], ascending.
        size: number of weights of the tensor.

    Returns:
        The smaller of the two forms, and its bytes.
    """
    gaps = np.diff(positions.numpy(), prepend=-1) - 1
    skips, rest = np.divmod(gaps, SKIP)
    if len(gaps) + int(skips.sum()) >= -(-size // 8):
        bits = np.zeros(size, dtype=np.uint8)
        bits[positions.numpy()] = 1
        return "bitmap", torch.from_numpy(np.packbits(bits, bitorder="little"))
    encoded = np.full(len(gaps) + int(skips.sum()), SKIP, dtype=np.uint8)
    encoded[np.cumsum(skips + 1) - 1] = rest
    return "gaps", torch.from_numpy(encoded)


def decode_positions(form: Form, encoded: Tensor, size: int) -> Tensor:
    """Decode positions, int64 and ascending.

    Args:
        form: form of the bytes.
        encoded: uint8, the bytes.
        size: number of weights of the tensor.

    Raises:
        AssetError: the bytes do not encode positions within the tensor.
    """
    data = encoded.numpy()
    if form == "bitmap":
        positions = np.flatnonzero(np.unpackbits(data, bitorder="little"))
    else:
        ends = data != SKIP
        # A byte that ends a gap also stands for the changed weight itself.
        positions = (np.cumsum(data, dtype=np.int64) + np.cumsum(ends))[ends] - 1
    if len(positions) and positions[-1] >= size:
        raise AssetError(f"Position {positions[-1]} lies outside a tensor of {size} weights.")
    return torch.from_numpy(positions.astype(np.int64, copy=False))


def pack_fours(codes: Tensor) -> Tensor:
    """Pack codes from -8 to 7 in pairs: the lower half of a byte is the first of the two."""
    padded = torch.nn.functional.pad(codes, (0, len(codes) % 2)).view(torch.uint8) & 15
    return padded[::2] | (padded[1::2] << 4)


def unpack_fours(packed: Tensor, count: int) -> Tensor:
    """Unpack `count` codes of :func:`pack_fours` as int8."""
    both = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:count].to(torch.int8)
    return torch.where(both > 7, both - 16, both)
