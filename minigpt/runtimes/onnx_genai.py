"""Runtime of folders for ONNX Runtime GenAI, through its own generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigpt import assets
from minigpt.errors import AssetError, first_line
from minigpt.runtimes.base import ExportRuntime, Floats, Ints
from minigpt.runtimes.record import ExportRecord, read_record
from minigpt.transformer.arch import window_of

# Tokens that fit in a generator's cache after its prompt. The cache is allocated whole and rebuilt when it is full.
ROOM = 512


class GenaiRuntime(ExportRuntime):
    """A GenAI model and the generator of the current sequence."""

    def __init__(self, library: Any, model: Any, tokenizer: Any, config: Any, *, record: ExportRecord) -> None:
        super().__init__(tokenizer, config, record)
        self._library = library
        self._model = model
        self._generator: Any = None
        self._sequence: list[int] = []
        self._room = 0

    def logits(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """Compute the logits of a batch (:meth:`Runtime.logits`), row by row: GenAI pads by rules of its own."""
        logits = np.zeros((*input_ids.shape, self.config.vocab_size), dtype=np.float32)
        for index, (row, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            real = mask.astype(bool)
            generator = self._open(row[real], room=0)
            logits[index, real] = np.asarray(generator.get_output("logits"), dtype=np.float32)[0]
        return logits

    def begin(self, tokens: Sequence[int]) -> Floats:
        """Start a new sequence (:meth:`Runtime.begin`)."""
        self._sequence, self._room = list(tokens), ROOM
        self._generator = self._open(self._sequence, room=ROOM)
        return self._last()

    def step(self, token: int) -> Floats:
        """Append one token (:meth:`Runtime.step`)."""
        self._sequence.append(token)
        self.check_window(len(self._sequence))
        if self._room == 0:
            return self.begin(self._sequence)
        self._room -= 1
        self._generator.append_tokens(np.array([token], dtype=np.int32))
        return self._last()

    def _open(self, tokens: Sequence[int], *, room: int) -> Any:
        """Make a generator that has read `tokens` and has room for `room` more."""
        self.check_window(len(tokens))
        limit = window_of(self.config) or len(tokens) + room
        parameters = self._library.GeneratorParams(self._model)
        # The cache of a layer with a sliding window must hold the window, however short the text is.
        window = getattr(self.config, "sliding_window", None) or 0
        wanted = max(min(limit, len(tokens) + room), min(limit, window))
        parameters.set_search_options(max_length=max(len(tokens), wanted), do_sample=False)
        generator = self._library.Generator(self._model, parameters)
        generator.append_tokens(np.asarray(tokens, dtype=np.int32))
        return generator

    def _last(self) -> Floats:
        """Return the logits [vocabulary] of the token after the sequence."""
        logits: Floats = np.asarray(self._generator.get_logits(), dtype=np.float32)
        last: Floats = logits.reshape(-1, self.config.vocab_size)[-1]
        return last


def load(folder: Path, _device: str) -> GenaiRuntime:
    """Open an export folder with a `genai_config.json`.

    Raises:
        AssetError: ONNX Runtime GenAI is not installed or cannot read the folder.
    """
    try:
        import onnxruntime_genai
    except ImportError:
        raise AssetError(f"{folder} needs ONNX Runtime GenAI. Run pip install 'minigpt[onnx]'.") from None
    from transformers import AutoConfig

    try:
        model = onnxruntime_genai.Model(str(folder))
    except Exception as error:
        raise AssetError(f"ONNX Runtime GenAI cannot read {folder}: {first_line(error)}") from error
    return GenaiRuntime(
        onnxruntime_genai,
        model,
        assets.load_tokenizer(folder),
        AutoConfig.from_pretrained(folder, local_files_only=True),
        record=read_record(folder),
    )
