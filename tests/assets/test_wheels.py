"""Wheels: only pinned content, only the named member, never half of it, and no network the second time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minigpt.assets import DEFAULT_BASE, fetch_member, parents, wheels
from minigpt.assets.refs import WheelRef, parse_ref
from minigpt.errors import AssetError, MiniGPTError

NAME = "tiny_asset-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n"
CONTENT = {"tiny/data/a.txt": b"alpha", "tiny/data/sub/b.bin": bytes(range(256)) * 400, "tiny/other.txt": b"other"}


def make_wheel(folder: Path, content: dict[str, bytes]) -> tuple[Path, str]:
    folder.mkdir(parents=True, exist_ok=True)
    info = "tiny_asset-1.0.dist-info"
    extra = {
        f"{info}/METADATA": METADATA.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**content, **extra}.items():
            archive.writestr(name, data)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class FakePip:
    """Stands for `pip download`: copies a wheel into --dest and counts how often it was asked."""

    def __init__(self, wheel: Path) -> None:
        self.wheel, self.calls = wheel, 0

    def __call__(self, command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.wheel, folder)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePip]:
    wheel, digest = make_wheel(tmp_path / "index", CONTENT)
    fake = FakePip(wheel)
    monkeypatch.setattr(wheels.subprocess, "run", fake)
    monkeypatch.setattr(wheels, "_pins", lambda: {"tiny-asset==1.0": {"sha256": digest}})
    yield fake


def leftovers(home: Path) -> list[str]:
    """Every file under the home that is neither a lock nor a record of hashes."""
    return sorted(
        path.name for path in home.rglob("*") if path.is_file() and not path.name.endswith((".lock", "sums.json"))
    )


def test_the_member_and_nothing_else_is_kept(pip: FakePip, home: Path) -> None:
    path = fetch_member("pypi:tiny-asset==1.0/tiny/data/a.txt")
    assert path.read_bytes() == b"alpha"
    assert leftovers(home) == ["a.txt"]


def test_the_second_call_needs_no_pip(pip: FakePip) -> None:
    first = fetch_member("pypi:Tiny_Asset==1.0/tiny/data/a.txt")
    pip.wheel.unlink()
    assert fetch_member("pypi:tiny-asset==1.0/tiny/data/a.txt") == first
    assert pip.calls == 1


def test_a_folder_comes_whole_even_after_one_of_its_files(pip: FakePip) -> None:
    fetch_member("pypi:tiny-asset==1.0/tiny/data/a.txt")
    folder = fetch_member("pypi:tiny-asset==1.0/tiny/data/")
    content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert content == {"a.txt": b"alpha", "sub/b.bin": CONTENT["tiny/data/sub/b.bin"]}


def test_a_wrong_hash_is_refused_and_leaves_nothing(pip: FakePip, home: Path) -> None:
    make_wheel(pip.wheel.parent, {**CONTENT, "tiny/data/a.txt": b"tampered"})
    with pytest.raises(AssetError, match="SHA-256"):
        fetch_member("pypi:tiny-asset==1.0/tiny/data/a.txt")
    assert leftovers(home) == []


def test_an_unpinned_package_needs_its_own_hash(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = wheels._pins()["tiny-asset==1.0"]["sha256"]
    monkeypatch.setattr(wheels, "_pins", dict)
    with pytest.raises(AssetError, match="not pinned"):
        fetch_member("pypi:tiny-asset==1.0/tiny/other.txt")
    assert pip.calls == 0
    assert fetch_member(f"pypi:tiny-asset==1.0/tiny/other.txt#sha256={digest}").read_bytes() == b"other"


def test_a_reference_cannot_override_a_pin(pip: FakePip) -> None:
    with pytest.raises(AssetError, match="pinned"):
        fetch_member(f"pypi:tiny-asset==1.0/tiny/other.txt#sha256={'0' * 64}")
    assert pip.calls == 0


def test_a_missing_member_is_named_with_its_neighbors(pip: FakePip, home: Path) -> None:
    with pytest.raises(AssetError, match=r"Did you mean.*tiny/other\.txt"):
        fetch_member("pypi:tiny-asset==1.0/tiny/othr.txt")
    assert leftovers(home) == []


@pytest.mark.parametrize("evil", ["tiny/data/../../../evil.txt", "tiny/data//evil.txt", "tiny/data/c:evil.txt"])
def test_members_that_point_outside_are_refused(evil: str, pip: FakePip, home: Path, monkeypatch: Any) -> None:
    _, digest = make_wheel(pip.wheel.parent, {**CONTENT, evil: b"evil"})
    monkeypatch.setattr(wheels, "_pins", lambda: {"tiny-asset==1.0": {"sha256": digest}})
    with pytest.raises(AssetError, match="outside"):
        fetch_member("pypi:tiny-asset==1.0/tiny/data/")
    assert leftovers(home) == []


def test_interrupted_download_leaves_nothing_and_can_be_repeated(
    pip: FakePip, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(command: list[str], **options: Any) -> None:
        pip(command, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_member("pypi:tiny-asset==1.0/tiny/data/a.txt")
    assert leftovers(home) == []
    monkeypatch.setattr(wheels.subprocess, "run", pip)
    assert fetch_member("pypi:tiny-asset==1.0/tiny/data/a.txt").read_bytes() == b"alpha"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(pip: FakePip, home: Path, monkeypatch: Any) -> None:
    def full(_source: Any, sink: Any, _block: int) -> None:
        sink.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(wheels.shutil, "copyfileobj", full)
    with pytest.raises(MiniGPTError, match="No space left on device"):
        fetch_member("pypi:tiny-asset==1.0/tiny/data/")
    assert leftovers(home) == []


def test_a_killed_process_leaves_nothing_that_counts(pip: FakePip, home: Path) -> None:
    digest = wheels._pins()["tiny-asset==1.0"]["sha256"]
    script = f"""
        import os, pathlib, shutil, signal, subprocess
        from minigpt.assets import wheels
        def run(command, **options):
            folder = pathlib.Path(command[command.index("--dest") + 1]); folder.mkdir(parents=True)
            shutil.copy({str(pip.wheel)!r}, folder)
            return subprocess.CompletedProcess(command, 0, "", "")
        def die(source, sink, block):
            sink.write(b"half"); sink.flush(); os.kill(os.getpid(), signal.SIGKILL)
        wheels.subprocess.run = run
        wheels.shutil.copyfileobj = die
        wheels.fetch_member("pypi:tiny-asset==1.0/tiny/data/a.txt#sha256={digest}")
    """
    root = str(Path(wheels.__file__).parents[2])
    environment = {**os.environ, "MINIGPT_HOME": str(home), "PYTHONPATH": root}
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert run.wait(60) == -signal.SIGKILL
    assert fetch_member("pypi:tiny-asset==1.0/tiny/data/a.txt").read_bytes() == b"alpha"
    assert not list(home.rglob("*.whl"))


def test_concurrent_calls_download_once(pip: FakePip) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(fetch_member, ["pypi:tiny-asset==1.0/tiny/data/"] * 8))
    assert len(set(paths)) == 1
    assert pip.calls == 1


def test_a_file_in_parts_is_joined_checked_and_its_parts_forgotten(pip: FakePip, home: Path, monkeypatch: Any) -> None:
    whole = b"alpha" + b"other"
    parts = ["pypi:tiny-asset==1.0/tiny/data/a.txt", "pypi:tiny-asset==1.0/tiny/other.txt"]
    pins = {
        **wheels._pins(),
        "whole==1": {
            "sha256": "0" * 64,
            "assembled": {
                "good.bin": {"sha256": hashlib.sha256(whole).hexdigest(), "parts": parts},
                "bad.bin": {"sha256": "1" * 64, "parts": parts},
            },
        },
    }
    monkeypatch.setattr(wheels, "_pins", lambda: pins)
    assert fetch_member("pypi:whole==1/good.bin").read_bytes() == whole
    assert leftovers(home) == ["good.bin"]
    with pytest.raises(AssetError, match="do not add up"):
        fetch_member("pypi:whole==1/bad.bin")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: NewConnectionError\nERROR: No matching distribution found", "cannot be reached"),
        ("ERROR: No matching distribution found for x==1", "does not have this version"),
        ("ERROR: something odd", "something odd"),
    ],
)
def test_pip_failures_become_one_sentence(log: str, words: str, home: Path, monkeypatch: Any) -> None:
    process = subprocess.CompletedProcess([], 1, "", log)
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_args, **_options: process)
    with pytest.raises(AssetError, match=words) as caught:
        fetch_member(f"pypi:x==1/y#sha256={'0' * 64}")
    assert "\n" not in str(caught.value)


def test_real_pip(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line is one that pip accepts, and a wheel without the version asked for is an error of ours."""
    _, digest = make_wheel(tmp_path / "index", CONTENT)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    path = fetch_member(f"pypi:tiny-asset==1.0/tiny/data/a.txt#sha256={digest}")
    assert path.read_bytes() == b"alpha"
    with pytest.raises(AssetError, match="does not have this version"):
        fetch_member(f"pypi:tiny-asset==2.0/tiny/data/a.txt#sha256={digest}")


def test_pins_cover_what_we_ship_and_are_hashes() -> None:
    pins = json.loads((Path(wheels.__file__).parent / "pins.json").read_text("utf-8"))
    for ref in (DEFAULT_BASE, parents.ENCODER):
        parsed = parse_ref(ref)
        assert isinstance(parsed, WheelRef)
        assert parsed.package in pins
    for pin in pins.values():
        int(pin["sha256"], 16)
        assert len(pin["sha256"]) == 64
        for assembled in pin.get("assembled", {}).values():
            for part in map(parse_ref, assembled["parts"]):
                assert isinstance(part, WheelRef)
                assert part.package in pins


@pytest.mark.slow
def test_the_packaged_encoder_is_a_sentence_transformer() -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(parents.encoder()), device="cpu")
    texts = ["heart attack", "myocardial infarction", "contract law"]
    heart, cardiac, law = model.encode(texts, normalize_embeddings=True)
    assert float(heart @ cardiac) > float(heart @ law) + 0.2
