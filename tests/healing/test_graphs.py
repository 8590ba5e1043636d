"""The fixed-shape form of a training step must compute what the plain one does, graphs or not."""

from __future__ import annotations

from copy import deepcopy
from itertools import islice
from typing import Any

import pytest
import torch

from minigpt.healing import attention, graphs
from minigpt.healing.attention import causal_attention, packed_attention
from minigpt.healing.buffers import Buffers
from minigpt.healing.data import PaddedBatch, TokenText, epochs, max_packed_windows, pad, with_noise
from minigpt.healing.fused import compiled_layers, fused_kernels, has_fused_kernels
from minigpt.healing.graphs import GraphedSteps, accumulate_gradients, can_capture
from minigpt.healing.losses import healing_gradient
from minigpt.healing.recipe import Recipe
from minigpt.healing.teacher import Teacher
from minigpt.progress import SILENT
from minigpt.transformer.arch import decoder_layers
from minigpt.transformer.logits import logits_at
from tests.support.healing import Notes
from tests.support.packed import by_mask, on_a_cpu
from tests.support.tiny import tiny_model

WINDOWS = [list(range(5, 25)), list(range(9, 40)), [1, 2, 3, 4, 5, 6, 7, 8, 9]]
CPU = torch.device("cpu")


def plain(model: Any, batch: PaddedBatch, taught: torch.Tensor | None = None, distill: float = 0.0) -> None:
    """Compute the gradients of a padded batch, as a run without a graph does."""
    device = next(model.parameters()).device
    logits = logits_at(model, batch.places.to(device), input_ids=batch.ids.to(device))
    logits.backward(healing_gradient(logits, batch.labels.to(device), taught, distill, 1.0))


@pytest.mark.parametrize("family", ["llama", "qwen3", "smollm3"])
@pytest.mark.parametrize("distill", [0.0, 0.3, 1.0])
def test_windows_behind_each_other_equal_windows_apart(
    family: str, distill: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "packed_attention", by_mask)
    model, teacher = tiny_model(family), Teacher(model=tiny_model(family, seed=1))
    batch, recipe = pad(WINDOWS), Recipe(distill=distill)
    buffers = Buffers.empty(100, 32, 3, CPU)
    buffers.fill(batch)
    with causal_attention(model, teacher.model):
        accumulate_gradients(model, teacher, buffers, recipe)
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    taught = teacher.logits(batch.ids, batch.places)
    plain(model, batch, taught, distill)
    for actual, parameter in zip(gradients, model.parameters(), strict=True):
        assert actual is not None and actual.any()
        torch.testing.assert_close(actual, parameter.grad, rtol=1e-4, atol=1e-7)
    assert model.config._attn_implementation == "sdpa"


def test_rows_that_are_padded_attend_as_ever() -> None:
    model, batch = tiny_model("llama"), pad(WINDOWS)
    before = logits_at(model, batch.places, input_ids=batch.ids)
    with causal_attention(model):
        torch.testing.assert_close(logits_at(model, batch.places, input_ids=batch.ids), before, rtol=1e-5, atol=1e-6)


def test_a_buffer_forgets_the_batch_before_and_no_piece_of_it_is_longer_than_a_window() -> None:
    buffers = Buffers.empty(100, 32, 3, CPU)
    buffers.fill(pad(WINDOWS))
    assert buffers.packing.starts[:6].tolist() == [0, 20, 51, 60, 92, 100]
    assert (buffers.packing.starts[5:] == 100).all() and int(buffers.weights.sum()) == 60 - 3
    buffers.fill(pad([WINDOWS[2]]))
    assert buffers.packing.starts[:5].tolist() == [0, 9, 41, 73, 100]
    assert int(buffers.weights.sum()) == 8 and not buffers.ids[0, 9:].any()
    assert buffers.packing.positions[0, :12].tolist() == [*range(9), 0, 1, 2]
    assert int(buffers.packing.starts.diff().max()) <= 32 and int(buffers.packing.positions.max()) < 32


@pytest.mark.parametrize("windows", [[[1] * 33], [[1] * 30] * 4, [[1] * 8] * 10, [[1] * 10] * 7])
def test_a_batch_that_the_kernel_would_cut_off_is_refused(windows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at most 100 tokens in windows of at most 32"):
        Buffers.empty(100, 32, 3, CPU).fill(pad(windows))


def test_a_buffer_takes_a_batch_that_fills_it() -> None:
    buffers = Buffers.empty(64, 32, 2, CPU)
    buffers.fill(pad([[3] * 32, [4] * 32]))
    assert buffers.packing.starts[:4].tolist() == [0, 32, 64, 64] and int(buffers.weights.sum()) == 62


def test_only_plain_causal_attention_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "has_packed_attention", lambda head, _device: head % 8 == 0)
    recipe, cuda = Recipe(window=128), torch.device("cuda")
    assert can_capture(tiny_model("llama"), recipe, cuda)
    assert not can_capture(tiny_model("llama"), recipe, CPU)
    assert not can_capture(tiny_model("gemma3_text"), recipe, cuda), "its sliding window of 64 is shorter than 128"
    assert not can_capture(tiny_model("llama"), Recipe(adapter="lora"), cuda)
    assert not can_capture(tiny_model("llama"), Recipe(precision="fp32"), cuda)


def test_packed_batches_waste_little_and_lose_no_window() -> None:
    windows = [[1, *range(length)] for length in range(8, 200)]
    stream = epochs(windows, 1024, 0, packed=True)
    seen: list[int] = []
    sizes = []
    while len(seen) < len(windows):
        batch = next(stream)
        seen += batch.lengths.tolist()
        sizes.append(int(batch.lengths.sum()))
    assert sorted(seen) == sorted(len(window) for window in windows)
    assert max(sizes) <= 1024 and sum(sizes) / len(sizes) > 0.9 * 1024


@pytest.mark.parametrize("lengths", [[9], [32], [9, 9, 9, 500], [9, 300]])
def test_attention_has_room_for_the_windows_that_come_and_little_more(lengths: list[int]) -> None:
    """Every place costs time; a text of short and long windows fills its batches all the same."""
    windows = [[1] * lengths[place % len(lengths)] for place in range(4000)]
    most = max_packed_windows(4096, windows)
    average = 4096 * len(windows) / sum(map(len, windows))
    assert average < most <= 1.5 * average + 9
    buffers, sizes = Buffers.empty(4096, 512, most, CPU), []
    for batch in islice(epochs(windows, 4096, 0, packed=True), 30):
        assert len(batch.lengths) <= most
        buffers.fill(batch)
        sizes.append(int(batch.lengths.sum()))
    assert sum(sizes) > 0.95 * len(sizes) * 4096


def test_a_step_expects_the_text_it_is_told_of() -> None:
    model = tiny_model("llama")
    steps = GraphedSteps(model, None, Recipe(tokens_per_step=100, window=32), list(model.parameters()))
    text = TokenText(windows=tuple(tuple(window) for window in WINDOWS), bytes=100)
    steps.make_room(text, SILENT)
    assert len(steps.buffers.packing.starts) == max_packed_windows(100, WINDOWS) + 4 + 1
    steps.buffers.fill(pad(WINDOWS))


def test_noise_replaces_a_share_and_depends_on_the_step_alone() -> None:
    windows = [[1, *range(10, 110)] for _ in range(20)]
    batches = [pad(windows) for _ in range(3)]
    first = list(with_noise(iter(batches), 0.2, seed=3))
    again = list(with_noise(iter(batches[2:]), 0.2, seed=3, step=2))
    assert torch.equal(first[2].ids, again[0].ids)
    assert not torch.equal(first[0].ids, first[1].ids)
    changed = (first[0].ids != batches[0].ids).float().mean()
    assert 0.1 < float(changed) < 0.25
    assert (first[0].ids[:, 0] == 1).all()
    assert (first[0].ids[:, 101:] == 0).all(), "padding stays padding"


def steps_agree(model: Any, tolerance: float, *, compiled: bool = False) -> None:
    """Compare the gradients of one batch after the other, with evaluations between, with those of plain steps."""
    model.get_input_embeddings().unused = torch.nn.Parameter(torch.ones(3, device=model.device))
    parameters = list(model.parameters())
    with causal_attention(model):
        steps = GraphedSteps(model, None, Recipe(tokens_per_step=100, window=32), parameters, compiled=compiled)
        with causal_attention(steps.twin):
            for windows in (WINDOWS, WINDOWS[:1], WINDOWS[1:]):
                batch, other = pad(windows), deepcopy(model)
                steps.gradients(batch)
                gradients = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
                assert steps.refreshed_twin() is steps.twin and steps.compiled is compiled
                other.zero_grad()
                plain(other, batch)
                assert len(gradients) == len(parameters)
                for actual, parameter in zip(gradients, other.parameters(), strict=True):
                    expected = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                    gap = (actual - expected).norm() / expected.norm().clamp_min(1e-12)
                    assert float(gap) < tolerance or not (actual.any() or expected.any())


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_leaves_nothing_of_the_one_before(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where a step stands in for its capture; a parameter without gradient keeps a gradient of zero."""
    on_a_cpu(monkeypatch)
    model = tiny_model("llama")
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    steps_agree(model, 0.15)


def test_layers_that_do_not_compile_are_run_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a note, and with the gradients of the plain step."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler")

    on_a_cpu(monkeypatch)
    monkeypatch.setattr(torch, "compile", lambda _function, **_: broken)
    model, notes = tiny_model("llama"), Notes()
    steps = GraphedSteps(model, None, Recipe(tokens_per_step=100, window=32), list(model.parameters()), compiled=True)
    steps.make_room(TokenText(windows=tuple(map(tuple, WINDOWS)), bytes=100), notes)
    batch, other = pad(WINDOWS), deepcopy(model)
    with causal_attention(model, steps.twin):
        steps.gradients(batch)
    plain(other, batch)
    assert not steps.compiled and "do not compile (RuntimeError)" in notes.notes[0]
    for parameter, reference in zip(model.parameters(), other.parameters(), strict=True):
        assert float((parameter.grad - reference.grad).norm() / reference.grad.norm().clamp_min(1e-12)) < 0.15


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_a_graph_gives_the_gradients_of_the_plain_step(compiled: bool) -> None:
    """Compiled, that takes Triton and a C compiler."""
    steps_agree(tiny_model("llama").cuda(), 0.15, compiled=compiled)


@pytest.mark.gpu
@pytest.mark.parametrize("heads", [(6, 2), (9, 3), (4, 1), (4, 4)])
def test_the_kernel_attends_within_windows(heads: tuple[int, int]) -> None:
    starts = torch.tensor([0, 20, 51, 51, 60, 92, 100, 100, 100], dtype=torch.int32, device="cuda")
    shape = {"device": "cuda", "dtype": torch.bfloat16}
    sizes = (heads[0], heads[1], heads[1])
    query, key, value = (torch.randn(1, size, 100, 64, **shape, requires_grad=True) for size in sizes)
    outs = [attend(query, key, value, starts, 32, 0.2) for attend in (packed_attention, by_mask)]
    torch.testing.assert_close(outs[0], outs[1], rtol=2e-2, atol=2e-2)
    actual, expected = (torch.autograd.grad(out.float().square().sum(), (query, key, value)) for out in outs)
    for one, other in zip(actual, expected, strict=True):
        cosine = torch.nn.functional.cosine_similarity(one.flatten().float(), other.flatten().float(), dim=0)
        assert float(cosine) > 0.999


def test_without_an_accelerator_nothing_is_fused() -> None:
    """On a CPU the block changes neither the model nor transformers' module."""
    import transformers.models.llama.modeling_llama as module

    model = tiny_model("llama")
    before = dict(vars(module))
    assert not has_fused_kernels(model)
    with fused_kernels(model):
        assert vars(module) == before


def test_compiled_layers_compute_the_same_and_are_plain_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced without a compiler, which not every machine that runs these tests has; layers alike share a trace."""
    from functools import partial

    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model = tiny_model("llama")
    batch, wrapped = pad(WINDOWS), deepcopy(model)
    plain(model, batch)
    with compiled_layers(wrapped) as compiled:
        assert all("forward" in vars(layer) for layer in decoder_layers(wrapped))
        counters.clear()
        plain(wrapped, batch)
        assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
        torch.testing.assert_close(compiled(torch.exp)(torch.ones(2)), torch.ones(2).exp())
    assert not any("forward" in vars(layer) for layer in decoder_layers(wrapped))
    for parameter, reference in zip(wrapped.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-4, atol=1e-7)


def test_tracebacks_of_kernels_that_the_compiler_cannot_read_stay_out_of_the_log() -> None:
    """What its reader of kernels warns of is dropped inside the block alone; other warnings are not."""
    import logging

    from torch._higher_order_ops import triton_kernel_wrap

    logger, lines = triton_kernel_wrap.log, list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]

    def warn(words: str, path: str) -> None:
        logger.handle(logging.LogRecord(logger.name, logging.WARNING, path, 1, words, (), None))

    logger.addHandler(handler)
    try:
        with compiled_layers(tiny_model("llama")):
            warn("kernel", triton_kernel_wrap.__file__)
            warn("recompiled", torch._dynamo.__file__)
        warn("later", triton_kernel_wrap.__file__)
    finally:
        logger.removeHandler(handler)
    assert lines == ["recompiled", "later"]


@pytest.mark.gpu
def test_fused_kernels_compute_the_same_and_leave_no_trace() -> None:
    """The gradients of a fused copy agree with the plain ones; the library's changes to the module are undone."""
    import transformers.models.llama.modeling_llama as module

    model = tiny_model("llama").cuda()
    assert has_fused_kernels(model), "the tests for accelerators need the gpu extra"
    fused, rotate = deepcopy(model), module.apply_rotary_pos_emb
    batch = pad(WINDOWS)
    with fused_kernels(fused):
        assert module.apply_rotary_pos_emb is not rotate
        plain(fused, batch)
    assert module.apply_rotary_pos_emb is rotate
    plain(model, batch)
    for parameter, reference in zip(fused.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-3, atol=1e-5)
