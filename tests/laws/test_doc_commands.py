"""Commands in the documents can be typed: commands, options, choices, settings, gates, extras and targets exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from minigpt.cli import cli
from minigpt.pipeline.overrides import apply_overrides
from minigpt.pipeline.settings import PRESETS
from minigpt.report import parse_gate

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GATES = ("--fail-if", "--gate")


def console_lines(page: Path) -> Iterator[str]:
    """Yield the lines of a page's console blocks, without comments and with continued lines joined."""
    for block in re.findall(r"```(?:console|bash|sh|shell)\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := line.partition("  #")[0].strip():
                yield words.removeprefix("$ ")


def command_of(line: str) -> tuple[click.Command, list[str]]:
    """The command that a line calls, and its arguments."""
    words = shlex.split(line)
    command, arguments = cli, words[words.index("minigpt") + 1 :]
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        inner = command.get_command(click.Context(command), arguments[0])
        assert inner is not None, f"no command {arguments[0]!r}: {line}"
        command, arguments = inner, arguments[1:]  # type: ignore[assignment]
    return command, arguments


def check(line: str) -> None:
    """Parse a line as its command would, and what its settings and gates say."""
    command, arguments = command_of(line)
    if isinstance(command, click.Group):
        return
    context = click.Context(command)
    options, _, _ = command.make_parser(context).parse_args(list(arguments))
    for parameter in command.params:
        values = options.get(parameter.name or "")
        if not isinstance(parameter, click.Option) or not isinstance(values, str | list):
            continue
        for value in [values] if isinstance(values, str) else values:
            if not isinstance(parameter.type, click.Path | click.File):
                parameter.type.convert(value, parameter, context)
            if "--set" in parameter.opts:
                key, _, text = value.partition("=")
                apply_overrides(PRESETS["quick"], {key: text})
            if any(name in parameter.opts for name in GATES):
                parse_gate(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page_can_be_typed(page: Path) -> None:
    for line in console_lines(page):
        if re.match(r"(?:\w+=\S+ )*(?:torchrun|accelerate|minigpt|python -m minigpt)\b.*", line) and "minigpt" in line:
            check(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_extras_targets_and_scripts_of_a_page_exist(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in console_lines(page):
        for names in re.findall(r"""pip install ['"]?(?:minigpt|\.)\[([\w,-]+)\]""", line):
            assert set(names.split(",")) <= set(extras), line
        if line.startswith("make "):
            assert line.split()[1] in targets, line
        for script in re.findall(r"python (benchmarks/\w+\.py)", line):
            assert (ROOT / script).is_file(), line
        for module in re.findall(r"python -m (benchmarks\.\w+)", line):
            assert any((ROOT / (module.replace(".", "/") + end)).exists() for end in (".py", "/__main__.py")), line


@pytest.mark.parametrize(
    "line",
    [
        "minigpt bild --domain medical",
        "minigpt build --domian medical",
        "minigpt build --domain medical --preset fast",
        "minigpt build --domain medical --set heal.step=50",
        "minigpt compare a --fail-if 'beauty<1'",
    ],
)
def test_a_line_that_cannot_be_typed_is_noticed(line: str) -> None:
    with pytest.raises(Exception):  # noqa: B017 - of the parser, the settings or the gates
        check(line)
