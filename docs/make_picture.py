"""Draw docs/report.svg, the README's picture of a stored report: `make docs`. A test checks that it is current.

It shows the verdict and the two main metrics of each task. The report itself has more metrics and six more sections.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.segment import Segment, Segments
from rich.terminal_theme import MONOKAI

from minigpt import report
from minigpt.files import write_text
from minigpt.results import BuildReport

HERE = Path(__file__).parent
REPORT = HERE / "results" / "medical-quick.json"
PAGE = HERE / "report.svg"
WIDTH = 92
METRICS = ("bits_per_byte", "accuracy")
# The rendered report is cut at the titles of its sections.
TITLES = ("Verdict", "Sizes", "Metrics", "What was removed", "Training", "A sample", "Text", "Limits")

# Rich's own template fetches fonts from another host. This one uses the reader's.
SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>The end of minigpt build: verdict and metrics</title>
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "Cascadia Mono", "Fira Code", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font: bold 18px system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def with_main_metrics(whole: BuildReport) -> BuildReport:
    """The report without the metrics that say the same in another unit."""
    stages = tuple(
        replace(stage, metrics=tuple(metric for metric in stage.metrics if metric.metric in METRICS))
        for stage in whole.stages
    )
    return replace(whole, stages=stages)


def section(console: Console, shown: BuildReport, title: str) -> Iterator[list[Segment]]:
    """The lines of one section of the rendered report."""
    inside = False
    for line in console.render_lines(report.render(shown), pad=False):
        text = "".join(segment.text for segment in line).strip()
        if "─" in text and text.startswith(TITLES):
            inside = text.startswith(title)
        if inside:
            yield line


def content() -> str:
    """The whole file."""
    console = Console(
        record=True, file=io.StringIO(), width=WIDTH, force_terminal=True, color_system="truecolor", no_color=False
    )
    whole = report.load(REPORT)
    lines = [*section(console, whole, "Verdict"), *section(console, with_main_metrics(whole), "Metrics")]
    console.print(Segments([part for line in lines for part in (*line, Segment.line())]), end="")
    return console.export_svg(
        title="minigpt build --domain medical", theme=MONOKAI, code_format=SVG, unique_id="report"
    )


if __name__ == "__main__":
    write_text(PAGE, content())
