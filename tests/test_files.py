"""Laws of the files that stages leave for each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt.errors import MiniGPTError
from minigpt.files import path_of, read_jsonl, write_jsonl


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
