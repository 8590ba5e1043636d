"""Runtime of ONNX graphs with `past_key_values.N.key/value` inputs, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigpt import assets, environment
from minigpt.errors import AssetError, first_line
from minigpt.runtimes.base import ExportRuntime, Floats, Ints
from minigpt.runtimes.record import ExportRecord, read_record

# Log level of ONNX Runtime that shows errors only.
ERRORS_ONLY = 3


class OnnxRuntime(ExportRuntime):
    """A session of ONNX Runtime and the cache of the current sequence."""

    def __init__(self, session: Any, tokenizer: Any, config: Any, *, record: ExportRecord) -> None:
        super().__init__(tokenizer, config, record)
        self._session = session
        self._inputs = {node.name: node for node in session.get_inputs()}
        self._outputs = [node.name for node in session.get_outputs()]
        self._past: dict[str, NDArray[Any]] = {}

    def logits(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """Compute the logits of a batch (:meth:`Runtime.logits`)."""
        self.check_window(int(attention_mask.sum(-1).max()))
        return self._run(input_ids, attention_mask, self._empty(len(input_ids)), outputs=["logits"])["logits"].astype(
            np.float32
        )

    def begin(self, tokens: Sequence[int]) -> Floats:
        """Start a new sequence (:meth:`Runtime.begin`)."""
        self._past = self._empty(1)
        return self._feed(tokens)

    def step(self, token: int) -> Floats:
        """Append one token (:meth:`Runtime.step`)."""
        return self._feed([token])

    def _feed(self, tokens: Sequence[int]) -> Floats:
        """Append tokens to the sequence, and return the logits [vocabulary] of the token after them."""
        ids = np.array([tokens], dtype=np.int64)
        cached = next(iter(self._past.values())).shape[2]
        self.check_window(cached + len(tokens))
        mask = np.ones((1, cached + len(tokens)), dtype=np.int64)
        outputs = self._run(ids, mask, self._past, outputs=self._outputs)
        self._past = {name: outputs[name.replace("past_key_values", "present")] for name in self._past}
        last: Floats = outputs["logits"][0, -1].astype(np.float32)
        return last

    def _run(
        self, ids: Ints, mask: Ints, past: dict[str, NDArray[Any]], *, outputs: list[str]
    ) -> dict[str, NDArray[Any]]:
        """Run the graph, and return the outputs by name."""
        feeds = {"input_ids": ids, "attention_mask": mask, **past}
        if "position_ids" in self._inputs:
            feeds["position_ids"] = np.maximum(mask.cumsum(-1) - 1, 0)[:, -ids.shape[1] :]
        return dict(zip(outputs, self._session.run(outputs, feeds), strict=True))

    def _empty(self, batch: int) -> dict[str, NDArray[Any]]:
        """Make an empty cache."""
        dtypes = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        return {
            name: np.zeros((batch, node.shape[1], 0, node.shape[3]), dtype=dtypes[node.type])
            for name, node in self._inputs.items()
            if name.startswith("past_key_values.")
        }


def load(folder: Path, device: str) -> OnnxRuntime:
    """Open `model.onnx` of an export folder.

    Args:
        folder: The export folder.
        device: A torch device; CUDA is used if it is named here and built into ONNX Runtime, else the processor.

    Raises:
        AssetError: ONNX Runtime is not installed or cannot read the graph.
    """
    try:
        import onnxruntime
    except ImportError:
        raise AssetError(f"{folder} needs ONNX Runtime. Run pip install 'minigpt[onnx]'.") from None
    from transformers import AutoConfig

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = environment.threads()
    accelerators = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    providers = [name for name in accelerators if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=[*providers, "CPUExecutionProvider"]
        )
    except Exception as error:
        raise AssetError(f"ONNX Runtime cannot read {folder / 'model.onnx'}: {first_line(error)}") from error
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return OnnxRuntime(session, assets.load_tokenizer(folder), config, record=read_record(folder))
