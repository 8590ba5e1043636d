"""One measurement of `benchmarks.distributed`: healing of a model of random weights, in one or in several processes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

# Shapes of models of random weights, as the fields of a Llama config.
SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "kv": 2},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "kv": 3},
    "1.2b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "kv": 8,
    },
}
VOCABULARY = {"tiny": 512, "135m": 49152, "1.2b": 32768}
# Exchanges that are timed.
REPEATS = 20


class Timed:
    """Reporter that notes when the training loop passes some of its steps."""

    def __init__(self, marks: tuple[int, int], wait: Callable[[], object]) -> None:
        self.marks, self.wait = marks, wait
        self.times: list[float] = []

    def track(self, items: Iterable[Any], *, title: str, total: float | None = None) -> Iterator[Any]:
        """Yield the items, and note the time at the marks."""
        for number, item in enumerate(items):
            if title.endswith("Healing") and number in self.marks:
                self.wait()
                self.times.append(time.perf_counter())
            yield item

    def note(self, message: str) -> None:
        """Print the line."""
        print(message, file=sys.stderr, flush=True)

    def __getattr__(self, name: str) -> Any:
        from minigpt.progress import SILENT

        return getattr(SILENT, name)


def heal_worker(options: argparse.Namespace) -> None:
    """Heal a model of random weights, and print tokens a second; runs in each process."""
    import torch

    from minigpt.distributed import set_current
    from minigpt.distributed.group import END, start, stop
    from minigpt.distributed.jobs import serve
    from minigpt.distributed.place import place_of
    from minigpt.healing import run
    from minigpt.machine import release

    if not options.plain:
        run.MIN_COMPILED_TOKENS = 0  # as in a run of the preset, which is longer than this one
    place = place_of(options.device, torch.cuda.device_count())
    if place is None:
        measure_healing(options, 0.0)
        return
    group = start(place)
    wait = torch.cuda.synchronize if group.device.type == "cuda" else (lambda: None)
    model = random_model(options.shape, 0).to(group.device)
    exchange = exchange_times(model, group, wait)
    del model
    release()
    set_current(group)
    if group.leads:
        measure_healing(options, exchange)
        group.announce(END)
    else:
        serve(group)
    stop()


def measure_healing(options: argparse.Namespace, exchange: float) -> None:
    """Train for some steps, and print the result as JSON."""
    import torch

    from minigpt.healing import train
    from minigpt.healing.teacher import teacher_of
    from minigpt.pipeline.settings import PRESETS

    device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    steps = options.warm + options.steps
    recipe = replace(
        PRESETS["standard"].heal,
        steps=steps + 1,
        tokens_per_step=options.tokens,
        evaluate_every=10**6,
        optimizer=options.optimizer,
        learning_rate=1e-5,
    )
    model = random_model(options.shape, 0).to(device)
    teacher = teacher_of(random_model(options.shape, 1).to(device, torch.bfloat16), None, model)
    reporter = Timed((options.warm, steps), wait)
    text = random_text(VOCABULARY[options.shape], steps * options.tokens // 3, 0)
    dev = random_text(VOCABULARY[options.shape], 4000, 1)
    record = train(model, text, dev, recipe, teacher=teacher, reporter=reporter)
    seconds = reporter.times[1] - reporter.times[0]
    per_step = record.tokens / record.steps
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    result = {
        "tokens_per_second": per_step * options.steps / seconds,
        "milliseconds": 1000 * seconds / options.steps,
        "peak_gib": peak,
        "exchange_ms": exchange,
    }
    print(json.dumps(result), flush=True)


def exchange_times(model: Any, group: Any, wait: Callable[[], object]) -> float:
    """Return the milliseconds of one exchange of all gradients and weights by itself; each process calls it."""
    import torch

    from minigpt.healing.exchange import Exchange

    exchange = Exchange(list(model.parameters()), group)
    gradients = [torch.zeros_like(parameter, dtype=torch.bfloat16) for parameter in model.parameters()]
    started = 0.0
    for repeat in range(REPEATS + 3):
        if repeat == 3:
            wait()
            started = time.perf_counter()
        exchange.clear(torch.bfloat16)
        exchange.add(gradients, 1.0, torch.bfloat16)
        exchange.reduce(torch.bfloat16)
        exchange.spread(gradients)
    wait()
    return 1000 * (time.perf_counter() - started) / REPEATS


def random_model(shape: str, seed: int) -> Any:
    """Make a Llama of random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    fields = dict(SHAPES[shape])
    config = AutoConfig.for_model(
        "llama",
        num_key_value_heads=fields.pop("kv"),
        vocab_size=VOCABULARY[shape],
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        **fields,
    )
    return AutoModelForCausalLM.from_config(config).float()


def random_text(vocabulary: int, tokens: int, seed: int) -> Any:
    """Make windows of 32 to 512 tokens, as the passages of a corpus have."""
    from random import Random

    from minigpt.healing import TokenText

    draw, windows, count = Random(seed), [], 0
    while count < tokens:
        windows.append(tuple(draw.randrange(vocabulary) for _ in range(draw.choice((32, 96, 192, 384, 512)))))
        count += len(windows[-1])
    return TokenText(windows=tuple(windows), bytes=4 * count)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="135m")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--plain", action="store_true")
    heal_worker(parser.parse_args())


if __name__ == "__main__":
    main()
