"""`minigpt bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.models.bench import Bench


@click.command(
    epilog=examples(
        "minigpt bench parent-onnx runs/medical-onnx",
        "minigpt bench runs/medical runs/medical-onnx runs/medical-int4 --repeats 9 --json",
    )
)
@click.argument("models", nargs=-1, required=True, metavar="A [B ...]")
@click.option("--prompt", "prompt", type=click.IntRange(min=1), default=256, show_default=True, help="Tokens to read.")
@click.option("--decode", type=click.IntRange(min=1), default=64, show_default=True, help="Tokens to generate.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Turns; the median counts.")
@click.option("--device", metavar="NAME", default="cpu", show_default=True, help="Of PyTorch models.")
@standard
def bench(session: Session, *, models: tuple[str, ...], prompt: int, decode: int, repeats: int, device: str) -> None:
    """Load time, size, memory and tokens a second of models in their runtimes, by turns on this machine.

    Each is an exported folder, or anything else that `minigpt eval` takes, which then runs in PyTorch in fp32. The
    ratios are to A: give the parent in the same format first. Threads: OMP_NUM_THREADS, else all cores.
    """
    from minigpt.machine import pick_device
    from minigpt.models.bench import Workload
    from minigpt.models.bench import bench as run

    work = Workload(prompt=prompt, decode=decode, repeats=repeats)
    found = run(models, device=pick_device(device), workload=work, reporter=session.reporter)
    session.show(found, lambda: render(found))


def render(found: Bench) -> RenderableType:
    """One row a model, ratios to the first in brackets."""
    from minigpt.report.text import clean, size

    result = table("model", "runtime", ">weights", ">load, s", ">memory", ">prefill, tok/s", ">decode, tok/s")
    for model in found.models:
        ratios = {name: f" ({ratio:.2f}×)" for name, ratio in model.ratios.items()}
        result.add_row(
            clean(model.name),
            model.runtime,
            size(model.bytes) + ratios.get("bytes", ""),
            f"{model.load_seconds:.1f}" + ratios.get("load_seconds", ""),
            size(model.peak_memory) + ratios.get("peak_memory", ""),
            f"{model.prefill:.1f}" + ratios.get("prefill", ""),
            f"{model.decode:.1f}" + ratios.get("decode", ""),
        )
    work = found.workload
    result.caption = (
        f"{found.machine}; {work.prompt} tokens read, {work.decode} generated, median of {work.repeats} turns"
    )
    return result
