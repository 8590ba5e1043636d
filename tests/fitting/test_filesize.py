"""Predicted bytes against files that were written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt import assets
from minigpt.assets import Parent
from minigpt.errors import UnknownName
from minigpt.exporting import ExportRequest
from minigpt.exporting.run import write_unproved
from minigpt.fitting.engines import ENGINES, engine_named
from minigpt.fitting.filesize import FileSizes, file_sizes
from minigpt.fitting.rehearse import cut_anyhow
from minigpt.transformer.arch import shape_of
from minigpt.types import Shape
from tests.support.tiny import tiny_tokenizer

# Wide enough that weights are most of a file, as they are in every real one.
HIDDEN, ROWS = 256, 2048


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Parent]:
    """A parent with a tied embedding and one with a head of its own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    parents_by_tie = {}
    for tied in (True, False):
        config: Any = AutoConfig.for_model(
            "llama", vocab_size=512, hidden_size=HIDDEN, intermediate_size=ROWS, num_hidden_layers=4,
            num_attention_heads=8, num_key_value_heads=2, head_dim=32, max_position_embeddings=256,
            tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("parent")
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        parents_by_tie[tied] = Parent(path=folder, ref="tiny", precision="bf16", fingerprint=f"tiny-{tied}")
    return parents_by_tie


def sizes_of(parent: Parent) -> FileSizes:
    from transformers import AutoConfig

    return file_sizes(AutoConfig.from_pretrained(parent.path), assets.load_tokenizer(parent.path))


def smaller(whole: Shape) -> Shape:
    return replace(whole, layers=3, intermediate_size=1024, kv_groups=1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("runtime", "precision"),
    [("llama.cpp", "fp16"), ("llama.cpp", "int8"), ("llama.cpp", "int4"), ("torch", "bf16")],
)
def test_predicts_files_within_a_percent(
    runtime: str, precision: str, tied: bool, parents: dict[bool, Parent], tmp_path: Path
):
    parent, engine = parents[tied], engine_named(runtime)
    sizes = sizes_of(parent)
    for shape in (sizes.whole, smaller(sizes.whole)):
        source = cut_anyhow(parent, shape, tmp_path / f"{shape.layers}")
        assert shape_of(assets.load_model(source.path)) == shape
        if kind := engine.formats[precision]:
            target = tmp_path / f"{shape.layers}-{kind}"
            written = write_unproved(ExportRequest(source=source, format=kind, output_dir=target, precision=precision))
            actual = written.bytes
        else:
            actual = (source.path / "model.safetensors").stat().st_size
        assert sizes.parts(shape, engine.layouts[precision]).total == pytest.approx(actual, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("runtime", "precision"),
    [("onnx", "fp32"), ("onnx", "int8"), ("onnx", "int4"), ("onnx-genai", "fp32"), ("onnx-genai", "int4")],
)
def test_predicts_graphs_within_three_percent(
    runtime: str, precision: str, tied: bool, parents: dict[bool, Parent], tmp_path: Path
):
    pytest.importorskip("onnxruntime_genai")
    parent, engine = parents[tied], engine_named(runtime)
    sizes = sizes_of(parent)
    shape = smaller(sizes.whole)
    source = cut_anyhow(parent, shape, tmp_path / "cut")
    request = ExportRequest(
        source=source, format=engine.formats[precision], output_dir=tmp_path / "export", precision=precision
    )
    assert sizes.parts(shape, engine.layouts[precision]).total == pytest.approx(write_unproved(request).bytes, rel=0.03)


def test_the_tokenizer_takes_its_place_in_a_gguf_file(parents: dict[bool, Parent]):
    sizes, layout = sizes_of(parents[True]), engine_named("llama.cpp").layouts["int4"]
    whole = sizes.whole
    half = replace(whole, vocab_size=256)
    plain = replace(layout, tokens=False)
    spelled = sizes.parts(whole, layout).other - sizes.parts(half, layout).other
    weights = sizes.parts(whole, plain).other - sizes.parts(half, plain).other
    assert (
        weights == 0 and 256 * 13 <= spelled <= 256 * 60
    )  # a token: its text and length, its kind, and mostly a merge


def test_every_precision_has_a_layout_and_a_known_runtime():
    for engine in ENGINES.values():
        assert engine.layouts.keys() == engine.formats.keys() and set(engine.timed) <= engine.layouts.keys()
    with pytest.raises(UnknownName, match="llama"):
        engine_named("llama")
