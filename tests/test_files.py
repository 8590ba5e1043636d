"""Laws of the files that stages leave for each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.errors import MiniGPTError
from minigpt.files import atomic_path, link, path_of, read_jsonl, sweep, write_jsonl


@pytest.mark.parametrize("strange", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n", "\r\n"])
def test_a_line_ends_at_a_line_feed_only(tmp_path: Path, strange: str) -> None:
    """Text holds characters that Unicode calls line ends; a model writes them, too."""
    rows = [{"text": f"before{strange}after"}, {"text": strange}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_files_with_other_line_ends_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "a"}\r\n\r\n{"text": "b"}\r\n')
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"text": "a"}, {"text": "b"}]


def test_paths_that_no_system_has_are_paths_that_do_not_exist_or_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert path_of("~/runs") == Path("/home/someone/runs")
    assert path_of("~no such user/runs") == Path("~no such user/runs")
    assert not path_of("a\0b").exists()
    with pytest.raises(MiniGPTError, match="too long for the name of a file"):
        path_of("runs/" + "ü" * 128)
    assert path_of("runs/" + "ü" * 127).name == "ü" * 127


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_folder_that_was_being_replaced_when_the_process_was_killed_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.mkdir()
    (path / "old").write_text("old")
    program = f"""
import os, signal
from pathlib import Path
from minigpt import files
replace = os.replace
def once(source, target):
    replace(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = once
with files.atomic_path(Path({str(path)!r})) as temporary:
    temporary.mkdir()
"""
    process = subprocess.run([sys.executable, "-c", program], check=False)
    assert process.returncode == -signal.SIGKILL and not path.exists()
    sweep(path)
    assert (path / "old").read_text() == "old" and os.listdir(tmp_path) == ["kept"]


def test_a_replaced_folder_that_cannot_go_back_at_once_is_kept_for_sweeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "kept", os.replace
    path.mkdir()
    (path / "old").write_text("old")

    def only_away(source: Path, target: Path) -> None:
        if target == path:
            raise OSError(5, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(MiniGPTError, match="Input/output error"):
        patch.setattr(os, "replace", only_away)
        with atomic_path(path) as temporary:
            temporary.mkdir()
    sweep(path)
    assert (path / "old").read_text() == "old"


def test_the_newest_of_several_replaced_folders_comes_back_and_none_replaces_what_is_there(tmp_path: Path) -> None:
    for time, name in enumerate((".kept.bbbbbbbb", ".kept.aaaaaaaa", ".kept.cccccccc")):
        (tmp_path / name / ".replaced").mkdir(parents=True)
        (tmp_path / name / ".replaced" / "text").write_text(name)
        os.utime(tmp_path / name, (time, time))
    sweep(tmp_path / "kept")
    assert (tmp_path / "kept" / "text").read_text() == ".kept.cccccccc"
    (tmp_path / ".kept.dddddddd" / ".replaced").mkdir(parents=True)
    sweep(tmp_path / "kept")
    assert (tmp_path / "kept" / "text").exists() and os.listdir(tmp_path) == ["kept"]


def test_sweeping_leaves_the_temporaries_of_other_names_alone(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.b") as temporary:
        temporary.write_text("live")
        (tmp_path / ".a.settings.d").mkdir()
        sweep(tmp_path / "a")
        assert temporary.exists() and (tmp_path / ".a.settings.d").exists()
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("left")
        sweep(tmp_path / "a")
        assert not temporary.exists()
        temporary.parent.mkdir()
        temporary.write_text("right")


def test_a_link_to_a_symbolic_link_is_one_to_its_file(tmp_path: Path) -> None:
    """Folders of the Hub's cache hold relative symbolic links, which lead nowhere from another folder."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "blobs" / "x").write_text("text")
    (tmp_path / "here" / "x").symlink_to(Path("..") / "blobs" / "x")
    (tmp_path / "there" / "deeper").mkdir(parents=True)
    link(str(tmp_path / "here" / "x"), str(tmp_path / "there" / "deeper" / "x"))
    assert (tmp_path / "there" / "deeper" / "x").read_text() == "text"
