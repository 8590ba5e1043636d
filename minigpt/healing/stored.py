"""Stored teachers: a teacher's answers to the training windows on disk, so that it teaches without being in memory.

The answers are written part by part, a batch of windows each. A part is a safetensors file with the compressed answers
to each of its windows, and the hash of them. A run that is killed goes on behind its last whole part; a part that has
changed since is moved aside and written again.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minigpt.errors import MiniGPTError
from minigpt.files import atomic_path
from minigpt.healing.answers import Answers, joined
from minigpt.healing.data import PaddedBatch, Piece, TokenText, batch_by_length, pad_pieces
from minigpt.healing.planes import Layout, pack, unpack
from minigpt.healing.teacher import readable_part
from minigpt.integrity import aside_note, set_aside
from minigpt.progress import SILENT, Reporter

# Names of the files of a store.
NAMES = "part-*.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Windows whose answers are in one file.

    Attributes:
        path: the file.
        pieces: the windows.
    """

    path: Path
    pieces: tuple[Piece, ...]

    @property
    def batch(self) -> PaddedBatch:
        """The windows as a batch."""
        return pad_pieces(self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A folder of answers to windows.

    Attributes:
        folder: the folder.
        key: fingerprint of teacher, windows and form; parts with another key are replaced.
        layout: form of the answers.
        parts: all parts.
    """

    folder: Path
    key: str
    layout: Layout
    parts: tuple[Part, ...]

    @classmethod
    def planned(cls, folder: Path, key: str, layout: Layout, pieces: Sequence[Piece], tokens: int) -> Store:
        """Divide windows into parts of at most `tokens` tokens, padding included."""
        batches = batch_by_length(pieces, tokens)
        parts = (
            Part(path=folder / f"part-{number:05d}.safetensors", pieces=tuple(batch))
            for number, batch in enumerate(batches)
        )
        return cls(folder=folder, key=key, layout=layout, parts=tuple(parts))

    def missing(self, reporter: Reporter = SILENT) -> list[Part]:
        """Return the parts that are still to be written; damaged ones are moved aside, and those of others deleted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = {part.path for part in self.parts}
        for path in self.folder.glob(NAMES):
            if path not in wanted:
                path.unlink()
        return [part for part in self.parts if not self._is_whole(part, reporter)]

    def write(self, part: Part, answers: Answers) -> None:
        """Write a part: the answers to all places of its batch.

        Raises:
            MiniGPTError: the disk is full.
        """
        lengths = [len(piece) - 1 for piece in part.pieces]
        blocks = [pack(window, self.layout) for window in _divided(answers, lengths)]
        data = b"".join(blocks)
        tensors = {
            "data": torch.frombuffer(bytearray(data), dtype=torch.uint8),
            "sizes": torch.tensor([len(block) for block in blocks]),
            "origins": torch.tensor([piece.origin for piece in part.pieces]),
            "places": torch.tensor(lengths),
        }
        with atomic_path(part.path) as temporary:
            save_file(tensors, temporary, metadata=self._metadata | {"sha256": _digest(tensors)})

    @property
    def _metadata(self) -> dict[str, str]:
        """Words that stand in every part."""
        return {"key": self.key, "count": str(self.layout.kept), "vocab": str(self.layout.vocab)}

    def _is_whole(self, part: Part, reporter: Reporter) -> bool:
        """Return whether a part is there, of this key and as it was written."""
        if not part.path.exists():
            return False
        reason = "it cannot be read"
        try:
            with safe_open(part.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != self.key:
                    return False
                digest = _digest({name: file.get_tensor(name) for name in sorted(file.keys())})
                if metadata == self._metadata | {"sha256": digest}:  # the hash is one of the tensors alone
                    return True
                reason = "it is not what was written"
        except (OSError, SafetensorError):
            pass
        reporter.note(aside_note(part.path, reason, set_aside(part.path)))
        return False


def write_answers(store: Store, answer: Callable[[PaddedBatch], Answers], reporter: Reporter = SILENT) -> None:
    """Let a teacher answer all windows whose answers are not stored yet.

    Args:
        store: the folder.
        answer: returns the answers at the places of a batch.
        reporter: receives the progress.
    """
    missing = store.missing(reporter)
    for part in reporter.track(missing, title="Storing the teacher's answers", total=len(missing)):
        store.write(part, answer(part.batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """Place of the answers to one window: bytes of a file's data."""

    path: Path
    layout: Layout
    origin: int
    begin: int
    end: int
    places: int


class StoredTeacher:
    """A teacher whose answers to the training windows are on disk.

    A window that is shown without its opening token is taught the answers that the teacher gives with it.

    Args:
        folder: folder of a whole :class:`Store`.
        key: its key.
        parent_ids: the teacher's ids of the student's tokens, as in :class:`minigpt.healing.teacher.Teacher`.

    Raises:
        MiniGPTError: there are no answers of this key.
    """

    def __init__(self, folder: Path, key: str, parent_ids: Tensor | None = None) -> None:
        self.folder, self.key, self.parent_ids = folder, key, parent_ids
        self._windows = sorted(_windows_in(folder, key), key=attrgetter("origin"))
        self._origins = [window.origin for window in self._windows]

    @property
    def models(self) -> list[Any]:
        """Models that it has in memory: none."""
        return []

    def readable_part(self, text: TokenText) -> TokenText:
        """Return the windows of a training text that hold only tokens known to the teacher."""
        return readable_part(text, self.parent_ids)

    def answers(self, batch: PaddedBatch) -> Answers:
        """Return the answers at the places of a batch, on the processor.

        Raises:
            ValueError: the batch does not say where in the training text it stands, or was not to be read.
        """
        if batch.origins is None:
            raise ValueError("stored answers are found by places in the text, which this batch does not have")
        rows = zip(batch.origins.tolist(), batch.lengths.tolist(), strict=True)
        return joined([self._answers(origin, length - 1) for origin, length in rows])

    def _answers(self, origin: int, places: int) -> Answers:
        """Return the answers to a window, or to all but its opening token."""
        window = self._windows[max(0, bisect_right(self._origins, origin) - 1)]
        skipped = origin - window.origin
        if not 0 <= skipped <= window.places - places:
            raise ValueError(f"no answers to the window at {origin} are stored")
        with safe_open(window.path, framework="pt") as file:
            block = file.get_slice("data")[window.begin : window.end].numpy().tobytes()
        return unpack(block, window.places, window.layout)[skipped : skipped + places]


def _windows_in(folder: Path, key: str) -> list[_Window]:
    """List the windows of all parts with a key.

    Raises:
        MiniGPTError: a part cannot be read, or there is none.
    """
    windows = []
    for path in sorted(folder.glob(NAMES)):
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != key:
                    continue
                layout = Layout(count=int(metadata["count"]), vocab=int(metadata["vocab"]))
                sizes, origins, places = (file.get_tensor(name) for name in ("sizes", "origins", "places"))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise MiniGPTError(f"{path} cannot be read ({error}). Run the same command again.") from error
        ends = sizes.cumsum(0)
        for origin, begin, end, count in torch.stack([origins, ends - sizes, ends, places], dim=1).tolist():
            windows.append(_Window(path=path, layout=layout, origin=origin, begin=begin, end=end, places=count))
    if not windows:
        raise MiniGPTError(f"{folder} holds no answers of this teacher to this text. Run the same command again.")
    return windows


def _divided(answers: Answers, lengths: Sequence[int]) -> Iterator[Answers]:
    """Divide answers among windows that lie one behind the other."""
    start = 0
    for length in lengths:
        yield answers[start : start + length]
        start += length


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of tensors, in the order of their names."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(name.encode() + tensors[name].numpy().tobytes())
    return hasher.hexdigest()
