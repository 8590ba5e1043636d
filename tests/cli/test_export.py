"""`minigpt export`: what its help lists, and the options that a format does not read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.commands import run

pytestmark = pytest.mark.usefixtures("home")


def test_export_lists_the_precisions_of_each_format() -> None:
    from minigpt.exporting.formats import EXPORTERS

    shown = run("export", "--help").stdout
    assert "see below" in shown
    for name, row in EXPORTERS.items():
        assert re.search(rf"\n +{name} +{', '.join(row.precisions)}\n", shown)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("draft", "--quality-bytes", "65536"),
        ("lm-eval", "--quality-bytes", "9"),
        ("lm-eval", "--device", "auto"),
        ("onnx", "--limit", "3"),
        ("onnx-genai", "--limit", "3"),
        ("gguf", "--limit", "3"),
        ("torch-4bit", "--limit", "3"),
    ],
)
def test_options_that_a_format_does_not_read_are_refused(kind: str, option: str, value: str, tmp_path: Path) -> None:
    refused = run("export", "/nope", "--format", kind, "--output-dir", str(tmp_path / "out"), option, value)
    assert refused.exit_code == 1
    assert f"{kind} does not read {option}; leave {option} {value} out." in refused.stderr


def test_the_door_refuses_them_too(tmp_path: Path) -> None:
    import minigpt
    from minigpt.errors import ConfigError

    for kind, options in (("draft", {"quality_bytes": 9}), ("lm-eval", {"device": "cuda"}), ("gguf", {"limit": 1})):
        with pytest.raises(ConfigError, match=f"{kind} does not read"):
            minigpt.export("/nope", tmp_path / "out", format=kind, **options)  # type: ignore[arg-type]
