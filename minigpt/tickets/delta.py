"""Delta tickets in memory: the few weights of a parent that a specialist changes, put in and taken out in place.

A ticket names positions and what stands there: new values, or differences to the parent in 8 or 4 bits with a scale for
each block of changes. All arithmetic is elementwise in fp32 and then rounded to the stored type, so that every machine
reconstructs the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.errors import AssetError
from minigpt.tickets.delta_settings import Values

# Changes that share a scale, where differences are stored.
BLOCK = 64
# Largest code of a difference.
LARGEST = {"int8": 127, "int4": 7}
# Smallest divisor, for blocks of differences that are all zero.
SMALLEST = 1e-30
# Threads that hash tensors; hashing runs outside of the interpreter's lock.
HASHERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The changes of one tensor.

    Attributes:
        positions: int64 [n], ascending, indices into the flattened tensor.
        values: [n], the new values, or int8 codes of differences where there are scales.
        scales: bf16 [ceil(n / BLOCK)], what a code of each block is multiplied with; None for new values.
    """

    positions: Tensor
    values: Tensor
    scales: Tensor | None = None

    def applied_to(self, before: Tensor) -> Tensor:
        """Return the new values of the weights that stand at the positions.

        Args:
            before: [n], their values in the parent, in the type that is stored.
        """
        if self.scales is None:
            return self.values.to(before.device, before.dtype)
        scales = self.scales.to(before.device).float().repeat_interleave(BLOCK)[: len(before)]
        difference = self.values.to(before.device).float() * scales
        return (before.float() + difference).to(before.dtype)


# The changes of a model by the names of its parameters; tensors without a change are not named.
Changes = Mapping[str, Change]


def parameters_of(model: Any) -> dict[str, Tensor]:
    """Return the parameters of a model by name, tied ones once, as they can be changed in place."""
    return {name: parameter.data for name, parameter in model.named_parameters()}


def changes_between(parent: Mapping[str, Tensor], result: Mapping[str, Tensor]) -> dict[str, Change]:
    """Collect the weights of `result` that differ from the parent's, as new values.

    Args:
        parent: tensors by name.
        result: tensors of the same names, shapes and type.

    Raises:
        ValueError: a tensor has another type.
    """
    collected = {}
    for name, before in parent.items():
        after = result[name].detach().reshape(-1)
        if after.dtype != before.dtype:
            raise ValueError(f"{name} is {after.dtype} and was {before.dtype}: bits of two types cannot be compared")
        # By bits, not by value: -0.0 equals 0.0, and the result must be equal to the bit.
        positions = (_bits(after) != _bits(before.detach().reshape(-1))).nonzero().flatten()
        if len(positions):
            collected[name] = Change(positions=positions.cpu(), values=after[positions].cpu())
    return collected


def quantized(parent: Mapping[str, Tensor], changes: Changes, values: Values) -> dict[str, Change]:
    """Round the differences of a ticket to 8 or 4 bits; `exact` returns it as it is.

    Each block of `BLOCK` changes has a scale of its own, its largest difference divided by the largest code.

    Args:
        parent: the parent's tensors by name.
        changes: new values.
        values: how the changes are stored.
    """
    if values == "exact":
        return dict(changes)
    rounded = {}
    for name, change in changes.items():
        before = parent[name].reshape(-1)[change.positions.to(parent[name].device)].cpu().float()
        difference = change.values.float() - before
        codes, _ = _codes(difference, LARGEST[values])
        kept = codes != 0  # a difference that is rounded to nothing is no change
        if kept.any():
            codes, scales = _codes(difference[kept], LARGEST[values])
            rounded[name] = Change(positions=change.positions[kept], values=codes, scales=scales)
    return rounded


def _codes(difference: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Round differences to codes, and return the scale of each block of them too."""
    blocks = torch.nn.functional.pad(difference, (0, -len(difference) % BLOCK)).view(-1, BLOCK)
    scales = (blocks.abs().amax(1) / largest).to(torch.bfloat16)
    codes = (blocks / scales.float().clamp_min(SMALLEST)[:, None]).round().clamp(-largest, largest)
    return codes.flatten()[: len(difference)].to(torch.int8), scales


@torch.no_grad()
def apply(tensors: Mapping[str, Tensor], changes: Changes) -> dict[str, Change]:
    """Put a ticket into a model's tensors in place, and return what undoes it.

    Args:
        tensors: the parent's tensors by name, of :func:`parameters_of`.
        changes: the ticket.

    Returns:
        Changes that bring the parent back; :func:`apply` takes them, too.
    """
    undo = {}
    for name, change in changes.items():
        flat = tensors[name].view(-1)
        positions = change.positions.to(flat.device)
        before = flat[positions]
        flat[positions] = change.applied_to(before)
        undo[name] = Change(positions=change.positions, values=before)
    return undo


def changed_weights(changes: Changes) -> int:
    """Count the weights that a ticket names."""
    return sum(len(change.positions) for change in changes.values())


def digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 of type, shape and bytes of each tensor."""
    with ThreadPoolExecutor(HASHERS) as pool:
        return dict(zip(tensors, pool.map(_digest, tensors.values()), strict=True))


def check_digests(tensors: Mapping[str, Tensor], expected: Mapping[str, str], otherwise: str) -> None:
    """Compare tensors with their hashes.

    Args:
        tensors: tensors by name.
        expected: hashes of :func:`digests`; tensors that it does not name are not compared.
        otherwise: sentence of the error, in which `{name}` stands for the first tensor that differs.

    Raises:
        AssetError: a tensor is missing or differs.
    """
    missing = next((name for name in expected if name not in tensors), None)
    if missing is not None:
        raise AssetError(otherwise.format(name=missing))
    for name, digest in digests({name: tensors[name] for name in expected}).items():
        if digest != expected[name]:
            raise AssetError(otherwise.format(name=name))


def in_dtype(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return copies of tensors in the type that is stored."""
    return {name: tensor.detach().to(dtype, copy=True) for name, tensor in tensors.items()}


def densities(tensors: Mapping[str, Tensor], changes: Changes) -> Iterator[tuple[str, float]]:
    """Yield the share of the weights of each tensor that a ticket changes."""
    for name, tensor in tensors.items():
        yield name, len(changes[name].positions) / tensor.numel() if name in changes else 0.0


def _bits(tensor: Tensor) -> Tensor:
    """Return the bits of floating-point numbers as integers."""
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def _digest(tensor: Tensor) -> str:
    """Return the SHA-256 of one tensor."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    hasher = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    numbers: Any = _bits(flat).numpy()
    hasher.update(memoryview(numbers).cast("B"))
    return hasher.hexdigest()
