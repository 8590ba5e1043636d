"""Bad input of every kind ends in a result or in one sentence: never in a traceback, never in a hang."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from minigpt.assets.gguf import read_metadata
from minigpt.assets.parents import model_folder, weights_by_type
from minigpt.corpus.normalize import normalize
from minigpt.corpus.rows import read_rows
from minigpt.corpus.sources import read_source
from minigpt.domain.config import SourceConfig, read_domain
from minigpt.pipeline.recipe import read_recipe
from minigpt.pipeline.settings import PRESETS, settings_for
from minigpt.report import store
from tests.assets.test_gguf import metadata, write_gguf
from tests.support.fuzzing import INPUTS
from tests.support.tiny import tiny_model

CASES = int(os.environ.get("MINIGPT_FUZZ", "40"))

fuzz = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)

odd = st.sampled_from(
    [
        "nan",
        "inf",
        "-1",
        "0",
        "1e400",
        "9" * 5000,
        "[" * 3000,
        "2001-13-45",
        "null",
        "true",
        "{a: *b}",
        "\x00",
        "",
        "~",
        "!!x",
    ]
)
words = st.one_of(odd, st.text(max_size=30), st.floats().map(str), st.integers().map(str))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@pytest.fixture(scope="module", autouse=True)
def inputs() -> Iterator[None]:
    yield
    INPUTS.close()


written, ends_well = INPUTS.written, INPUTS.ends_well


def names(instance: Any, path: str = "") -> list[str]:
    """Dotted names of all settings."""
    result = []
    for item in fields(instance):
        value = getattr(instance, item.name)
        result += names(value, f"{path}{item.name}.") if is_dataclass(value) else [path + item.name]
    return result


@fuzz
@given(st.sampled_from(names(PRESETS["quick"])), words)
def test_settings(name: str, text: str) -> None:
    ends_well("settings", lambda: settings_for("quick", {name: text}))


KEYS = ("name", "corpus", "questions", "seeds", "overlap", "general", "prompts", "synonyms", "title", "root")
SOURCE = ("name", "file", "hub", "reader", "ref", "limit", "split", "columns", "where", "license")


@fuzz
@given(st.dictionaries(st.sampled_from(KEYS), values), st.dictionaries(st.sampled_from(SOURCE), values), words)
def test_domain_files(top: dict[str, Any], source: dict[str, Any], text: str) -> None:
    domain = {"name": "x", "corpus": [{"name": "a", "file": "b", **source}], **top}
    for content in (json.dumps(domain), f"name: x\ncorpus: [{{name: a, file: b}}]\ntitle: {text}\n"):
        ends_well(
            "domain files", lambda content=content: read_domain(written(content.encode("utf-8", "replace"), ".yaml"))
        )


@fuzz
@given(st.dictionaries(st.text(max_size=12), values, max_size=4), words)
def test_recipes(recipe: dict[str, Any], text: str) -> None:
    for content in (json.dumps({"domain": "x", **recipe}), f"domain: x\nsettings: {{heal.steps: {text}}}\n"):
        ends_well("recipes", lambda content=content: read_recipe(written(content.encode("utf-8", "replace"), ".yaml")))


@fuzz
@given(st.binary(max_size=200), st.dictionaries(st.text(max_size=8), values, max_size=3), st.text(max_size=200))
def test_json_lines(raw: bytes, row: dict[str, Any], text: str) -> None:
    source = SourceConfig(name="a", file="x.jsonl")
    for content in (raw, json.dumps({"text": text, **row}).encode(), json.dumps({"text": text, **row}).encode()[:-3]):
        path = written(content, ".jsonl")
        ends_well("JSON lines", lambda path=path: list(read_rows(path)))
        ends_well("JSON lines", lambda path=path: [d.text.encode() for d in read_source(source, root=path.parent)])


@fuzz
@given(st.text(alphabet=st.sampled_from(" \t\n\r\x0b\u2028\u200b\u00a0.a-|"), max_size=40), st.integers(1, 30_000))
def test_text_of_any_length_is_cleaned_in_linear_time(pattern: str, times: int) -> None:
    ends_well("long text", lambda: normalize(pattern * times))


@fuzz
@given(values)
def test_reports(value: Any) -> None:
    ends_well("reports", lambda: store.load(written(json.dumps(value).encode(), ".json")))


@pytest.fixture(scope="module")
def header() -> bytes:
    """A whole GGUF file."""
    return write_gguf(INPUTS.folder() / "whole.gguf", tiny_model(), metadata()).read_bytes()


@fuzz
@given(data=st.data())
def test_headers_of_gguf_files(header: bytes, data: st.DataObject) -> None:
    content = bytearray(header[: data.draw(st.sampled_from([len(header), 4000, 200, 24, 4]))])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, min(len(content), 6000) - 1))] = data.draw(st.integers(0, 255))
    ends_well("GGUF headers", lambda: read_metadata(written(bytes(content), ".gguf")))


@fuzz
@given(data=st.data())
def test_headers_of_safetensors_files_and_configs(data: st.DataObject) -> None:
    folder = INPUTS.folder()
    save_file({"a": torch.zeros(3, 2)}, folder / "model.safetensors")
    content = bytearray((folder / "model.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "model.safetensors").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    (folder / "config.json").write_text(json.dumps(data.draw(values)))
    ends_well("safetensors and configs", lambda: weights_by_type(folder))
    ends_well("safetensors and configs", lambda: model_folder(folder))
