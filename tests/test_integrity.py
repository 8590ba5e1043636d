"""Sums of kept folders: every change is noticed, and damaged things move aside."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from minigpt import integrity
from minigpt.errors import MiniGPTError
from minigpt.integrity import (
    SUMS,
    check_file,
    check_model,
    damage,
    read_kept,
    read_signed,
    read_sums,
    seal,
    set_aside,
    sha256_once,
    write_kept,
    write_signed,
)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    (folder / "model").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "model" / "b.json").write_text('{"x": 1}')
    seal(folder, key="k")
    return folder


def test_a_sealed_folder_is_whole_and_its_sums_are_the_hashes(kept: Path) -> None:
    assert damage(kept) is None
    sums = read_sums(kept / SUMS)
    assert sums is not None and sums.key == "k"
    assert sums.files == {name: hashlib.sha256((kept / name).read_bytes()).hexdigest() for name in sums.files}
    assert set(sums.files) == {"a.bin", "model/b.json"}


@pytest.mark.parametrize("name", ["a.bin", "model/b.json", SUMS])
def test_every_flip_and_every_truncation_is_noticed(kept: Path, name: str) -> None:
    path = kept / name
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        changed = bytearray(whole)
        changed[place] ^= 0x20 if name == SUMS else 0x80
        path.write_bytes(changed)
        assert damage(kept) is not None, f"byte {place}"
        path.write_bytes(whole[: min(place, len(whole) - 2)])  # the last byte of a JSON file is a line end
        assert damage(kept) is not None, f"cut off at {place}"
    path.write_bytes(whole)
    assert damage(kept) is None
    path.unlink()
    assert damage(kept) is not None


def test_a_flip_with_size_and_times_kept_is_noticed_by_a_new_process(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept / "a.bin"
    status = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"\xff")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    monkeypatch.setattr(integrity, "_hashes", {})
    assert damage(kept) == "a.bin is not what was written"


def test_an_untouched_file_is_read_once(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256_once(kept / "a.bin")
    monkeypatch.setattr(integrity, "file_sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert sha256_once(kept / "a.bin") == hashlib.sha256(bytes(range(256))).hexdigest()


@pytest.mark.parametrize("at", [".", "..", "../work"])
def test_a_model_is_checked_by_the_sums_in_it_or_beside_it(tmp_path: Path, at: str) -> None:
    model = tmp_path / "build" / "model"
    model.mkdir(parents=True)
    (tmp_path / "build" / "work").mkdir()
    for name in ("config.json", "README.md"):
        (model / name).write_text("{}")
    root = model if at == "." else model.parent
    names = [f"{'' if at == '.' else 'model/'}{name}" for name in ("config.json", "README.md")]
    seal(root, names=names, at=model / at / SUMS)
    check_model(model)
    (model / "README.md").write_text("my own words")
    check_model(model)
    (model / "config.json").write_text("[]")
    with pytest.raises(MiniGPTError, match=r"config\.json is not what was written\. Run the command that made it"):
        check_model(model)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A build's folder whose model was damaged after it had been sealed."""
    root = tmp_path / "build"
    (root / "model").mkdir(parents=True)
    (root / "work").mkdir()
    (root / "model" / "config.json").write_text("{}")
    seal(root, names=["model/config.json"], at=root / "work" / SUMS)
    (root / "model" / "config.json").write_text("[]")
    return root


@pytest.mark.parametrize("way", ["link", "link of a parent", "dots", "dots at the end", "moved away"])
def test_a_damaged_model_is_refused_by_whatever_path_it_is_named(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    model = damaged / "model"
    if way == "link":
        path = tmp_path / "link"
        path.symlink_to(model)
        model = path
    elif way == "link of a parent":
        (tmp_path / "builds").symlink_to(damaged)
        model = tmp_path / "builds" / "model"
    elif way == "dots":
        model = damaged / "work" / ".." / "model"
    elif way == "dots at the end":
        (model / "inner").mkdir()
        model = model / "inner" / ".."
    else:
        model.rename(tmp_path / "elsewhere")
        model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MiniGPTError, match=r"model/config\.json is not what was written"):
        check_model(model)
    with pytest.raises(MiniGPTError, match=r"model/config\.json is not what was written"):
        check_file(model / "config.json")


def test_a_link_to_a_damaged_file_is_refused_and_a_link_beside_its_sums_too(damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(damaged / "model" / "config.json")
    with pytest.raises(MiniGPTError, match="is not what was written"):
        check_file(tmp_path / "link.json")
    (damaged / "model" / "config.json").rename(tmp_path / "blob")
    (damaged / "model" / "config.json").symlink_to(tmp_path / "blob")
    with pytest.raises(MiniGPTError, match="is not what was written"):
        check_file(damaged / "model" / "config.json")


def test_damaged_things_move_aside_and_none_is_lost(tmp_path: Path) -> None:
    places = set()
    for text in ("one", "two", "three"):
        (tmp_path / "x").write_text(text)
        places.add(set_aside(tmp_path / "x"))
    assert sorted(path.read_text() for path in places) == ["one", "three", "two"]
    assert not (tmp_path / "x").exists()


@dataclass(frozen=True)
class Record:
    number: float
    words: tuple[str, ...] = ()


def test_a_kept_record_comes_back_or_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_kept(path, Record(0.25, ("ä", "b")))
    assert read_kept(path, Record) == Record(0.25, ("ä", "b"))
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x01
        path.write_bytes(changed)
        try:
            assert read_kept(path, Record) == Record(0.25, ("ä", "b"))  # white space of the JSON
        except (MiniGPTError, UnicodeDecodeError):
            continue


@pytest.mark.parametrize("at", [".", "work"])
@pytest.mark.parametrize("name", ["report.json", "model/config.json"])
def test_one_file_is_checked_by_the_sums_around_it(tmp_path: Path, name: str, at: str) -> None:
    for folder in ("model", "work"):
        (tmp_path / "build" / folder).mkdir(parents=True, exist_ok=True)
    root = tmp_path / "build"
    for kept_name in ("report.json", "model/config.json", "README.md"):
        (root / kept_name).write_text("{}")
    check_file(root / name)  # nothing has sealed it
    seal(root, names=["report.json", "model/config.json", "README.md"], at=root / at / SUMS)
    check_file(root / name)
    (root / "README.md").write_text("mine")
    check_file(root / "README.md")
    (root / name).write_text("{ }")
    with pytest.raises(MiniGPTError, match=f"{Path(name).name} is damaged: {name} is not what was written"):
        check_file(root / name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A record with fields of all kinds."""

    words: str
    number: float
    pairs: tuple[tuple[int, float], ...] = ()


def test_a_signed_record_is_plain_json_and_every_flip_in_it_is_noticed(tmp_path: Path) -> None:
    path, record = tmp_path / "r.json", Plain(words="Über", number=1, pairs=((1, 0.1), (2, 1e-30)))
    write_signed(path, record)
    whole = path.read_bytes()
    assert read_signed(path, Plain) == record and b'"number": 1,' in whole
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(bytes(flipped))
        try:
            assert read_signed(path, Plain) == record, f"byte {place}: {bytes(flipped)!r}"
        except MiniGPTError as error:
            assert "r.json" in str(error)
    path.write_text('{"words": "old", "number": 2}')
    assert read_signed(path, Plain) == Plain(words="old", number=2)
