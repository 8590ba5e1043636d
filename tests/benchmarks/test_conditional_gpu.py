"""The benchmark of whole models on a GPU: its decoder is Llama, its forms are right and read what they say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import conditional_gpu, gpu_forms
from benchmarks.gpu_decoder import Decoder, Layer, Sizes, model_of, random_model

SIZES = Sizes(layers=2, hidden=32, ffn=80, heads=4, kv_heads=2, vocab=61)
SMALL = ["--layers", "2", "--hidden", "32", "--ffn", "80", "--heads", "4", "--kv-heads", "2", "--vocab", "61"]
SHORT = ["--context", "5", "--steps", "3", "--repeats", "2", "--energy", "0.01"]
KINDS = ["dense", "fused", "threshold:1", "threshold:0.25", "relu:0.1", "topk:0.5", "trees:0.1", "free"]


def layer_and_tokens(count: int = 3) -> tuple[Layer, torch.Tensor]:
    torch.manual_seed(0)
    layer = random_model(SIZES, "cpu", torch.float32).layers[0]
    return layer, torch.randn(count, SIZES.hidden)


def run(options: list[str], target: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    monkeypatch.setattr(sys, "argv", ["conditional_gpu", "--json", str(target), *SMALL, *SHORT, *options])
    conditional_gpu.main()
    rows: list[dict[str, object]] = json.loads(target.read_text("utf-8"))["rows"]
    return rows


@torch.no_grad()
def test_steps_are_those_of_llama() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-5, max_position_embeddings=64,
    )  # fmt: skip
    llama, tokens = LlamaForCausalLM(config).eval(), torch.randint(61, (2, 7))
    for name, value in llama.named_parameters():
        if "norm" in name:
            value.copy_(1 + 0.1 * torch.randn(value.shape))
    decoder = Decoder(model_of(llama.state_dict(), SIZES), 2, 0, 8)
    ffns = [gpu_forms.dense(layer, tokens, 1.0) for layer in decoder.model.layers]
    expected = llama(tokens).logits
    for place in range(7):
        decoder.token.copy_(tokens[:, place])
        torch.testing.assert_close(decoder.step(ffns), expected[:, place], rtol=1e-4, atol=1e-5)
    assert torch.equal(decoder.token, expected[:, -1].argmax(-1))


@torch.no_grad()
def test_places_start_again_behind_the_context() -> None:
    torch.manual_seed(0)
    decoder = Decoder(random_model(SIZES, "cpu", torch.float32), 1, 4, 2)
    places = []
    for _ in range(5):
        places.append(int(decoder.position))
        decoder.step([torch.zeros_like] * 2)
    assert places == [4, 5, 4, 5, 4]
    decoder.restart()
    assert int(decoder.position) == 4 and torch.equal(decoder.token, decoder.first)


@torch.no_grad()
@pytest.mark.parametrize("form", KINDS)
def test_forms_are_right_and_visit_what_they_are_to(form: str) -> None:
    layer, x = layer_and_tokens()
    kind, _, share = form.partition(":")
    ffn = gpu_forms.FORMS[kind](layer, x, float(share or 1))
    assert gpu_forms.error_of(ffn, layer, x) < 1e-5
    visited, weights = gpu_forms.visits_of(ffn, layer, x)
    assert visited == pytest.approx(0.0 if kind == "free" else float(share or 1), abs=0.05)
    assert weights >= visited - 1e-9
    if form == "topk:0.5":
        assert 2 / 3 + 0.5 / 3 <= weights <= 1
    if form == "threshold:0.25":
        alone = gpu_forms.visits_of(ffn, layer, x[:1])[1]
        assert 1 / 3 < alone < weights < 1


@torch.no_grad()
def test_weights_are_shared_and_wrong_forms_are_refused() -> None:
    layer, x = layer_and_tokens()
    ffn = gpu_forms.threshold(layer, x, 0.5)
    assert ffn.w_out.data_ptr() == layer.rows.data_ptr()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="off by"):
        gpu_forms.error_of(lambda x: 1.1 * gpu_forms.gated(x, layer.gate, layer.up, layer.down), layer, x)
    with pytest.raises(ValueError, match="half"):
        gpu_forms.relu(layer, x, 0.6)


@torch.no_grad()
def test_a_gate_at_its_threshold_may_be_open_or_shut() -> None:
    layer, x = layer_and_tokens()
    meant = gpu_forms.threshold(layer, x, 0.25)
    border = meant.settings.t_act  # type: ignore[attr-defined]

    def moved(factor: float) -> gpu_forms.Ffn:
        settings = replace(meant.settings, t_act=factor * border)  # type: ignore[attr-defined]
        return gpu_forms.of_weights(settings, dict(meant.named_parameters()))  # type: ignore[attr-defined]

    # The border is the value of one gate, so that one of 60 open neurons more counts just below it.
    assert not torch.allclose(moved(0.999)(x), meant(x), rtol=1e-3)
    assert gpu_forms.error_of(moved(0.999), layer, x, meant) < 1e-5
    with pytest.raises(ValueError, match="off by"):
        gpu_forms.error_of(moved(0.8), layer, x, meant)


@torch.no_grad()
def test_rounding_at_a_threshold_is_no_error() -> None:
    """The plain layer in bf16, whose gates are rounded twice: in every other layer so small a gate changes sides."""

    def rounded(value: torch.Tensor) -> torch.Tensor:
        return value.bfloat16().double()

    moved = 0
    for seed in range(20):
        torch.manual_seed(seed)
        layer, x = random_model(SIZES, "cpu", torch.bfloat16).layers[0], torch.randn(4, SIZES.hidden).bfloat16()
        form = gpu_forms.threshold(layer, x, 0.25)
        gates = rounded(torch.nn.functional.silu(rounded(x.double() @ layer.gate.T.double())))
        open_ones = gates.where(gates.abs() > form.settings.t_act, 0)  # type: ignore[attr-defined]
        values = rounded(open_ones * rounded(x.double() @ layer.up.T.double()))
        right = gpu_forms.exact(form, layer, x)
        off = rounded(values @ layer.rows.double()) - right
        moved += float(off.norm() / right.norm()) > gpu_forms.LARGEST_ERROR
        assert gpu_forms.unexplained(off, form, x).norm() / right.norm() < gpu_forms.LARGEST_ERROR
    assert moved > 3


@torch.no_grad()
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_what_gates_at_a_threshold_explain_hides_no_error(share: float) -> None:
    torch.manual_seed(0)
    sizes = Sizes(layers=1, hidden=1024, ffn=4096, heads=4, kv_heads=2, vocab=61)
    layer, x = random_model(sizes, "cpu", torch.float32).layers[0], torch.randn(8, sizes.hidden)
    meant = gpu_forms.threshold(layer, x, share)
    assert gpu_forms.error_of(meant, layer, x) < 1e-5
    with pytest.raises(ValueError, match="off by"):
        gpu_forms.error_of(lambda x: 0.95 * meant(x), layer, x, meant)


def test_a_small_model_on_a_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(["--device", "cpu", "--tokens", "1", "--forms", *KINDS, "relu:0.9"], tmp_path / "out.json", monkeypatch)
    assert [row["form"] for row in rows] == KINDS
    assert all(row["speed"]["low"] > 0 and row["joules"] is None for row in rows)  # type: ignore[index]
    assert rows[0]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert rows[-1]["ratio_by_bytes"] > rows[3]["ratio_by_bytes"] > rows[2]["ratio_by_bytes"] == 1.0  # type: ignore[operator]
    printed = capsys.readouterr().out
    assert "relu:0.9         left out: ValueError" in printed
    assert printed.count("\n| ") == 1 + len(KINDS)


def test_unknown_forms_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("nothing", "topk:2"):
        with pytest.raises(SystemExit):
            run(["--forms", name], tmp_path / "out.json", monkeypatch)


@pytest.mark.gpu
def test_a_small_model_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    rows = run(["--device", "cuda", "--tokens", "1", "4", "--forms", *KINDS], tmp_path / "out.json", monkeypatch)
    assert [(row["tokens"], row["form"]) for row in rows] == [(tokens, form) for tokens in (1, 4) for form in KINDS]
