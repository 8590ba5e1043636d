"""Sliding windows in ONNX graphs: masks hide what no window reaches, so texts beyond the window give torch's logits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minigpt.exporting.onnx import drop_trace_notes, rename_values, sample_inputs, save_graph, trace
from tests.support.tiny import UNUSUAL, tiny_model, tiny_tokenizer

# The window, and a text that is five times as long.
WINDOW, LENGTH = 8, 40
# Layers that are chosen to have windows, where a family lets a config choose.
_CHOSEN = {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}
# Families that have windows, and those that may have them.
WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {},
    "ministral": {},
    "gemma2": {},
    "gemma3_text": {},
    "olmo3": {},
    "exaone4": {},
    "cohere2": {},
    "phi3": {},
    "starcoder2": {},
    "gpt_oss": {},
    "qwen2": _CHOSEN,
    "qwen3": _CHOSEN,
}


def windowed(family: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return two layers of a family whose windows are shorter than the text."""
    fields = UNUSUAL.get(family, {}) | WINDOWED[family] | {"sliding_window": WINDOW}
    monkeypatch.setitem(UNUSUAL, family, fields)
    return tiny_model(family, layers=2)


def without_window(model: Any) -> Any:
    """Return the same weights, with a window that is longer than any text here."""
    config = type(model.config)(**model.config.to_dict() | {"sliding_window": 10 * LENGTH})
    config._attn_implementation = model.config._attn_implementation
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    return other


def torch_logits(model: Any, ids: Any) -> Any:
    """Return the logits of one text, read at once."""
    with torch.no_grad():
        return model(torch.as_tensor(ids)[None], use_cache=False).logits[0].numpy()


@pytest.mark.parametrize("family", WINDOWED)
def test_a_cache_of_all_tokens_gives_what_the_window_gives(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache that graphs are traced with keeps all tokens, and masks alone implement the window."""
    model = windowed(family, monkeypatch)
    cache = sample_inputs(model)["past_key_values"]
    assert not any(cache.is_sliding)
    ids = np.random.default_rng(0).integers(3, 500, LENGTH)
    expected = torch_logits(model, ids)
    assert np.abs(torch_logits(without_window(model), ids) - expected).max() > 0.1
    fresh = type(cache)()
    with torch.no_grad():
        parts = [
            model(torch.as_tensor(part)[None], past_key_values=fresh, use_cache=True).logits[0].numpy()
            for part in (ids[:25], ids[25:])
        ]
    assert fresh.layers[0].keys.shape[2] == LENGTH
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", WINDOWED)
def test_graphs_give_torchs_logits_beyond_the_window(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefill of a padded batch and steps in ONNX Runtime, on texts of five windows."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from minigpt.runtimes.onnx import OnnxRuntime

    model = windowed(family, monkeypatch)
    graph = trace(model)
    rename_values(graph)
    drop_trace_notes(graph)
    save_graph(graph, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    record: Any = SimpleNamespace(format="onnx", precision="fp32", bytes=1, source=SimpleNamespace(parameters=1))
    runtime = OnnxRuntime(session, tiny_tokenizer(), model.config, record=record)
    ids = np.random.default_rng(0).integers(3, 500, (3, LENGTH))
    mask = np.ones_like(ids)
    mask[1, :3] = mask[2, :20] = 0
    for row, keep, logits in zip(ids, mask.astype(bool), runtime.logits(ids, mask), strict=True):
        np.testing.assert_allclose(logits[keep], torch_logits(model, row[keep]), atol=1e-4)
    steps = np.stack([runtime.begin(ids[0, :7].tolist()), *(runtime.step(token) for token in ids[0, 7:].tolist())])
    np.testing.assert_allclose(steps, torch_logits(model, ids[0])[6:], atol=1e-4)
