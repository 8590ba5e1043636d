"""End of a build in the terminal: where the model and its report are, and commands to go on with."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minigpt.domain.config import packaged_folder
from minigpt.report.figures import final_stage
from minigpt.report.text import clean, size
from minigpt.results import BuildReport

PROMPT = "In short,"
# Longest line of a command: a terminal would break a longer one where it cannot be copied.
LINE = 76


def next_steps(report: BuildReport, folder: Path) -> RenderableType:
    """Draw the places of a finished build, and the commands that lead on from it.

    Args:
        report: Report of the build.
        folder: Folder of the build.
    """
    places = Table.grid(padding=(0, 2))
    places.add_column(style="dim", no_wrap=True)
    places.add_column(overflow="fold")
    for name, value in _places(report, folder).items():
        places.add_row(name, value)
    commands = Text()
    for purpose, command in next_commands(report, folder):
        commands.append(f"\n{purpose}\n", style="dim")
        commands.append(f"  {broken(command)}")
    return Group(Text(), places, commands)


def next_commands(report: BuildReport, folder: Path) -> tuple[tuple[str, str], ...]:
    """List what a user may want next, as pairs of purpose and command; own texts only to those who built others.

    Args:
        report: Report of the build.
        folder: Folder of the build.
    """
    place = shlex.quote(str(folder))
    prompt = shlex.quote(clean(report.sample_prompt).replace("\n", " ") or PROMPT)
    steps = [
        ("try it", f"minigpt generate {place} --prompt {prompt}"),
        (
            "make it small and fast, for llama.cpp",
            f"minigpt export {place} --format gguf --precision int4 --output-dir {shlex.quote(f'{folder}-gguf')}",
        ),
    ]
    if report.stage("parent_tuned") is None:
        recipe, output = shlex.quote(str(folder / "recipe.yaml")), shlex.quote(f"{folder}-tuned")
        steps.append(
            (
                "get the fair comparison (tunes the parent too: minutes on a GPU, hours on a CPU)",
                f"minigpt build {recipe} --set tuned_parent=true --output-dir {output}",
            )
        )
    if (packaged_folder() / f"{report.domain}.yaml").is_file():
        steps.append(("build one on texts of your own", "minigpt domains new NAME --from FOLDER"))
    return tuple(steps)


def broken(command: str) -> str:
    """Break a command before its options, so that a shell still reads it as one."""
    groups: list[list[str]] = []
    for word in shlex.split(command):
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    first, *options = (shlex.join(group) for group in groups)
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) < LINE:
            lines[-1] += f" {option}"
        else:
            lines.append(f"    {option}")
    return " \\\n  ".join(lines)


def _places(report: BuildReport, folder: Path) -> dict[str, str]:
    """Name the files that a user looks for."""
    page, final = folder / "report.html", final_stage(report)
    name, title = ("delta", "delta ticket") if final.stage == "delta" else ("model", "model")
    return {
        title: f"{folder / name} ({size(final.bytes)})",
        "model card": str(folder / name / "README.md"),
        "report": str(page if page.is_file() else folder / "report.json"),
    }
