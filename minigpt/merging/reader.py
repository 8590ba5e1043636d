"""Reading of dev text with models of one parent: how much a merge costs each domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from minigpt import assets
from minigpt.healing import TokenText, bits_per_byte
from minigpt.healing.tokenized import token_text
from minigpt.machine import measuring_dtype
from minigpt.merging.parts import PartText
from minigpt.tickets.language import put
from minigpt.transformer.ends import configs_in, document_end

# Longest piece of text, in tokens.
WINDOW = 512


class DevReader:
    """Reader of the dev text of several domains.

    Args:
        folder: folder of the parent.
        texts: text of each domain.
        device: torch device.

    Attributes:
        folder: folder of the parent.
        model: the model that reads, in the precision to measure in; its weights are whatever was read last.
        dev: dev text of each domain in tokens.
    """

    def __init__(self, folder: Path, texts: Sequence[PartText], device: str) -> None:
        self.folder, self._tokenizer = folder, assets.load_tokenizer(folder)
        self.model: Any = assets.load_model(folder, dtype=measuring_dtype(device), device=device)
        self._texts = texts
        self.dev = [token_text(self._tokenizer, text.dev, WINDOW) for text in texts]

    def loss(self, weights: Mapping[str, Tensor], place: int) -> float:
        """Return the bits per byte of a model of these weights on the dev text of one domain."""
        put(self.model, weights)
        return bits_per_byte(self.model, self.dev[place])

    def ratios(self, weights: Mapping[str, Tensor], own: Sequence[float]) -> tuple[float, ...]:
        """Return the bits per byte of a model on each domain's dev text, relative to the domain's own ticket.

        Args:
            weights: tensors of the model.
            own: bits per byte of each ticket on its own dev text.
        """
        put(self.model, weights)
        return tuple(bits_per_byte(self.model, text) / loss for text, loss in zip(self.dev, own, strict=True))

    def training_texts(self) -> list[TokenText]:
        """Tokenize the training text of each domain."""
        end = document_end(self._tokenizer, *configs_in(self.folder))
        return [token_text(self._tokenizer, text.train, WINDOW, end=end) for text in self._texts]
