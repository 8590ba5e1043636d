"""Answers as compressed bytes: 16 bits for a token's number and 16 for its logarithm, byte planes first, then deflate.

Numbers of a vocabulary beyond 65,536 have their upper bits in a plane of their own, which is nearly all zeros.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from minigpt.healing.answers import Answers

# Numbers that two bytes hold.
SHORT = 1 << 16
# Effort of the compression: more takes several times as long and saves a few percent.
LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Form of stored answers.

    Attributes:
        count: tokens at each place.
        vocab: size of the student's vocabulary.
    """

    count: int
    vocab: int

    @property
    def kept(self) -> int:
        """Tokens that are stored at each place."""
        return min(self.count, self.vocab)


def pack(answers: Answers, layout: Layout) -> bytes:
    """Return the answers to one window as bytes."""
    tokens = answers.tokens.cpu().numpy()
    logs = torch.cat([answers.rest[:, None], answers.logs], dim=1).to("cpu", torch.float16).numpy()
    planes = [*_planes((tokens % SHORT).astype("<u2")), *_planes(logs.astype("<f2").view("<u2"))]
    if layout.vocab > SHORT:
        planes.append((tokens // SHORT).astype("u1"))
    return zlib.compress(b"".join(plane.tobytes() for plane in planes), LEVEL)


def unpack(block: bytes, places: int, layout: Layout) -> Answers:
    """Return the answers of :func:`pack`, in fp32.

    Args:
        block: the bytes.
        places: number of places in the window.
        layout: form of the answers.
    """
    flat = np.frombuffer(zlib.decompress(block), dtype="u1")
    number, width = places * layout.kept, places * (layout.kept + 1)
    tokens = _joined(flat[: 2 * number]).astype(np.int64)
    if layout.vocab > SHORT:
        tokens += SHORT * flat[2 * (number + width) :].astype(np.int64)
    logs = torch.from_numpy(_joined(flat[2 * number : 2 * (number + width)]).view("<f2").astype(np.float32))
    logs = logs.view(places, layout.kept + 1)
    return Answers(tokens=torch.from_numpy(tokens).view(places, layout.kept), logs=logs[:, 1:], rest=logs[:, 0])


def _planes(numbers: Any) -> tuple[Any, Any]:
    """Divide 16-bit numbers into their lower and upper bytes."""
    return (numbers & 0xFF).astype("u1"), (numbers >> 8).astype("u1")


def _joined(flat: Any) -> Any:
    """Put lower and upper bytes together again."""
    lower, upper = flat.reshape(2, -1).astype("<u2")
    return lower | (upper << 8)
