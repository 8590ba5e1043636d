"""The command line as a test calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from minigpt import report
from minigpt.cli import cli
from tests.support.reports import make_report


def run(*arguments: str, **options: Any) -> Result:
    """A command in this process."""
    return CliRunner().invoke(cli, arguments, **options)


def finished_build(folder: Path, **changes: Any) -> Path:
    """A folder that looks like a build: a report and a model folder."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    report.save(make_report(**changes), folder / "report.json")
    return folder


def model_folder(folder: Path) -> Path:
    """A tiny model and its tokenizer on disk."""
    from tests.support import tiny

    tiny.tiny_model().save_pretrained(folder)
    tiny.tiny_tokenizer().save_pretrained(folder)
    return folder
