"""Compressed storage of sparse matrices: bitmap, column indices, or 2:4 positions, with the kept values behind.

Sizes are the bytes that a form takes on disk: positions count as much as values. A matrix reads back bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minigpt.tickets.masks import best_of_groups

# Most columns that an index of 16 bits can name.
MOST_COLUMNS = 1 << 16
# Kept weights and size of a group that GPUs multiply (2:4).
KEPT, GROUP = 2, 4


def packed(mask: Tensor) -> Tensor:
    """Pack a mask into bits, eight in a byte, uint8 [ceil(n / 8)]."""
    return torch.from_numpy(np.packbits(mask.detach().cpu().numpy().reshape(-1)))


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Read a mask of a shape from :func:`packed` bits."""
    flat = np.unpackbits(bits.numpy(), count=math.prod(shape)).astype(bool)
    return torch.from_numpy(flat).view(*shape)


def _encode_bitmap(weight: Tensor) -> dict[str, Tensor]:
    """Store one bit for each weight, and the values that are not zero."""
    mask = weight != 0
    return {"bitmap": packed(mask), "values": weight[mask]}


def _decode_bitmap(parts: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Read a matrix from a bitmap and values."""
    weight = parts["values"].new_zeros(*shape)
    weight[unpacked(parts["bitmap"], shape)] = parts["values"]
    return weight


def _encode_index(weight: Tensor) -> dict[str, Tensor]:
    """Store the number of values of each row, their columns in 16 bits, and the values (compressed sparse rows)."""
    mask = weight != 0
    columns = mask.nonzero()[:, 1].numpy().astype(np.uint16)
    return {"counts": mask.sum(1).int(), "columns": torch.from_numpy(columns), "values": weight[mask]}


def _decode_index(parts: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Read a matrix from counts, columns and values."""
    weight = parts["values"].new_zeros(*shape)
    rows = torch.repeat_interleave(torch.arange(shape[0]), parts["counts"].long())
    weight[rows, torch.from_numpy(parts["columns"].numpy().astype(np.int64))] = parts["values"]
    return weight


def _encode_groups(weight: Tensor) -> dict[str, Tensor]:
    """Store two values for each four weights, and their positions in two bits each, as GPUs take them."""
    groups = weight.reshape(-1, GROUP)
    mask = best_of_groups((groups != 0).float(), KEPT, GROUP)
    places = mask.nonzero()[:, 1].view(-1, KEPT).numpy().astype(np.uint8)
    nibbles = np.pad(places[:, 0] | places[:, 1] << 2, (0, len(places) % 2))
    positions = nibbles[0::2] | nibbles[1::2] << 4
    return {"positions": torch.from_numpy(positions), "values": groups[mask].view(-1)}


def _decode_groups(parts: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Read a matrix from pairs of values and their positions."""
    codes = parts["positions"].numpy()
    nibbles = np.stack([codes & 15, codes >> 4], axis=1).reshape(-1)[: math.prod(shape) // GROUP]
    places = torch.from_numpy(np.stack([nibbles & 3, nibbles >> 2], axis=1).astype(np.int64))
    groups = parts["values"].new_zeros(len(places), GROUP)
    return groups.scatter_(1, places, parts["values"].view(-1, KEPT)).view(*shape)


def _fits_groups(weight: Tensor) -> bool:
    """Say whether at most two of every four weights next to each other are not zero."""
    if weight.shape[1] % GROUP:
        return False
    return bool(((weight != 0).view(-1, GROUP).sum(1) <= KEPT).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form of storing a sparse matrix.

    Attributes:
        encode: turns a matrix into named tensors.
        decode: turns these and the shape into the matrix.
        fits: says whether a matrix can be stored so.
    """

    encode: Callable[[Tensor], dict[str, Tensor]]
    decode: Callable[[Mapping[str, Tensor], Sequence[int]], Tensor]
    fits: Callable[[Tensor], bool] = lambda _weight: True


FORMS: Mapping[str, Form] = {
    "dense": Form(
        encode=lambda weight: {"values": weight.contiguous()}, decode=lambda parts, shape: parts["values"].view(*shape)
    ),
    "bitmap": Form(encode=_encode_bitmap, decode=_decode_bitmap),
    "index": Form(encode=_encode_index, decode=_decode_index, fits=lambda weight: weight.shape[1] <= MOST_COLUMNS),
    "2:4": Form(encode=_encode_groups, decode=_decode_groups, fits=_fits_groups),
}


def stored_bytes(weight: Tensor, form: str) -> int:
    """Return the bytes that a matrix takes in a form, positions included."""
    return sum(part.numel() * part.element_size() for part in FORMS[form].encode(weight).values())


def smallest_form(weight: Tensor) -> str:
    """Return the form that takes the fewest bytes for this matrix."""
    sizes = {name: stored_bytes(weight, name) for name, form in FORMS.items() if form.fits(weight)}
    return min(sizes, key=lambda name: sizes[name])
