"""`--fit` of `minigpt build`: options, and the tables of a choice and of what came out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.common import Session, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.fitting.choose import FitRequest, Fitted
    from minigpt.fitting.run import FitResult
    from minigpt.pipeline import BuildOptions
    from minigpt.results import BuildReport

# Runtimes that a model can be fitted to; a test holds them against the table of engines.
RUNTIMES = ("llama.cpp", "onnx-genai", "onnx", "torch")
# Axes that a fit chooses widths of beside the tokens, each with its title and the field of a shape.
WIDTHS = (("layers", "layers", "layers"), ("ffn", "neurons", "intermediate_size"), ("kv_groups", "KV", "kv_groups"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The options of a fit as the user gave them.

    Attributes:
        constraints: values of --fit; empty where nothing is fitted.
        runtime: value of --runtime.
        profile: value of --device-profile.
    """

    constraints: tuple[str, ...]
    runtime: str | None
    profile: Path | None

    def request(self, options: BuildOptions) -> FitRequest:
        """Put together what to fit."""
        from minigpt.fitting.choose import FitRequest

        return FitRequest(
            options=options,
            constraints=self.constraints,
            runtime=self.runtime or RUNTIMES[0],
            profile=self.profile,
        )


def fit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--fit`, `--runtime` and `--device-profile`."""
    options = (
        click.option(
            "--fit",
            "fit",
            multiple=True,
            metavar="LIMIT",
            help='Limit of the device: "50MB", "300MB ram", "60 tokens/s" or "2x parent tokens/s". Repeat for several.',
        ),
        click.option(
            "--runtime", type=click.Choice(RUNTIMES), help="Runtime that --fit exports to and measures in [llama.cpp]."
        ),
        click.option(
            "--device-profile",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="Profile of another device, of `minigpt bench --profile` there [this machine is measured].",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def take_fit(options: dict[str, Any]) -> Fit:
    """Take the options of a fit out of those of a command.

    Raises:
        click.UsageError: there is a runtime or a profile, but nothing to fit.
    """
    fit = Fit(constraints=options.pop("fit"), runtime=options.pop("runtime"), profile=options.pop("device_profile"))
    if not fit.constraints and (fit.runtime or fit.profile):
        raise click.UsageError("--runtime and --device-profile go with --fit.")
    return fit


def without_target(options: BuildOptions, given: Collection[str]) -> BuildOptions:
    """Drop the target of a recipe, which a fit replaces; one that the user gave stays, so that it is refused."""
    targets = ("target_size", "target_params", "target_bytes")
    if any(name in given for name in targets):
        return options
    return replace(options, target_size=None, target_params=None, target_bytes=None)


def fitted(session: Session, fit: Fit, options: BuildOptions) -> tuple[BuildOptions, tuple[FitRequest, Fitted]]:
    """Choose what to build, show the choice, and return the options that build it."""
    from minigpt.cli.common import data_console
    from minigpt.fitting.choose import choose
    from minigpt.fitting.run import fitted_options

    request = fit.request(options)
    choice = choose(request, session.reporter)
    if not session.json:
        data_console().print(choices(choice))
    return fitted_options(options, choice), (request, choice)


def check_fit(session: Session, request: FitRequest) -> None:
    """Refuse a fit whose export could not be checked here, before anything is built."""
    from minigpt.fitting.run import check_readable

    check_readable(request, session.reporter)


def finished(
    session: Session, request: FitRequest, choice: Fitted, options: BuildOptions, reports: Sequence[BuildReport]
) -> list[FitResult]:
    """Export each finished build, and measure it."""
    from minigpt.fitting.run import finish_fit

    names = options.domains if "all" not in options.domains else tuple(report.domain for report in reports)
    return [
        finish_fit(request, choice, report, name, session.reporter) for report, name in zip(reports, names, strict=True)
    ]


def choices(choice: Fitted) -> RenderableType:
    """Draw the chosen point and the nearest alternatives."""
    from minigpt.report.text import count, size

    points = [(choice.best, _chosen(choice)), *choice.others]
    measured = [">speed"] * (choice.best.speed is not None) + [">memory"] * (choice.best.ram is not None)
    widths = [entry for entry in WIDTHS if entry[0] in choice.axes]
    title = " × ".join(name for _, name, _ in widths)
    heads = ("=precision", f"={title}", ">tokens", ">parameters", ">file", *measured, ">cost", "why")
    result = table(*heads, title=f"Fit for {choice.runtime}", title_justify="left")
    for point, reason in points:
        shape = point.shape
        speed = "–" if point.speed is None else f"{point.speed:.1f}/s"
        ram = "–" if point.ram is None else size(round(point.ram))
        figures = [speed] * (">speed" in measured) + [ram] * (">memory" in measured)
        result.add_row(
            point.precision,
            " × ".join(f"{getattr(shape, field):,}" for _, _, field in widths),
            f"{shape.vocab_size:,}",
            count(point.parameters),
            size(point.file),
            *figures,
            f"{100 * (2**point.cost - 1):+.1f} %",
            reason,
        )
    machine = f" Speed and memory: {choice.machine}." if choice.machine else ""
    result.caption = (
        "Cost: expected rise of bits per byte, pruning and rounding added up. Of all that fit, the least is taken; at "
        "equal bytes that means more parameters in fewer bits, until rounding costs more than pruning. Cost of "
        f"pruning: {choice.sensitivity}.{machine}"
    )
    return result


def _chosen(choice: Fitted) -> str:
    """Say that a point is chosen, by which rehearsal, and if it is only the nearest."""
    from minigpt.fitting.narrow import described

    words = "chosen" if choice.fits else f"the nearest: none of {choice.rehearsals} rehearsed models fits"
    return words if choice.rehearsed is None else f"{words}; rehearsed, {described(choice.rehearsed)}"


def outcome(result: FitResult) -> RenderableType:
    """Draw what was asked and what came out: "asked 50 MB, file 48.9 MB"."""
    from minigpt.report.fit import HEADS, fit_rows

    columns = [f">{name}" if name in HEADS[1:6] else name for name in HEADS]
    drawn = table(*columns, title="Fit", title_justify="left")
    for row in fit_rows(result.outcomes):
        drawn.add_row(*astuple(row))
    drawn.caption = "\n".join((_measured(result), *result.remarks))
    return drawn


def _measured(result: FitResult) -> str:
    """Say where the export is, and how it was compared with the parent."""
    words = f"{result.fitted.runtime} {result.fitted.best.precision}: {result.folder}"
    if result.parent_speed is not None and result.ratio is not None:
        ratio = result.ratio
        words += (
            f"; {ratio.value:.2f} times the uncut parent by paired turns (95 % interval {ratio.low:.2f} to "
            f"{ratio.high:.2f}), which has {result.parent_speed:.1f} tokens/s beside it"
        )
    return words if result.rounding is None else f"{words}; rounding: {result.rounding:.4f} times the bits per byte"
