"""The fixed-shape form of a training step must compute what the plain one does, graphs or not."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from minigpt.heal.data import epochs, noisy, pad
from minigpt.heal.forward import logits_at
from minigpt.heal.fused import fused_kernels, has_fused_kernels
from minigpt.heal.graphs import Buffers, GraphedSteps, can_capture, causal_attention, weighted_loss
from minigpt.heal.losses import healing_loss
from minigpt.heal.recipe import Recipe
from minigpt.heal.teacher import Teacher
from tests.tiny import tiny_model

WINDOWS = [list(range(5, 25)), list(range(9, 40)), [1, 2, 3, 4, 5, 6, 7, 8, 9]]
CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["llama", "qwen3", "smollm3"])
@pytest.mark.parametrize("distill", [0.0, 0.3, 1.0])
def test_padding_with_weight_zero_equals_leaving_it_out(family: str, distill: float) -> None:
    model, teacher = tiny_model(family), Teacher(model=tiny_model(family, seed=1))
    batch, recipe = pad(WINDOWS, multiple=64), Recipe(distill=distill)
    buffers = Buffers.empty(5, 64, CPU)
    buffers.fill(batch)
    with causal_attention(model, teacher.model):
        fixed = weighted_loss(model, teacher, buffers, recipe)
    taught = teacher.logits(batch.ids, batch.places)
    plain = healing_loss(logits_at(model, batch.ids, batch.places), batch.labels, taught, distill, 1.0)
    torch.testing.assert_close(fixed, plain, rtol=1e-5, atol=1e-6)
    assert model.config._attn_implementation == "sdpa"


def test_a_buffer_forgets_the_batch_before() -> None:
    buffers = Buffers.empty(4, 64, CPU)
    buffers.fill(pad(WINDOWS, multiple=64))
    buffers.fill(pad([WINDOWS[2] + [7] * 40], multiple=64))
    assert int(buffers.weights.sum()) == 48
    assert not buffers.ids[1:].any()


def test_only_plain_causal_attention_is_captured() -> None:
    recipe, cuda = Recipe(window=128), torch.device("cuda")
    assert can_capture(tiny_model("llama"), recipe, cuda)
    assert not can_capture(tiny_model("llama"), recipe, CPU)
    assert not can_capture(tiny_model("gemma3_text"), recipe, cuda), "its sliding window of 64 is shorter than 128"
    assert not can_capture(tiny_model("llama"), Recipe(adapter="lora"), cuda)
    assert not can_capture(tiny_model("llama"), Recipe(precision="fp32"), cuda)


def test_batches_have_few_shapes() -> None:
    windows = [[1] * length for length in range(8, 200)]
    stream = epochs(windows, 512, 0, multiple=64)
    shapes = {next(stream).ids.shape[1] for _ in range(60)}
    assert shapes <= {64, 128, 192, 256}


def test_noise_replaces_a_share_and_depends_on_the_step_alone() -> None:
    windows = [[1, *range(10, 110)] for _ in range(20)]
    batches = [pad(windows) for _ in range(3)]
    first = list(noisy(iter(batches), 0.2, seed=3))
    again = list(noisy(iter(batches[2:]), 0.2, seed=3, step=2))
    assert torch.equal(first[2].ids, again[0].ids)
    assert not torch.equal(first[0].ids, first[1].ids)
    changed = (first[0].ids != batches[0].ids).float().mean()
    assert 0.1 < float(changed) < 0.25
    assert (first[0].ids[:, 0] == 1).all()
    assert (first[0].ids[:, 101:] == 0).all(), "padding stays padding"


@pytest.mark.gpu
def test_a_graph_gives_the_gradients_of_the_plain_step() -> None:
    model = tiny_model("llama").cuda()
    recipe = Recipe(tokens_per_step=64 * 5)
    parameters = list(model.parameters())
    batch = pad(WINDOWS, multiple=64)
    with causal_attention(model):
        steps = GraphedSteps(model, None, recipe, parameters)
        with causal_attention(steps.twin):
            steps.gradients(batch)
            found = [p.grad.clone() for p in parameters if p.grad is not None]
    model.zero_grad()
    ids, places = batch.ids.cuda(), batch.places.cuda()
    healing_loss(logits_at(model, ids, places), batch.labels.cuda(), None, 0.0, 1.0).backward()  # type: ignore[no-untyped-call]
    for ours, parameter in zip(found, parameters, strict=True):
        assert parameter.grad is not None
        cosine = torch.nn.functional.cosine_similarity(ours.flatten(), parameter.grad.flatten(), dim=0)
        assert float(cosine) > 0.99


def test_without_an_accelerator_nothing_is_fused() -> None:
    """On a CPU the block changes neither the model nor transformers' module."""
    import transformers.models.llama.modeling_llama as module

    model = tiny_model("llama")
    before = dict(vars(module))
    assert not has_fused_kernels(model)
    with fused_kernels(model):
        assert vars(module) == before


@pytest.mark.gpu
def test_fused_kernels_compute_the_same_and_leave_no_trace() -> None:
    """The gradients of a fused copy agree with the plain ones; the library's changes to the module are undone."""
    import transformers.models.llama.modeling_llama as module

    plain = tiny_model("llama").cuda()
    assert has_fused_kernels(plain), "the tests for accelerators need the gpu extra"
    fused, rotate = deepcopy(plain), module.apply_rotary_pos_emb
    batch = pad(WINDOWS, multiple=64)
    ids, places, labels = batch.ids.cuda(), batch.places.cuda(), batch.labels.cuda()
    with fused_kernels(fused):
        assert module.apply_rotary_pos_emb is not rotate
        healing_loss(logits_at(fused, ids, places), labels, None, 0.0, 1.0).backward()  # type: ignore[no-untyped-call]
    assert module.apply_rotary_pos_emb is rotate
    healing_loss(logits_at(plain, ids, places), labels, None, 0.0, 1.0).backward()  # type: ignore[no-untyped-call]
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
