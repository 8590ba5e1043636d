"""What a runtime can do, and which one reads which format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from minigpt.errors import AssetError
from minigpt.lazy import resolve
from minigpt.runtimes.record import RECORD, ExportRecord, changed_file, read_record

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LOADERS = {
    "onnx": "minigpt.runtimes.onnx:load",
    "onnx-genai": "minigpt.runtimes.onnx_genai:load",
    "gguf": "minigpt.runtimes.gguf:load",
    "torch-4bit": "minigpt.runtimes.pytorch:load_quantized",
}
"""Export format → `module:function` that opens a folder of it: called as `function(folder, device)`."""


@runtime_checkable
class Runtime(Protocol):
    """A causal language model loaded in some runtime.

    `name` says which, for tables; `tokenizer` and `config` are the transformers ones saved beside the weights;
    `parameters` counts the source's parameters, tied ones once, `bytes` its files of weights. A runtime holds one
    sequence at a time between `begin` and `step`; `logits` neither reads nor changes it.
    """

    name: str
    tokenizer: Any
    config: Any
    parameters: int
    bytes: int

    def logits(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """Logits of a whole batch at once.

        Args:
            input_ids: [batch, length].
            attention_mask: [batch, length], 0 where padded, on the left or on the right.

        Returns:
            [batch, length, vocabulary]; what stands at padded positions is undefined.
        """

    def begin(self, tokens: Sequence[int]) -> Floats:
        """Forget the sequence held, read `tokens` in one go and give the logits [vocabulary] of what follows them."""

    def step(self, token: int) -> Floats:
        """Append one token to the sequence held, reading only that token; logits [vocabulary] of what follows it."""


class Exported:
    """What every runtime of an exported folder says of itself, read from the folder's record."""

    def __init__(self, tokenizer: Any, config: Any, record: ExportRecord) -> None:
        self.name = f"{record.format} {record.precision}"
        self.tokenizer = tokenizer
        self.config = config
        self.parameters = record.source.parameters
        self.bytes = record.bytes

    def check_window(self, tokens: int) -> None:
        """Refuse a sequence beyond the model's window before native code stops at it.

        Raises:
            AssetError: the sequence is too long.
        """
        limit = getattr(self.config, "max_position_embeddings", None) or tokens
        if tokens > limit:
            raise AssetError(
                f"The {self.name} model reads at most {limit} tokens and was given {tokens}; shorten the prompt or "
                "generate fewer tokens."
            )


def is_export(folder: Path) -> bool:
    """Whether `folder` is one that `minigpt export` wrote for a runtime to read."""
    return (folder / RECORD).is_file()


def load(folder: Path, *, device: str = "cpu") -> Runtime:
    """Open an exported folder, or a plain model folder, in its runtime.

    Args:
        folder: what `minigpt export` wrote, a model folder or a build folder.
        device: a torch device; runtimes that know only processors ignore it.

    Raises:
        MiniGPTError: the folder or the runtime's package is missing or damaged, or the format is none that this
            version can run.
    """
    if not is_export(folder):
        model: Runtime = resolve("minigpt.runtimes.pytorch:load")(folder, device)
        return model
    record = read_record(folder)
    if record.format not in LOADERS:
        raise AssetError(
            f"{folder} is an export in {record.format}, not a model to run; what runs: {', '.join(LOADERS)}."
        )
    try:
        exported: Runtime = resolve(LOADERS[record.format])(folder, device)
    except Exception as error:
        if (name := changed_file(folder, record)) is None:
            raise
        raise AssetError(
            f"{folder / name} is not the file that was exported: it is missing, cut off or changed; export again."
        ) from error
    return exported
