"""The network goes away in the middle of a download: one sentence, nothing half, and the same call completes it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from minigpt.assets import fetch_member, wheels
from minigpt.assets.hub import damaged_blobs
from minigpt.errors import AssetError
from tests.assets.test_wheels import NAME, make_wheel

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    """A server of files that hangs up after some bytes of the large ones, until `mended`."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], etags: dict[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.etags, self.cut, self.mended = files, etags or {}, 20_000, False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers with a file, whole or cut off."""

    server: Server

    def _head(self) -> bytes | None:
        path = self.path.partition("?")[0].rstrip("/")
        content = self.server.files.get(path)
        begins = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if begins and content is not None:
            first, size = int(begins[1]), len(content)
            content = content[first:]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        else:
            self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        if path in self.server.etags:
            self.send_header("ETag", f'"{self.server.etags[path]}"')
            self.send_header("X-Repo-Commit", COMMIT)
        kind = "text/html" if path.startswith("/simple") else "application/octet-stream"
        self.send_header("Content-Type", "application/json" if path.startswith("/api") else kind)
        self.end_headers()
        return content

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        content = self._head() or b""
        if len(content) > self.server.cut and not self.server.mended:
            self.wfile.write(content[: self.server.cut])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server inside the block."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_a_wheel_that_was_cut_off_is_fetched_whole_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(120_000)
    wheel, digest = make_wheel(tmp_path / "index", {"tiny/data/a.bin": data})
    link = f'<a href="/files/{NAME}">{NAME}</a>'.encode()
    files = {"/simple/tiny-asset": b"<!DOCTYPE html><html><body>" + link, f"/files/{NAME}": wheel.read_bytes()}
    home = tmp_path / "home"
    monkeypatch.setattr(wheels, "_pins", lambda: {"tiny-asset==1.0": {"sha256": digest}})
    with serving(Server(files)) as server:
        settings = {"INDEX_URL": f"{server.url}/simple/", "RETRIES": "0", "TIMEOUT": "5", "NO_CACHE_DIR": "1"}
        for name, value in {**settings, "RESUME_RETRIES": "0", "CONFIG_FILE": os.devnull}.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        monkeypatch.setenv("MINIGPT_HOME", str(home))
        with pytest.raises(AssetError) as refused:
            fetch_member("pypi:tiny-asset==1.0/tiny/data/a.bin")
        assert "\n" not in str(refused.value)
        assert not [path for path in home.rglob("*") if path.is_file() and path.name != ".lock"]
        server.mended = True
        assert fetch_member("pypi:tiny-asset==1.0/tiny/data/a.bin").read_bytes() == data


FETCH = """
import sys
from minigpt.assets.hub import snapshot
from minigpt.assets.refs import HubRef
from minigpt.errors import MiniGPTError
from minigpt.progress import Silent
class Notes(Silent):
    def note(self, message): print("note:", message)
try:
    print(snapshot(HubRef(repo="org/tiny", revision="main"), reporter=Notes()))
except MiniGPTError as error:
    sys.exit(str(error))
"""


def fetch(server: Server, home: Path, *, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """Fetch the model in a process of its own, as the client reads its settings when it is imported."""
    hub = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    hub |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {**os.environ, **hub, "NO_PROXY": "*"}
    return subprocess.run(
        [sys.executable, "-c", FETCH], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow
def test_a_hub_model_that_was_cut_off_or_damaged_is_fetched_whole_the_next_time(tmp_path: Path) -> None:
    weights, config = os.urandom(60_000), b'{"model_type": "llama"}'
    git = hashlib.sha1(f"blob {len(config)}\0".encode() + config).hexdigest()
    etags = {"model.safetensors": hashlib.sha256(weights).hexdigest(), "config.json": git}
    contents = {"model.safetensors": weights, "config.json": config}
    files = {f"/org/tiny/resolve/{COMMIT}/{name}": content for name, content in contents.items()}
    rows = [
        {"type": "file", "path": name, "size": len(content), "oid": etags[name]} for name, content in contents.items()
    ]
    about = {"id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in contents]}
    answers = {"revision/main": about, f"tree/{COMMIT}": rows}
    api = {f"/api/models/org/tiny/{path}": json.dumps(answer).encode() for path, answer in answers.items()}
    with serving(Server({**files, **api}, {path: etags[path.rpartition("/")[2]] for path in files})) as server:
        first = fetch(server, tmp_path)
        assert first.returncode == 1 and first.stderr.strip().splitlines()[-1].startswith("Cannot reach"), first.stderr
        server.mended = True
        second = fetch(server, tmp_path)
        folder = Path(second.stdout.strip())
        assert second.returncode == 0 and (folder / "model.safetensors").read_bytes() == weights, second.stderr
        assert damaged_blobs(folder) == {}
        for name, place in (("model.safetensors", 31_000), ("config.json", 5)):
            blob = (folder / name).resolve()
            flipped = bytearray(blob.read_bytes())
            flipped[place] ^= 4
            blob.write_bytes(bytes(flipped))
            assert damaged_blobs(folder) == {name: blob}
            away = fetch(server, tmp_path, offline=True)
            assert away.returncode == 1 and re.search(rf"damaged in the local cache: {name}", away.stderr)
            third = fetch(server, tmp_path)
            assert third.returncode == 0 and (folder / name).read_bytes() == contents[name]
