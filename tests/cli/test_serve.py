"""`minigpt serve` as a process: it says where it listens, answers there, and ends when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support.commands import model_folder


def test_the_server_answers_and_ends(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    command = [sys.executable, "-m", "minigpt", "serve", str(folder), "--beside", str(folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            text = ""
            while "}" not in text:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                text += line
            data = json.loads(text)
            request = urllib.request.Request(
                data["url"] + "/v1/completions",
                data=json.dumps({"prompt": "The heart", "max_tokens": 4, "model": data["models"][1]}).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = json.load(response)
            assert answer["model"] == data["models"][1]
            assert answer["usage"]["completion_tokens"] > 0
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
