"""Runtime of GGUF files: llama.cpp where it is installed, else PyTorch with the weights read back."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, cast

import numpy as np

from minigpt import assets, environment
from minigpt.assets.gguf import READ_BACK, read_gguf
from minigpt.errors import AssetError
from minigpt.runtimes import llama_worker
from minigpt.runtimes.base import ExportRuntime, Floats, Ints, Runtime
from minigpt.runtimes.pytorch import TorchRuntime
from minigpt.runtimes.record import ExportRecord, read_record
from minigpt.transformer.arch import window_of

FILE = "model.gguf"
# Tokens that fit in the cache at first; longer sequences enlarge it, up to the model's limit.
ROOM = 2048
PACKAGE = "llama_cpp"
OTHER_PYTHON = "Install llama-cpp-python there, or name another interpreter with MINIGPT_LLAMA_PYTHON."


class LlamaRuntime(ExportRuntime):
    """llama.cpp in a process of its own, so that a crash of native code becomes an error message."""

    def __init__(self, file: Path, python: str, tokenizer: Any, config: Any, *, record: ExportRecord) -> None:
        """Start the worker.

        Args:
            file: The GGUF file.
            python: Path of a Python interpreter that has llama-cpp-python.
            tokenizer: The transformers tokenizer of the model.
            config: The transformers config of the model.
            record: Record of the export; an fp32 export gets a cache in 32 bits, where llama.cpp's default is 16.
        """
        super().__init__(tokenizer, config, record)
        self._file = file
        self._python = python
        self._cache = "f32" if record.precision == "fp32" else "f16"
        self._limit = window_of(config) or sys.maxsize
        self._room = min(ROOM, self._limit)
        self._sequence: list[int] = []
        self._stop: Callable[[], Any] = lambda: None
        self._start()

    def logits(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """Compute the logits of a batch (:meth:`Runtime.logits`), row by row and without the padding."""
        logits = np.zeros((*input_ids.shape, self.config.vocab_size), dtype=np.float32)
        sequence = self._sequence
        for index, (row, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            real = mask.astype(bool)
            logits[index, real] = self._read(row[real].tolist(), reset=True, every=True)
        self._sequence = []
        if sequence:
            self.begin(sequence)
        return logits

    def begin(self, tokens: Sequence[int]) -> Floats:
        """Start a new sequence (:meth:`Runtime.begin`)."""
        self._sequence = list(tokens)
        last: Floats = self._read(self._sequence, reset=True, every=False)[0]
        return last

    def step(self, token: int) -> Floats:
        """Append one token (:meth:`Runtime.step`)."""
        if len(self._sequence) >= self._room:
            return self.begin([*self._sequence, token])
        self._sequence.append(token)
        last: Floats = self._read([token], reset=False, every=False)[0]
        return last

    def tokenize(self, text: str) -> list[int]:
        """Tokenize with llama.cpp's own tokenizer; control tokens are recognized, nothing is added."""
        self._send({"text": text})
        return [int(token) for token in json.loads(self._line())]

    def peak_memory(self) -> int:
        """Return the peak of resident memory of the process that holds the model, in bytes."""
        self._send({"memory": True})
        return int(json.loads(self._line()))

    def _read(self, tokens: list[int], *, reset: bool, every: bool) -> Floats:
        """Read tokens in the worker, and return the logits after each of them or after the last."""
        if reset:
            self.check_window(len(tokens))
        if reset and len(tokens) > self._room:
            self._room = min(self._limit, max(2 * self._room, len(tokens)))
            self._start()
        self._send({"tokens": tokens, "reset": reset, "all": every})
        rows, size = len(tokens) if every else 1, self.config.vocab_size
        data = self._out.read(rows * size * np.dtype(np.float32).itemsize)
        if len(data) < rows * size * np.dtype(np.float32).itemsize:
            self._fail()
        return np.frombuffer(data, dtype=np.float32).reshape(rows, size).copy()

    def _start(self) -> None:
        """Start a worker with the current room, and stop the one before it."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        arguments = [
            llama_worker.__file__,
            str(self._file),
            str(self._room),
            str(environment.threads() or os.cpu_count() or 1),
            self._cache,
        ]
        try:
            process = subprocess.Popen(
                [self._python, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            raise AssetError(f"{self._python} cannot be started ({error.strerror}). {OTHER_PYTHON}") from error
        self._stop()
        self._process, self._stop = process, weakref.finalize(self, _stop, process)
        self._in, self._out = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        size = json.loads(self._line())["vocabulary"]
        if size != self.config.vocab_size:
            raise AssetError(
                f"{self._file} has {size} tokens, but its config says {self.config.vocab_size}. Export it again."
            )

    def _send(self, message: Mapping[str, Any]) -> None:
        """Send one message to the worker."""
        try:
            self._in.write(json.dumps(message).encode() + b"\n")
            self._in.flush()
        except BrokenPipeError:
            self._fail()

    def _line(self) -> bytes:
        """Receive one line from the worker."""
        line = self._out.readline()
        if not line:
            self._fail()
        return line

    def _fail(self) -> NoReturn:
        """Report why the worker ended.

        Raises:
            AssetError: Always.
        """
        status = self._process.wait()
        self._errors.seek(0)
        messages = self._errors.read().decode(errors="replace").strip().splitlines()
        if messages and messages[-1].startswith("ModuleNotFoundError"):
            raise AssetError(f"{self._python} cannot run llama.cpp ({messages[-1]}). {OTHER_PYTHON}")
        reason = f" ({messages[-1]})" if messages else ""
        raise AssetError(
            f"llama.cpp stopped with status {status} on {self._file}{reason}. If it was built with native code for "
            "this processor, build it as docs/guide/deploying.md says."
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the worker end by itself, which it does at the end of its input."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()


def interpreter() -> str | None:
    """Find a Python that has llama-cpp-python: `MINIGPT_LLAMA_PYTHON`, else this one if it has it, else None."""
    return environment.llama_python() or (sys.executable if importlib.util.find_spec(PACKAGE) else None)


def load(folder: Path, device: str) -> Runtime:
    """Open an export folder in llama.cpp, or in PyTorch (weights dequantized) where llama.cpp is not installed.

    Args:
        folder: The export folder.
        device: A torch device, used by PyTorch only.

    Raises:
        AssetError: The file is damaged, or transformers cannot read this architecture back.
    """
    from transformers import AutoConfig

    record = read_record(folder)
    tokenizer = assets.load_tokenizer(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    python = interpreter()
    if python is not None:
        return LlamaRuntime(folder / FILE, python, tokenizer, config, record=record)
    check_readable(config)
    model: Any = read_gguf(folder / FILE)
    return TorchRuntime(model.to(device), tokenizer, folder=folder)


def check_readable(config: Any) -> None:
    """Refuse a model whose GGUF file nothing here could read: llama.cpp is missing, and transformers does not know it.

    Args:
        config: Its Hugging Face config.

    Raises:
        AssetError: It is one.
    """
    if interpreter() is None and config.model_type not in READ_BACK:
        raise AssetError(
            f"GGUF files of {config.model_type} models need llama.cpp: transformers reads back {', '.join(READ_BACK)}. "
            "Run pip install 'minigpt[gguf-runtime]', or name an interpreter that has it with MINIGPT_LLAMA_PYTHON."
        )
