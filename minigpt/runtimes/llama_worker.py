"""llama.cpp in a process of its own: numbers in on stdin, logits out on stdout.

Run as a script by :mod:`minigpt.runtimes.gguf`, by an interpreter that may have nothing but llama-cpp-python and
numpy; so it imports nothing of minigpt. A crash of the native code ends this process and not its caller's.

Started as `python llama_worker.py FILE CONTEXT THREADS CACHE` (type of the cache: f16, as everywhere, or f32), it says
`{"vocabulary": n}` and then answers one line of JSON after the other:

* `{"tokens": [...], "reset": true, "all": true}` reads the tokens behind those already held (behind none after a
  reset) and answers with float32 logits, [vocabulary] of what follows the last token, with "all" of what follows each;
* `{"text": "..."}` answers with a line of JSON, the text's token ids;
* `{"memory": true}` answers with a line of JSON, the peak of resident memory in bytes.
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
    """A model and one context through the C interface."""

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
        self.held = 0

    def read(self, tokens: Sequence[int], *, reset: bool, every: bool) -> Any:
        """Logits [1 or tokens, vocabulary] after reading `tokens`."""
        if reset:
            self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
            self.held = 0
        found = []
        for start in range(0, len(tokens), BATCH):
            part = tokens[start : start + BATCH]
            wanted = [every or start + index + 1 == len(tokens) for index in range(len(part))]
            self._fill(part, wanted)
            if status := self.library.llama_decode(self.context, self.batch):
                raise SystemExit(f"llama.cpp cannot read {len(tokens)} tokens (status {status})")
            found += [self._logits(index) for index, keep in enumerate(wanted) if keep]
            self.held += len(part)
        return np.stack(found)

    def _fill(self, tokens: Sequence[int], wanted: Sequence[bool]) -> None:
        self.batch.n_tokens = len(tokens)
        for index, (token, keep) in enumerate(zip(tokens, wanted, strict=True)):
            self.batch.token[index] = token
            self.batch.pos[index] = self.held + index
            self.batch.n_seq_id[index] = 1
            self.batch.seq_id[index][0] = 0
            self.batch.logits[index] = keep

    def _logits(self, index: int) -> Any:
        row = self.library.llama_get_logits_ith(self.context, index)
        return np.ctypeslib.as_array(row, shape=(self.size,)).astype(np.float32)

    def tokenize(self, text: str) -> list[int]:
        """Token ids, control tokens recognized, nothing added."""
        data = text.encode()
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        count = self.library.llama_tokenize(self.vocabulary, data, len(data), ids, room, False, True)
        return list(ids[:count])


def peak_memory() -> int:
    """The most memory this process ever held, in bytes: its high water mark.

    Linux counts in a process's largest resident set what the process that it was forked from held, so that a small
    model in a worker of a large one would seem large; the mark of its own memory starts anew.
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
    """Answer until stdin ends; what native code prints goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    llama = Llama(file, int(context), int(threads), cache)
    out.write(json.dumps({"vocabulary": llama.size}).encode() + b"\n")
    out.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        if "memory" in asked:
            out.write(json.dumps(peak_memory()).encode() + b"\n")
        elif "text" in asked:
            out.write(json.dumps(llama.tokenize(asked["text"])).encode() + b"\n")
        else:
            out.write(llama.read(asked["tokens"], reset=asked["reset"], every=asked["all"]).tobytes())
        out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
