"""The runtime protocol, and the table of runtimes by export format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from minigpt.errors import AssetError
from minigpt.lazy import resolve
from minigpt.runtimes.record import RECORD, ExportRecord, changed_file, read_record
from minigpt.transformer.arch import window_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LOADERS = {
    "onnx": "minigpt.runtimes.onnx:load",
    "onnx-genai": "minigpt.runtimes.onnx_genai:load",
    "gguf": "minigpt.runtimes.gguf:load",
    "torch-4bit": "minigpt.runtimes.pytorch:load_quantized",
}
"""Export format → `module:function` that opens such a folder; it is called as `function(folder, device)`."""


@runtime_checkable
class Runtime(Protocol):
    """A causal language model loaded in some runtime.

    A runtime holds one sequence at a time for `begin` and `step`; `logits` neither reads nor changes that sequence.

    Attributes:
        name: Name of the runtime for tables.
        tokenizer: The transformers tokenizer saved beside the weights.
        config: The transformers config saved beside the weights.
        parameters: Parameters of the source, tied ones counted once.
        bytes: Size of the files of weights.
    """

    name: str
    tokenizer: Any
    config: Any
    parameters: int
    bytes: int

    def logits(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """Compute the logits of a whole batch at once.

        Args:
            input_ids: Token ids, [batch, length].
            attention_mask: 0 where padded, on the left or on the right, else 1, [batch, length].

        Returns:
            Logits, [batch, length, vocabulary]; undefined at padded positions.
        """

    def begin(self, tokens: Sequence[int]) -> Floats:
        """Start a new sequence with `tokens`, and return the logits [vocabulary] of the token after them."""

    def step(self, token: int) -> Floats:
        """Append one token to the sequence, and return the logits [vocabulary] of the token after it."""


class ExportRuntime:
    """Base of the runtimes of export folders: fills the attributes of :class:`Runtime` from the folder's record."""

    def __init__(self, tokenizer: Any, config: Any, record: ExportRecord) -> None:
        self.name = f"{record.format} {record.precision}"
        self.tokenizer = tokenizer
        self.config = config
        self.parameters = record.source.parameters
        self.bytes = record.bytes

    def check_window(self, tokens: int) -> None:
        """Refuse a sequence that is longer than the model's window, before native code crashes on it.

        Raises:
            AssetError: The sequence is too long.
        """
        limit = window_of(self.config)
        if limit is not None and tokens > limit:
            raise AssetError(
                f"The {self.name} model reads at most {limit} tokens and was given {tokens}. Shorten the prompt or "
                "generate fewer tokens."
            )


def is_export(folder: Path) -> bool:
    """Check whether `minigpt export` wrote this folder."""
    return (folder / RECORD).is_file()


def load(folder: Path, *, device: str = "cpu") -> Runtime:
    """Open an export folder, or a plain model folder, in its runtime.

    Args:
        folder: An export folder, a model folder or a build folder.
        device: A torch device; runtimes that know only processors ignore it.

    Raises:
        MiniGPTError: The folder or the package of the runtime is missing or damaged, or this version cannot run the
            format.
    """
    if not is_export(folder):
        model: Runtime = resolve("minigpt.runtimes.pytorch:load")(folder, device)
        return model
    record = read_record(folder)
    if record.format not in LOADERS:
        raise AssetError(
            f"{folder} is an export in {record.format}, not a model to run. Formats that run: {', '.join(LOADERS)}."
        )
    if (name := changed_file(folder, record, prose=False)) is not None:
        raise AssetError(
            f"{folder / name} is not the file that was exported: it is missing, cut off or changed. Export again."
        )
    exported: Any = resolve(LOADERS[record.format])(folder, device)
    exported.generation_config = rules = generation_config_in(folder)
    if rules is not None and hasattr(exported, "model"):
        exported.model.generation_config = rules  # formats that PyTorch reads back hold no such rules themselves
    runtime: Runtime = exported
    return runtime


def generation_config_in(folder: Path) -> Any:
    """Read the rules of generation of a folder, such as its end tokens; None if it has none."""
    from transformers import GenerationConfig

    return GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").exists() else None
