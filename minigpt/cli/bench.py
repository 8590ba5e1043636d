"""Command `minigpt bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, facts, standard, table
from minigpt.cli.fit import RUNTIMES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.fitting.profile import Profile
    from minigpt.models.bench import Bench


@click.command(
    epilog=examples(
        "minigpt bench parent-onnx runs/medical-onnx",
        "minigpt bench runs/medical runs/medical-onnx runs/medical-int4 --repeats 9 --json",
        "minigpt bench --profile phone.json --runtime llama.cpp",
    )
)
@click.argument("models", nargs=-1, metavar="A [B ...]")
@click.option(
    "--prompt", type=click.IntRange(min=1), default=256, show_default=True, help="Length of the prompt in tokens."
)
@click.option(
    "--decode", type=click.IntRange(min=1), default=64, show_default=True, help="Number of tokens to generate."
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of measurements of each model; the median counts.",
)
@click.option(
    "--device",
    metavar="NAME",
    default="cpu",
    show_default=True,
    help="Device for PyTorch models: auto, cpu, cuda, cuda:1 or mps.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Measure this machine instead, for `minigpt build --fit --device-profile FILE` elsewhere; A is the parent.",
)
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(RUNTIMES),
    multiple=True,
    help="Runtime that --profile measures; repeat for several [llama.cpp].",
)
@standard
def bench(
    session: Session,
    *,
    models: tuple[str, ...],
    prompt: int,
    decode: int,
    repeats: int,
    device: str,
    profile: Path | None,
    runtimes: tuple[str, ...],
) -> None:
    """Measure load time, size, memory and speed of models in their runtimes, by turns on this machine.

    Each model is an exported folder, or anything else that `minigpt eval` takes, which then runs in PyTorch in fp32.
    Ratios are relative to A: give the parent in the same format first. The number of threads is OMP_NUM_THREADS, or
    all cores if that is not set.
    """
    if profile is not None:
        write_profile(session, models, profile, runtimes or RUNTIMES[:1])
        return
    if not models or runtimes:
        raise click.UsageError("--runtime goes with --profile." if runtimes else "Missing argument 'A [B ...]'.")
    from minigpt.machine import pick_device
    from minigpt.models.bench import Workload
    from minigpt.models.bench import bench as run

    work = Workload(prompt=prompt, decode=decode, repeats=repeats)
    comparison = run(models, device=pick_device(device), workload=work, reporter=session.reporter)
    session.show(comparison, lambda: render(comparison))


def write_profile(session: Session, models: tuple[str, ...], path: Path, runtimes: tuple[str, ...]) -> None:
    """Measure this machine and write its profile.

    Raises:
        click.UsageError: more than one parent is given.
    """
    from minigpt.fitting import profile
    from minigpt.fitting.choose import profile_device

    if len(models) > 1:
        raise click.UsageError("--profile takes one parent at most.")
    measured = profile_device(models[0] if models else None, runtimes, session.reporter)
    profile.write_profile(path, measured)
    session.show(measured, lambda: profiled(measured, path))


def profiled(measured: Profile, path: Path) -> RenderableType:
    """Draw what a profile says: a row for each runtime and precision, with the largest error of the fitted costs."""
    from rich.console import Group

    from minigpt.fitting.costmodel import fit_costs, largest_error

    drawn = table("runtime", "precision", ">models", ">parent, tok/s", ">largest error of speed")
    for runtime, precision in dict.fromkeys((sample.runtime, sample.precision) for sample in measured.samples):
        samples, model = measured.of(runtime, precision), fit_costs(measured, runtime, precision)
        error = f"{100 * largest_error(model, samples):.0f} %"
        drawn.add_row(runtime, precision, str(len(samples)), f"{model.parent:.1f}", error)
    return Group(facts({"machine": measured.machine, "profile": path}), drawn)


def render(comparison: Bench) -> RenderableType:
    """Draw one row for each model, with ratios to the first one in brackets."""
    from minigpt.report.text import clean, size

    result = table("model", "runtime", ">weights", ">load, s", ">memory", ">prefill, tok/s", ">decode, tok/s")
    for model in comparison.models:
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
    work = comparison.workload
    result.caption = (
        f"{comparison.machine}; {work.prompt} tokens read, {work.decode} generated, "
        f"median of {work.repeats} measurements"
    )
    return result
