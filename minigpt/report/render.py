"""Terminal view of a build's report: made for about 100 columns, legible at 80, and complete without color."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from minigpt.files import write_text
from minigpt.report.facts import coverage_sentence, openings, preset, time_of_steps
from minigpt.report.figures import final_stage, was_quantized
from minigpt.report.passages import passages_sentence
from minigpt.report.pictures import removed_picture, training_table
from minigpt.report.table import NARROW, metrics_table
from minigpt.report.text import clean, count, duration, percent, short_reference, size, stage_title
from minigpt.report.verdicts import sentences
from minigpt.results import BuildReport

MAX_WIDTH = 110
SAMPLE_LIMIT = 600
DTYPES = {2: "bfloat16", 4: "float32"}


@dataclass(frozen=True, slots=True)
class ReportView:
    """A report that fits itself to the width of the terminal."""

    report: BuildReport

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        width = min(options.max_width, MAX_WIDTH)
        for section in _sections(self.report, width):
            yield Padding(section, (0, max(0, options.max_width - width), 0, 0))


def render(report: BuildReport) -> RenderableType:
    """Lay out a report for people: verdict, sizes, metrics, removed units, training, samples, text and notes."""
    return ReportView(report)


def svg(report: BuildReport, path: Path, *, width: int = 100, title: str = "") -> None:
    """Write the rendered report as an SVG picture of a terminal, for a README.

    Args:
        report: Report to draw.
        path: File to write, atomically.
        width: Columns of the drawn terminal.
        title: Text of its title bar; the build command by default.
    """
    console = Console(
        record=True, file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor", no_color=False
    )
    console.print(render(report))
    write_text(path, console.export_svg(title=title or f"minigpt build --domain {report.domain}"))


def _sections(report: BuildReport, width: int) -> Iterator[RenderableType]:
    """Yield the sections that this report has, the most decisive first."""
    yield _header(report)
    if verdict := sentences(report):
        yield _titled("Verdict", bullets(verdict))
    yield _titled("Metrics: value and 95 % interval", metrics_table(report, width))
    if samples := _samples(report):
        yield _titled("A sample", samples)
    yield _titled("Sizes", _sizes(report, width))
    if picture := removed_picture(report, width):
        yield _titled("What was removed", picture)
    if training := training_table(report):
        yield _titled("Training", training)
    if report.attributions or report.corpus_counts:
        yield _titled("Text", _corpus(report))
    if report.notes:
        yield _titled("Limits and notes", bullets(report.notes))


def _titled(title: str, body: RenderableType) -> RenderableType:
    """Put a title over a section."""
    return Group(Text(), Rule(Text(title, style="bold"), align="left", style="dim"), body)


def bullets(lines: Iterable[str]) -> Table:
    """Draw a bulleted list with hanging indents."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("•", Text(clean(line)))
    return table


def _header(report: BuildReport) -> RenderableType:
    """Draw the title and the settings that identify a build, in two columns of name and value."""
    opened = openings(report)
    settings = [
        ("parent", short_reference(report.base_model)),
        ("precision", report.base_precision),
        ("method", report.method),
        ("target", report.target),
        ("preset", f"{preset(report)}, seed {report.seed}"),
        ("device", report.device),
        ("time of all steps", duration(time_of_steps(report))),
        ("opening", f"{opened}; before every measured text, the best of each model on dev text" if opened else ""),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in settings:
        if value:
            table.add_row(name, Text(clean(value)))
    title = Text.assemble(("minigpt", "bold"), " · ", (clean(report.domain), "bold cyan"))
    return Group(Rule(title, align="left", style="cyan"), table)


def _sizes(report: BuildReport, width: int) -> RenderableType:
    """Draw parameters and weights of each stage; a narrow terminal leaves out the share of bytes and the time."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage")
    columns = ("parameters", "of parent", "weights", "of parent", "time")[: 3 if width < NARROW else 5]
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    parent = report.stage("parent")
    for stage in report.stages:
        cells = (
            f"{stage.parameters:,}",
            percent(stage.parameters / parent.parameters if parent and parent.parameters else None),
            size(stage.bytes),
            percent(stage.bytes / parent.bytes if parent and parent.bytes else None),
            duration(stage.seconds),
        )
        title = Text(stage_title(stage.stage), style="bold" if stage is final_stage(report) else "")
        table.add_row(title, *cells[: len(columns)])
    if parent is None or not was_quantized(report):
        return table
    dtype = DTYPES.get(round(parent.bytes / parent.parameters) if parent.parameters else 0, "saved at full width")
    note = f"parent weights are counted as {dtype}; the quantized file it came from is smaller"
    return Group(table, Text(note, style="dim"))


def _samples(report: BuildReport) -> RenderableType | None:
    """Draw the continuations of the prompt by parent, tuned parent and specialist; None where there are none."""
    final, controls = final_stage(report), ("parent", "parent_tuned")
    stages = [stage for stage in report.stages if stage.sample and (stage.stage in controls or stage is final)]
    if not stages:
        return None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for stage in stages:
        table.add_column(stage_title(stage.stage), ratio=1, overflow="fold")
    table.add_row(*(Text(clean(stage.sample, SAMPLE_LIMIT)) for stage in stages))
    prompt = Text.assemble(("prompt  ", "dim"), (clean(report.sample_prompt, SAMPLE_LIMIT), "italic"))
    return Group(prompt, Text(), table)


def _corpus(report: BuildReport) -> RenderableType:
    """Draw the sources of the text, how many passages were left out, and how much measured text was trained on."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("source", overflow="fold")
    table.add_column("license", overflow="fold")
    table.add_column("documents", justify="right")
    table.add_column("size", justify="right", no_wrap=True)
    for source in report.attributions:
        name = f"{clean(source.name)}{' (only measured)' if source.measured_only else ''}"
        table.add_row(Text(name), Text(clean(source.license)), count(source.documents), size(source.bytes))
    lines = (passages_sentence(report.corpus_counts), coverage_sentence(report))
    about = [Text(clean(report.description))] if report.description else []
    return Group(*about, table, *(Text(clean(line), style="dim") for line in lines if line))
