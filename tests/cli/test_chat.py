"""`minigpt chat` and `minigpt completion`, as a script calls them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import model_folder, run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("tiny") / "model")


def test_a_chat_answers_each_line_until_exit(model: Path) -> None:
    said = "A fever?\n\n/reset\n/rest\nAgain?\n/exit\nnever\n"
    options = ["--max-new-tokens", "6", "--device", "cpu"]
    streamed = run("chat", str(model), *options, input=said)
    assert streamed.exit_code == 0, streamed.output
    assert "Did you mean '/reset'?" in streamed.stderr
    data = json.loads(run("chat", str(model), *options, "--json", "-q", input=said).stdout)
    assert [turn["role"] for turn in data["turns"]] == ["user", "assistant"], "/reset forgot the first turns"
    assert data["turns"][0]["content"] == "Again?"
    assert data["turns"][1]["content"] in streamed.stdout
    alone = json.loads(run("chat", str(model), *options, "--json", "-q", input="Again?\n").stdout)
    assert alone["turns"] == data["turns"]


def test_a_chat_without_a_template_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    result = run("chat", str(folder), input="x\n")
    assert result.exit_code == 1
    assert "no chat template" in result.stderr and "minigpt generate" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_clicks_own(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_MINIGPT_COMPLETE" in result.stdout
    if shell == "bash" and (bash := shutil.which("bash")):
        subprocess.run([bash, "-n"], input=result.stdout, text=True, check=True)


def test_a_shell_gets_commands_and_options() -> None:
    def complete(words: str, number: int) -> list[str]:
        environment = {
            **os.environ,
            "_MINIGPT_COMPLETE": "zsh_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
        }
        code = "import sys; sys.argv[0] = 'minigpt'; from minigpt.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split("\n")

    assert "serve" in complete("minigpt se", 1)
    assert "--beside" in complete("minigpt serve --be", 2)
