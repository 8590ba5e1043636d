"""The statistics pass: golden values computed by hand from plain forward passes, one piece of text at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from minigpt.errors import CorpusError, MiniGPTError
from minigpt.transformer import stats
from minigpt.transformer.arch import arch_of, base_model, decoder_layers, shape_of
from minigpt.transformer.batches import (
    Batch,
    attention_mask,
    block_mask,
    run_decoder,
    split_rows,
    take_tokens,
    to_batches,
)
from minigpt.transformer.families import ArchSpec
from minigpt.transformer.fused import separate_projections
from tests.support.archsuite import DENSE, FAMILIES, model_of, random_batch


def pieces(batch: Batch) -> Iterator[torch.Tensor]:
    """Every piece of text in a batch, alone: int64 [1, n]."""
    for ids, segments in zip(batch.input_ids, batch.segment_ids, strict=True):
        for segment in sorted(set(segments.tolist()) - {0}):
            yield ids[segments == segment][None]


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_in_a_window_do_not_see_each_other(family: str) -> None:
    """The states of a packed window are those of its pieces read alone."""
    model, batch = model_of(family), random_batch()
    with torch.no_grad():
        packed = run_decoder(model, batch)[batch.segment_ids != 0]
        body = base_model(model)
        alone = torch.cat([body(input_ids=ids, use_cache=False).last_hidden_state[0] for ids in pieces(batch)])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text", "qwen2"])
def test_sliding_window_is_kept(family: str) -> None:
    """A window shorter than the text acts in our mask as in the model's own."""
    model = model_of(family)
    model.config.sliding_window = 4
    if family == "qwen2":
        model.config.layer_types = ["full_attention", "sliding_attention"] * 2
        model.model.has_sliding_layers = True
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 4 if getattr(layer.self_attn, "sliding_window", None) else None
    batch = random_batch(pad=0)
    with torch.no_grad():
        packed = run_decoder(model, batch)[batch.segment_ids != 0]
        alone = torch.cat([model.model(input_ids=ids, use_cache=False).last_hidden_state[0] for ids in pieces(batch)])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_block_mask_golden() -> None:
    """Two pieces and padding, written out."""
    mask = block_mask(torch.tensor([[1, 1, 2, 0]]), torch.bool)[0, 0]
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    added = block_mask(torch.tensor([[1, 1, 2, 0]]), torch.bfloat16)[0, 0]
    assert torch.equal(added == 0, mask) and bool(added.isfinite().all())
    narrow = block_mask(torch.ones(1, 3, dtype=torch.long), torch.bool, window=2)[0, 0]
    assert narrow.int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_masks_by_layer_kind() -> None:
    """Families with two kinds of layers get one mask for each."""
    masks = attention_mask(model_of("gemma2").config, torch.ones(1, 4, dtype=torch.long), torch.float32)
    assert isinstance(masks, dict) and set(masks) == {"full_attention", "sliding_attention"}


def reference(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Sums over pieces read alone, from the formulas of the papers, for layer 1."""
    with separate_projections(model):
        return reference_of(arch_of(model), model, batch)


def reference_of(spec: ArchSpec, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """The same for a model whose projections are all layers of their own."""
    layer, seen = decoder_layers(model)[1], {}

    def hook(path: str, keep: Any) -> Any:
        return layer.get_submodule(path).register_forward_hook(keep)

    handles = [
        hook(spec.ffn_rows[0], lambda m, a, o: seen.__setitem__("gate", o.view(-1, o.shape[-1]))),
        hook(spec.ffn_rows[-1], lambda m, a, o: seen.__setitem__("up", o.view(-1, o.shape[-1]))),
        hook(spec.output, lambda m, a, o: seen.__setitem__("o", a[0][0])),
    ]
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in ("gate", "up", "o", "hidden")}
    with torch.no_grad():
        for ids in pieces(batch):
            hidden = base_model(model)(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
            rows["hidden"].append(torch.stack(hidden[1:3])[:, 0])
            for name in ("gate", "up", "o"):
                rows[name].append(seen[name])
    for handle in handles:
        handle.remove()
    gate, up, o = (torch.cat(rows[name]) for name in ("gate", "up", "o"))
    before, after = torch.cat(rows["hidden"], dim=1)
    act = layer.get_submodule(spec.ffn_activation)(gate)
    inputs = act * up if len(spec.ffn_rows) == 2 else act
    heads = o.unflatten(1, (shape_of(model).kv_groups, -1))
    cosine = (before * after).sum(-1) / (before.norm(dim=-1) * after.norm(dim=-1))
    ends = [states[:, -1] for states in rows["hidden"]]
    angles = [math.acos(float(a @ b / (a.norm() * b.norm()))) / math.pi for a, b in ends]
    return {
        "gate_abs": gate.abs().mean(0),
        "up_abs": up.abs().mean(0),
        "act_abs": act.abs().mean(0),
        "ffn_abs": inputs.abs().mean(0),
        "ffn_sq": inputs.square().mean(0),
        "ffn_mean": inputs.mean(0),
        "head_abs": heads.abs().mean((0, 2)),
        "head_sq": heads.square().mean((0, 2)),
        "column_sq": o.square().mean(0),
        "column_mean": o.mean(0),
        "layer_cos": 1 - cosine.mean(),
        "angular": torch.tensor(angles).mean(),
    }


@pytest.mark.parametrize("family", DENSE)
def test_statistics_golden(family: str) -> None:
    """Every field of layer 1 equals its formula over the pieces read one by one, without padding."""
    model, batch = model_of(family), random_batch()
    collected, expected = stats.collect(model, [batch]), reference(model, batch)
    assert collected.tokens == 2 * 21 and collected.segments == 4
    for name, value in expected.items():
        actual = collected.angular[1, 2] if name == "angular" else getattr(collected, name)[1]
        torch.testing.assert_close(actual, value, rtol=2e-4, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_padding_and_batching_change_nothing() -> None:
    """The same text in one batch, in two, or with more padding gives the same means."""
    model, batch = model_of("llama"), random_batch()
    halves = [Batch(**{k: getattr(batch, k)[i : i + 1] for k in batch.__slots__}) for i in range(2)]
    padded = Batch(**{k: torch.nn.functional.pad(getattr(batch, k), (0, 9)) for k in batch.__slots__})
    whole = stats.collect(model, [batch])
    for other in (stats.collect(model, halves), stats.collect(model, [padded])):
        for name in ("ffn_sq", "act_abs", "head_sq", "layer_cos", "angular"):
            torch.testing.assert_close(getattr(other, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_last_state_is_before_the_final_norm() -> None:
    """The last row of `angular` must not see the final norm, whose weights turn the state."""
    model, batch = model_of("llama"), random_batch()
    before = stats.collect(model, [batch]).angular
    with torch.no_grad():
        model.model.norm.weight.uniform_(-3, 3)
    torch.testing.assert_close(stats.collect(model, [batch]).angular, before)
    assert before.shape == (5, 5) and bool((before.diagonal() == 0).all())
    torch.testing.assert_close(before, before.T)


def test_hooks_never_leak() -> None:
    """A pass that fails half-way leaves the model as it was."""
    model, batch = model_of("llama"), random_batch()
    broken = Batch(input_ids=batch.input_ids + 10_000, position_ids=batch.position_ids, segment_ids=batch.segment_ids)
    with pytest.raises(IndexError):
        stats.collect(model, [batch, broken])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.layers.modules())


def test_bfloat16_is_accumulated_in_fp32() -> None:
    """Means of a bf16 model are fp32 and close to the fp32 model's."""
    batch = random_batch(rows=4)
    exact = stats.collect(model_of("llama"), [batch])
    rough = stats.collect(model_of("llama").bfloat16(), [batch])
    assert rough.ffn_sq.dtype == torch.float32
    torch.testing.assert_close(rough.act_abs.mean(), exact.act_abs.mean(), rtol=0.05, atol=0.01)


def test_save_and_load(tmp_path: Any) -> None:
    """A round trip through safetensors keeps every bit; another file is refused in one sentence."""
    collected = stats.collect(model_of("llama"), [random_batch()])
    stats.save(collected, tmp_path / "stats.safetensors")
    again = stats.load(tmp_path / "stats.safetensors")
    assert again.tokens == collected.tokens and torch.equal(again.angular, collected.angular)
    (tmp_path / "other").write_bytes(b"no")
    for name in ("other", "missing"):
        with pytest.raises(MiniGPTError, match="not a statistics file"):
            stats.load(tmp_path / name)


def test_no_text_is_refused() -> None:
    """Only padding is no calibration."""
    batch = random_batch(pad=24)
    empty = Batch(**{**{k: getattr(batch, k) for k in batch.__slots__}, "segment_ids": batch.segment_ids * 0})
    with pytest.raises(CorpusError, match="no text"):
        stats.collect(model_of("llama"), [empty])


def test_token_counts() -> None:
    """Padding is not a token of the text."""
    batch = random_batch()
    counts = stats.token_counts([batch, batch], 512)
    ids = batch.input_ids[batch.segment_ids != 0].tolist()
    assert counts.sum() == 2 * 42 and counts[ids[0]] == 2 * ids.count(ids[0]) and counts[0] == 2 * ids.count(0)


def test_batches_are_cut_by_tokens() -> None:
    """No window is lost, shared padding columns go, and `take_tokens` stops at whole windows."""
    packed = random_batch(rows=5)
    batches = list(to_batches(packed, batch_tokens=48))
    assert [len(batch.input_ids) for batch in batches] == [2, 2, 1]
    assert all(batch.input_ids.shape[1] == 21 for batch in batches)
    assert sum(batch.tokens for batch in batches) == packed.tokens == 105
    assert [batch.tokens for batch in take_tokens(batches, 60)] == [42, 21]
    assert sum(batch.tokens for batch in take_tokens(batches, None)) == 105


def test_split_rows_keeps_every_window_in_order() -> None:
    """5 windows of 4 tokens in parts of 8: two, two, one; a window longer than the part is a part of its own."""
    ids = torch.arange(20).view(5, 4)
    batch = Batch(input_ids=ids, position_ids=ids + 100, segment_ids=ids + 200)
    parts = list(split_rows(batch, 8))
    assert [len(part.input_ids) for part in parts] == [2, 2, 1]
    assert len(list(split_rows(batch, 3))) == 5
    for name in ("input_ids", "position_ids", "segment_ids"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
