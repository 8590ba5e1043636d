"""The contract of the command line: exit codes, two streams, sizes as people write them, help that is current."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.cli import COMMANDS, cli
from minigpt.cli.params import Amount, Fraction
from minigpt.errors import AssetError, GateFailed, MiniGPTError
from minigpt.models import catalog
from tests.support.commands import run

pytestmark = pytest.mark.usefixtures("home")

ROOT = Path(__file__).parents[2]


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    commands = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        here = (*path, name)
        commands += leaves(command, here) if isinstance(command, click.Group) else [(here, command)]
    return commands


@pytest.mark.parametrize(("path", "command"), leaves(cli), ids=[" ".join(path) for path, _ in leaves(cli)])
def test_every_command_has_the_common_options_and_examples(path: tuple[str, ...], command: click.Command) -> None:
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {"--json", "--quiet", "-q", "--verbose", "-v"} <= flags
    assert command.epilog and f"minigpt {' '.join(path)}" in command.epilog
    assert command.help


def test_the_table_tells_what_the_commands_tell_themselves() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.output


def test_the_documented_help_is_current() -> None:
    """docs/reference/cli.md is generated: `make docs` writes it again."""
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8") == module.content()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MiniGPTError("Do this."), 1, "Error: Do this.\n"),
        (GateFailed("Too high."), 3, "Error: Too high.\n"),
        (OSError(28, "No space left on device", "/x/y"), 1, "No space left on device (/x/y)"),
        (MemoryError(), 1, "Not enough memory"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), 130, "same command resumes"),
    ],
)
def test_failures_leave_as_one_sentence_and_their_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(_domain: str | None = None) -> None:
        raise error

    monkeypatch.setattr(catalog, "entries", fail)
    result = run("catalog", "list", "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_the_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_domain: str | None = None) -> None:
        raise AssetError("Gone.")

    monkeypatch.setattr(catalog, "entries", fail)
    result = run("catalog", "list", "-v")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("Error: Gone.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["nonsense"],
        ["build", "--domain", "medical", "--target-size", "0.5", "--target-params", "100M"],
        ["build", "--domain", "medical", "--target-size", "1.5"],
        ["build", "--domain", "medical", "--target-bytes", "plenty"],
        ["build", "--domain", "medical", "--set", "heal.steps"],
        ["build", "--domain", "medical", "--kinds", "linear,magic"],
        ["catalog", "list", "-q", "-v"],
        ["generate", "model", "--prompt", " "],
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Error:" in result.stderr


def test_a_mistyped_command_gets_the_nearest_one() -> None:
    assert "No such command 'bulid'. Did you mean 'build'?" in run("bulid", "--domain", "medical").stderr
    assert "Run `minigpt build --domain DOMAIN --plan-only`." in run("plan", "medical").stderr
    assert "Known: bench, build" in run("nonsense").stderr


@pytest.mark.parametrize(("path", "command"), leaves(cli), ids=[" ".join(path) for path, _ in leaves(cli)])
def test_every_option_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, (path, parameter.opts)


SENDS_ITSELF = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from minigpt.models import catalog
catalog.entries = lambda domain=None: (os.kill(os.getpid(), signal.{name}), time.sleep(60))
from minigpt.cli import main
sys.argv = ["minigpt", "catalog", "list"]
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_end_a_real_process_without_a_traceback(name: str, code: int) -> None:
    """A shell that starts this in the background has SIGINT ignored; the script takes it back first."""
    done = subprocess.run(
        [sys.executable, "-c", SENDS_ITSELF.format(name=name)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert signal.Signals[name]
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("resumes" in done.stderr) == (code == 130)


@pytest.mark.parametrize(
    ("text", "count"),
    [("100M", 100_000_000), ("0.5B", 500_000_000), ("1.5k", 1500), ("1_000", 1000), ("134,515,008", 134_515_008)],
)
def test_counts_as_people_write_them(text: str, count: int) -> None:
    assert Amount("count").convert(text, None, None) == count


@pytest.mark.parametrize(
    ("text", "count"), [("150MB", 150_000_000), ("1 GiB", 2**30), ("200m", 200_000_000), ("12", 12), ("2kB", 2000)]
)
def test_bytes_as_people_write_them(text: str, count: int) -> None:
    assert Amount("bytes", unit="B").convert(text, None, None) == count


@given(st.text(max_size=12))
def test_sizes_are_positive_or_refused(text: str) -> None:
    for kind in (Amount("count"), Amount("bytes", unit="B"), Fraction()):
        try:
            assert kind.convert(text, None, None) > 0
        except click.BadParameter as error:
            assert "write it like" in error.message


@pytest.mark.parametrize(("text", "fraction"), [("0.75", 0.75), ("75%", 0.75), ("1", 1.0)])
def test_fractions(text: str, fraction: float) -> None:
    assert Fraction().convert(text, None, None) == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["0", "nan", "-0.5", "1.01", "%", "inf", "half"])
def test_fractions_outside_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Fraction().convert(text, None, None)
