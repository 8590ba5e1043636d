"""ONNX Runtime: graphs with `past_key_values.N.key/value` inputs, ours or anybody's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigpt import assets, environment
from minigpt.errors import AssetError, first_line
from minigpt.runtimes.base import Exported, Floats, Ints
from minigpt.runtimes.record import ExportRecord, read_record

ERRORS_ONLY = 3


class OnnxRuntime(Exported):
    """One session and the cache of the sequence it holds."""

    def __init__(self, session: Any, tokenizer: Any, config: Any, *, record: ExportRecord) -> None:
        super().__init__(tokenizer, config, record)
        self._session = session
        self._inputs = {each.name: each for each in session.get_inputs()}
        self._outputs = [each.name for each in session.get_outputs()]
        self._past: dict[str, NDArray[Any]] = {}

    def logits(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """See :meth:`minigpt.runtimes.Runtime.logits`."""
        return self._run(input_ids, attention_mask, self._empty(len(input_ids)), outputs=["logits"])["logits"].astype(
            np.float32
        )

    def begin(self, tokens: Sequence[int]) -> Floats:
        """See :meth:`minigpt.runtimes.Runtime.begin`."""
        self._past = self._empty(1)
        return self._feed(tokens)

    def step(self, token: int) -> Floats:
        """See :meth:`minigpt.runtimes.Runtime.step`."""
        return self._feed([token])

    def _feed(self, tokens: Sequence[int]) -> Floats:
        ids = np.array([tokens], dtype=np.int64)
        known = next(iter(self._past.values())).shape[2]
        mask = np.ones((1, known + len(tokens)), dtype=np.int64)
        found = self._run(ids, mask, self._past, outputs=self._outputs)
        self._past = {name: found[name.replace("past_key_values", "present")] for name in self._past}
        last: Floats = found["logits"][0, -1].astype(np.float32)
        return last

    def _run(
        self, ids: Ints, mask: Ints, past: dict[str, NDArray[Any]], *, outputs: list[str]
    ) -> dict[str, NDArray[Any]]:
        feeds = {"input_ids": ids, "attention_mask": mask, **past}
        if "position_ids" in self._inputs:
            feeds["position_ids"] = np.maximum(mask.cumsum(-1) - 1, 0)[:, -ids.shape[1] :]
        return dict(zip(outputs, self._session.run(outputs, feeds), strict=True))

    def _empty(self, batch: int) -> dict[str, NDArray[Any]]:
        """A cache of no tokens."""
        kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        return {
            name: np.zeros((batch, each.shape[1], 0, each.shape[3]), dtype=kinds[each.type])
            for name, each in self._inputs.items()
            if name.startswith("past_key_values.")
        }


def load(folder: Path, device: str) -> OnnxRuntime:
    """Open `model.onnx` of an exported folder, on CUDA if asked for and built in, else on the processor.

    Raises:
        AssetError: ONNX Runtime is not installed or cannot read the graph.
    """
    try:
        import onnxruntime
    except ImportError:
        raise AssetError(f"{folder} needs ONNX Runtime: pip install 'minigpt[onnx]'.") from None
    from transformers import AutoConfig

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = environment.threads()
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=[*providers, "CPUExecutionProvider"]
        )
    except Exception as error:
        raise AssetError(f"ONNX Runtime cannot read {folder / 'model.onnx'}: {first_line(error)}") from error
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return OnnxRuntime(session, assets.load_tokenizer(folder), config, record=read_record(folder))
