"""Dev text on its way through the layers of a streamed parent, and the bits per byte at the end of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minigpt.errors import CorpusError
from minigpt.healing.data import PaddedBatch, TokenText
from minigpt.healing.forward import autocast, dev_batches
from minigpt.healing.recipe import Precision
from minigpt.pruning.streams import call_layer, layers_replaced, recorded_arguments
from minigpt.pruning.waiting import PROCESSOR, Home, Waiting
from minigpt.transformer.arch import decoder_layers
from minigpt.transformer.logits import logits_at

# Most tokens of one forward pass on a GPU, as in `minigpt.healing.forward.bits_per_byte`.
PASS_TOKENS = 16384


class Reading:
    """One text, read by a model whose layers come one at a time.

    Args:
        model: has the embedding and the head; its layers need no weights.
        text: text that is tokenized for the model.
        device: device to compute on.
        batches: the text, divided by the caller (None: as a measurement divides it).
        precision: see :func:`minigpt.healing.forward.autocast`.
        home: where the text waits while no layer reads it.

    Raises:
        CorpusError: the text holds no token to predict.
    """

    def __init__(
        self,
        model: Any,
        text: TokenText,
        device: torch.device,
        *,
        batches: Sequence[PaddedBatch] | None = None,
        precision: Precision = "auto",
        home: Home = PROCESSOR,
    ) -> None:
        if not text.tokens or not text.bytes:
            raise CorpusError("There is no dev text to decide by; give the domain more documents.")
        self.model, self.text, self.device, self.precision, self.home = model, text, device, precision, home
        self.layers: list[nn.Module] = list(decoder_layers(model))
        self.batches = list(dev_batches(text, PASS_TOKENS, device) if batches is None else batches)
        self.states: list[Waiting] = []
        self.arguments: list[list[dict[str, Any]]] = []
        with torch.no_grad():
            for batch in self.batches:
                states, arguments = recorded_arguments(self.layers, lambda batch=batch: self._logits(batch))  # type: ignore[misc]
                self.states.append(home.keep(states))
                self.arguments.append(arguments)

    @torch.no_grad()
    def move(self, index: int, layer: nn.Module) -> None:
        """Move the text through a layer, whose place in the parent is `index`."""
        for place, states in enumerate(self.states):
            with autocast(self.device, self.precision):
                result = call_layer(layer, states.to(self.device), self.arguments[place][index])
            self.states[place] = self.home.keep(result)

    @torch.no_grad()
    def bits_per_byte(self) -> float:
        """Return the bits per byte of the text, of what the layers have given so far."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for place, batch in enumerate(self.batches):
            logits = self.logits(place)
            labels = batch.labels.to(self.device)
            total += functional.cross_entropy(logits.float(), labels, reduction="sum").double()
        return float(total) / math.log(2) / self.text.bytes

    @torch.no_grad()
    def logits(self, place: int) -> Tensor:
        """Return the logits at the places of a batch, of what the layers have given so far."""
        with layers_replaced(self.layers, self.states[place].to(self.device)):
            return self._logits(self.batches[place])

    def _logits(self, batch: PaddedBatch) -> Tensor:
        """Run the model on a batch as a measurement does."""
        with autocast(self.device, self.precision):
            return logits_at(self.model, batch.places.to(self.device), input_ids=batch.ids.to(self.device))
