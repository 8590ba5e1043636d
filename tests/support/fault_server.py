"""Process of its own that builds the ground of all faults and strikes on demand, one line of JSON for each fault.

It forks for every build. A process of the test suite must not: the threads of its tokenizers and of torch do not
survive a fork, and a child that waits for one of them waits for ever.

It imports once what its builds would import each time, and keeps the collector away from all that: a build takes half
the time then.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minigpt.pipeline import BuildOptions
from tests.support.faults import Fault, Ground, forked, make_ground, outcome
from tests.support.strikes import every_border, try_fault

SETTINGS = {"heal.steps": "2", "heal.evaluate_every": "1", "repair.tokens": "0", "evaluation.sample_tokens": "0"}
# Begins every line that is meant for the client; libraries may print others.
MARK = "fault-server "
# One thread each, from the first import on.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NUMBA_NUM_THREADS": "1",
}
# Seconds that one answer may take.
PATIENCE = 300.0


class Striker:
    """Client of the process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        ground = self._answer()
        self.operations = int(ground["operations"])
        self.borders = [Fault(**row) for row in ground["borders"]]

    def strike(self, fault: Fault) -> dict[str, Any]:
        """Let the fault happen, and return how it ended."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(fault)) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """Read the next answer; a process that gives none in time is killed."""
        assert self.process.stdout is not None
        timer = threading.Timer(PATIENCE, os.killpg, (self.process.pid, signal.SIGKILL))
        timer.start()
        try:
            for line in self.process.stdout:
                if line.startswith(MARK):
                    return dict(json.loads(line.removeprefix(MARK)))
        finally:
            timer.cancel()
        raise AssertionError(f"the fault server ended with {self.process.wait()} and without an answer")


@contextmanager
def fault_server(root: Path) -> Iterator[Striker]:
    """Run the process inside the block; `root` is an empty folder for everything that it writes."""
    command = [sys.executable, "-m", "tests.support.fault_server", str(root)]
    environment = {**os.environ, **ONE_THREAD, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    ) as process:
        try:
            yield Striker(process)
        finally:
            process.kill()


def tiny_ground(root: Path) -> Ground:
    """Make a tiny build from a GGUF parent, so that a conversion is kept, too."""
    from minigpt.assets import load_model, load_tokenizer
    from tests.assets.test_gguf import write_gguf
    from tests.support.worlds import make_world

    world = make_world(root / "world")
    tokenizer = load_tokenizer(world.base)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    values = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token.startswith("<|") else 1 for token in tokens],
        "tokenizer.ggml.merges": [part if isinstance(part, str) else " ".join(part) for part in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
    }
    path = write_gguf(root / "parent.gguf", load_model(world.base), values)
    options = world.options("unused", base=str(path), overrides=SETTINGS)
    preload(options, root)
    return make_ground(options, root / "run")


def preload(options: BuildOptions, root: Path) -> None:
    """Import what a build imports, so that forked ones find it there, without running anything here."""

    def modules() -> str:
        os.environ["MINIGPT_HOME"] = str(root / "home")
        outcome(replace(options, output_dir=root / "first"))
        return json.dumps([name for name in sys.modules if not name.startswith("__")])

    code, said = forked(modules)
    assert code == 0, said
    for name in json.loads(said):
        with suppress(ImportError):  # names that libraries make up
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Make the ground, then answer each fault that comes in."""
    ground = tiny_ground(Path(sys.argv[1]))
    borders = [asdict(fault) for fault in every_border(ground)]
    print(MARK + json.dumps({"operations": ground.operations, "borders": borders}), flush=True)
    for line in sys.stdin:
        row = try_fault(ground, Fault(**json.loads(line)), ground.whole.with_name("run"))
        print(MARK + json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
