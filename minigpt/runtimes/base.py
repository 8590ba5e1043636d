"""What a runtime can do, and which one reads which format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from minigpt.errors import UnknownName
from minigpt.lazy import resolve
from minigpt.runtimes.record import RECORD, ExportRecord, read_record

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


def is_export(folder: Path) -> bool:
    """Whether `folder` is one that `minigpt export` wrote for a runtime to read."""
    return (folder / RECORD).is_file()


def load(folder: Path, *, device: str = "cpu") -> Runtime:
    """Open an exported folder, or a plain model folder, in its runtime.

    Args:
        folder: what `minigpt export` wrote, a model folder or a build folder.
        device: a torch device; runtimes that know only processors ignore it.

    Raises:
        MiniGPTError: the folder or the runtime's package is missing or damaged.
        UnknownName: a format that no runtime of this version reads.
    """
    kind = read_record(folder).format if is_export(folder) else None
    if kind is not None and kind not in LOADERS:
        raise UnknownName("format with a runtime", kind, LOADERS)
    opened: Runtime = resolve(LOADERS[kind] if kind else "minigpt.runtimes.pytorch:load")(folder, device)
    return opened
