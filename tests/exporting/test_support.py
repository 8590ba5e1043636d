"""The support matrix says what the program does: every cell is compared with the code that it speaks of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.errors import AssetError, ExportError, UnsupportedModel
from minigpt.exporting import onnx_genai
from minigpt.exporting.gguf_arch import family_of
from minigpt.exporting.gguf_families import FAMILIES as GGUF
from minigpt.exporting.onnx import sample_inputs, trace
from minigpt.exporting.support import COLUMNS, advice, matrix, working_formats
from minigpt.progress import SILENT
from minigpt.runtimes import gguf
from minigpt.transformer.arch import arch_of, legal_kv_groups, shape_of
from minigpt.transformer.families import ARCHITECTURES, UNDESCRIBED
from tests.support.archsuite import FAMILIES, STATES, model_of
from tests.support.tiny import tiny_config, tiny_tokenizer

ROWS = {row.family: row for row in matrix()}


def test_no_cell_is_silent() -> None:
    """Every family has every column, and what is not there has a sentence."""
    assert list(ROWS) == list(ARCHITECTURES)
    for row in ROWS.values():
        assert tuple(row.cells) == COLUMNS
        assert all(cell.state == "yes" or cell.note for cell in row.cells.values())
    assert not set(UNDESCRIBED) & set(ARCHITECTURES)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_gguf_are_what_the_code_does(family: str) -> None:
    """Heads can be cut if some number of groups below the parent's loads; GGUF refuses unknown families by name."""
    config, cells = tiny_config(family), ROWS[family].cells
    fewer = min(legal_kv_groups(config)) < shape_of(config).kv_groups
    assert cells["heads"].state == ("yes" if fewer else "refused")
    if cells["gguf"].state == "refused":
        with pytest.raises(ExportError, match=f"'{family}' have no GGUF writer"):
            family_of(config)


@pytest.mark.parametrize("family", GGUF)
def test_the_cell_says_whether_llama_cpp_has_to_be_there(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that PyTorch reads back need nothing else."""
    monkeypatch.setattr(gguf, "interpreter", lambda: None)
    if "gguf-runtime" in ROWS[family].cells["gguf"].note:
        with pytest.raises(AssetError, match=r"need llama\.cpp"):
            gguf.check_readable(tiny_config(family))
    else:
        gguf.check_readable(tiny_config(family))


@pytest.mark.parametrize("kind", UNDESCRIBED)
def test_reasons_are_given_by_the_refusal(kind: str) -> None:
    """A type of the second table is refused with its own reason."""
    with pytest.raises(UnsupportedModel) as refusal:
        arch_of(SimpleNamespace(model_type=kind))
    assert f"{kind!r} cannot be pruned: {UNDESCRIBED[kind]}." in str(refusal.value)


@pytest.mark.parametrize("family", ["phi", "opt", "gpt2", "gpt_neox", "phi3"])
def test_the_sample_of_a_trace_continues_a_cache(family: str) -> None:
    """The random cache has the shape that the family's layers fill."""
    model = model_of(family, layers=1)
    with torch.no_grad():
        assert model(**sample_inputs(model)).logits.shape == (2, 6, 512)


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, *STATES])
def test_onnx_is_what_the_exporter_does(family: str) -> None:
    """One layer of each family, or one of each kind, is traced or refused in one sentence."""
    model = model_of(family, layers=2 if family in STATES else 1)
    if ROWS[family].cells["onnx"].state == "yes":
        assert trace(model).graph.num_nodes() > 10
    else:
        with pytest.raises(ExportError, match="cannot trace"):
            trace(model)


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, *STATES])
def test_genai_is_what_the_builder_does(family: str, tmp_path: Path) -> None:
    """One layer of each family, or one of each kind, is written or refused in one sentence."""
    pytest.importorskip("onnxruntime_genai")
    source = tmp_path / "model"
    model_of(family, layers=2 if family in STATES else 1).save_pretrained(source)
    tiny_tokenizer().save_pretrained(source)
    request: Any = SimpleNamespace(source=SimpleNamespace(path=source), precision="fp32")
    (tmp_path / "out").mkdir()
    if ROWS[family].cells["onnx-genai"].state == "yes":
        assert onnx_genai.write(request, tmp_path / "out", SILENT).bytes_per_token > 0
    else:
        with pytest.raises(ExportError, match="builder cannot write this model"):
            onnx_genai.write(request, tmp_path / "out", SILENT)


@pytest.mark.parametrize(
    ("family", "changes", "formats"),
    [
        ("llama", {}, ("onnx", "onnx-genai", "gguf", "torch-4bit")),
        ("mistral", {"sliding_window": 64}, ("onnx", "onnx-genai", "gguf", "torch-4bit")),
        ("gemma3_text", {}, ("onnx", "gguf", "torch-4bit")),
        ("gpt_oss", {}, ("onnx", "gguf", "torch-4bit")),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, ("onnx", "onnx-genai", "torch-4bit")),
        ("mamba2", {}, ("gguf", "torch-4bit")),
        ("rwkv", {}, ("torch-4bit",)),
        ("gpt_neox", {}, ("onnx", "gguf", "torch-4bit")),
        ("opt", {}, ("onnx", "torch-4bit")),
    ],
)
def test_advice_names_only_formats_that_are_not_refused_for_the_same_model(
    family: str, changes: dict[str, object], formats: tuple[str, ...]
) -> None:
    config = tiny_config(family, layers=2)
    for name, value in changes.items():
        setattr(config, name, value)
    assert working_formats(config, tiny_tokenizer()) == formats
    for failed in formats:
        assert failed not in advice(config, tiny_tokenizer(), but=failed).strip(".").split()


def test_advice_leaves_gguf_out_where_llama_cpp_cannot_read_the_tokenizer() -> None:
    assert "gguf" not in working_formats(tiny_config("llama"), SimpleNamespace())
