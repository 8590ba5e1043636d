"""Worker process that runs llama.cpp: it reads requests on stdin and writes logits to stdout.

:mod:`minigpt.runtimes.gguf` runs this file as a script, with an interpreter that may have only llama-cpp-python and
numpy; therefore it imports nothing of minigpt. A crash of the native code ends this process, but not its caller.

It is started as `python llama_worker.py FILE CONTEXT THREADS CACHE` (type of the cache: f16, the usual one, or f32),
writes `{"vocabulary": n}`, and then answers each line of JSON:

* `{"tokens": [...], "reset": true, "all": true}` appends the tokens to the sequence (to an empty one with "reset"). The
  answer is float32 logits [vocabulary] of the token after the last one; with "all", of the token after each one.
* `{"text": "..."}` is answered by a line of JSON with the token ids of the text.
* `{"memory": true}` is answered by a line of JSON with the peak of resident memory in bytes.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 512
CACHE_TYPES = {"f32": 0, "f16": 1}
NO_FLASH = 0


class Llama:
    """A model and one context, through the C interface of llama.cpp."""

    def __init__(self, file: str, context: int, threads: int, cache: str) -> None:
        import llama_cpp

        self.library: Any = llama_cpp
        self.silent = llama_cpp.llama_log_callback(lambda *_arguments: None)
        llama_cpp.llama_log_set(self.silent, ctypes.c_void_p(0))
        self.model = llama_cpp.llama_model_load_from_file(file.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot read {file}")
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self.vocabulary))
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = context
        settings.n_batch = settings.n_ubatch = min(BATCH, context)
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k = settings.type_v = CACHE_TYPES[cache]
        if cache == "f32":
            settings.flash_attn_type = NO_FLASH
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"llama.cpp has no room for {context} tokens of {file}")
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self.length = 0

    def read(self, tokens: Sequence[int], *, reset: bool, every: bool) -> Any:
        """Append tokens to the sequence, and return logits [1 or tokens, vocabulary].

        Args:
            tokens: Token ids to read.
            reset: Start a new sequence.
            every: Return the logits after each token instead of those after the last.
        """
        if reset:
            self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
            self.length = 0
        rows = []
        for start in range(0, len(tokens), BATCH):
            part = tokens[start : start + BATCH]
            has_logits = [every or start + index + 1 == len(tokens) for index in range(len(part))]
            self._fill(part, has_logits)
            if status := self.library.llama_decode(self.context, self.batch):
                raise SystemExit(f"llama.cpp cannot read {len(tokens)} tokens (status {status})")
            rows += [self._logits(index) for index, keep in enumerate(has_logits) if keep]
            self.length += len(part)
        return np.stack(rows)

    def _fill(self, tokens: Sequence[int], has_logits: Sequence[bool]) -> None:
        """Put tokens into the batch, and mark those whose logits are needed."""
        self.batch.n_tokens = len(tokens)
        for index, (token, keep) in enumerate(zip(tokens, has_logits, strict=True)):
            self.batch.token[index] = token
            self.batch.pos[index] = self.length + index
            self.batch.n_seq_id[index] = 1
            self.batch.seq_id[index][0] = 0
            self.batch.logits[index] = keep

    def _logits(self, index: int) -> Any:
        """Copy the logits of one token of the batch."""
        row = self.library.llama_get_logits_ith(self.context, index)
        return np.ctypeslib.as_array(row, shape=(self.size,)).astype(np.float32)

    def tokenize(self, text: str) -> list[int]:
        """Tokenize a text; control tokens are recognized, nothing is added."""
        data = text.encode()
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        count = self.library.llama_tokenize(self.vocabulary, data, len(data), ids, room, False, True)
        return list(ids[:count])


def peak_memory() -> int:
    """Return the largest resident memory that this process ever had, in bytes.

    On Linux `ru_maxrss` includes the memory of the process it was forked from, so that a small model in a worker of a
    large process would seem large. `VmHWM`, which is read instead, starts anew.
    """
    import resource

    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(file: str, context: str, threads: str, cache: str) -> None:
    """Answer requests until stdin ends; the output of native code goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    llama = Llama(file, int(context), int(threads), cache)
    out.write(json.dumps({"vocabulary": llama.size}).encode() + b"\n")
    out.flush()
    for line in sys.stdin:
        request = json.loads(line)
        if "memory" in request:
            out.write(json.dumps(peak_memory()).encode() + b"\n")
        elif "text" in request:
            out.write(json.dumps(llama.tokenize(request["text"])).encode() + b"\n")
        else:
            out.write(llama.read(request["tokens"], reset=request["reset"], every=request["all"]).tobytes())
        out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
