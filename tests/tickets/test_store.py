"""Compressed tickets are read back bit by bit, and take the bytes that the formulas give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from minigpt.errors import MiniGPTError
from minigpt.tickets.masks import Pattern, apply_masks, keep_best, magnitudes, prunable, weights_of
from minigpt.tickets.sparse import FORMS, packed, smallest_form, stored_bytes, unpacked
from minigpt.tickets.store import FILE, load_ticket, load_weights, save_ticket
from tests.support.tiny import tiny_model


def sparse(rows: int, columns: int, share: float, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    return weight * (torch.rand(rows, columns, generator=generator) < share)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(0, 1),
    st.integers(0, 9),
    st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_every_form_that_fits_reads_back_exactly(
    rows: int, groups: int, share: float, seed: int, dtype: torch.dtype
) -> None:
    weight = sparse(rows, 4 * groups, share, seed, dtype) + 0.0
    for name, form in FORMS.items():
        if form.fits(weight):
            back = form.decode(form.encode(weight), weight.shape)
            assert back.dtype == weight.dtype and torch.equal(back.view(torch.uint8), weight.view(torch.uint8)), name


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_mask_takes_a_bit_a_weight(flags: list[bool]) -> None:
    mask = torch.tensor(flags)
    bits = packed(mask)
    assert len(bits) == -(-len(flags) // 8)
    assert torch.equal(unpacked(bits, mask.shape), mask)


def test_the_bytes_are_those_of_the_formulas() -> None:
    weight = sparse(64, 128, 0.3)
    kept, size = int((weight != 0).sum()), 64 * 128
    assert stored_bytes(weight, "dense") == 2 * size
    assert stored_bytes(weight, "bitmap") == 2 * kept + size // 8
    assert stored_bytes(weight, "index") == 4 * kept + 4 * 64
    pairs = weight * 0
    pairs[:, ::2] = 1
    assert stored_bytes(pairs, "2:4") == size + size // 8


def test_the_smallest_form_follows_the_density() -> None:
    assert smallest_form(sparse(64, 128, 1.0) + 1e-3) == "dense"
    assert smallest_form(sparse(64, 128, 0.3)) == "bitmap"
    assert smallest_form(sparse(64, 2048, 0.01)) == "index"
    assert not FORMS["2:4"].fits(sparse(64, 128, 0.9))


@pytest.mark.parametrize("pattern", ["global", "2:4"])
@pytest.mark.parametrize(
    ("family", "tied"), [("llama", True), ("llama", False), ("mixtral", False), ("gpt_oss", False), ("lfm2", True)]
)
def test_a_ticket_loads_as_the_same_model(tmp_path: Path, pattern: str, family: str, tied: bool) -> None:
    model = tiny_model(family, tied=tied).to(torch.bfloat16)
    names = prunable(model)
    apply_masks(model, keep_best(magnitudes(weights_of(model, names)), 0.4, Pattern(pattern)))
    model.save_pretrained(tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.bfloat16)
    model.config.save_pretrained(tmp_path)
    sizes = save_ticket(model, tmp_path / FILE)
    again = load_ticket(tmp_path)
    for (name, weight), (other, value) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and torch.equal(weight, value)
    ids = torch.arange(3, 20)[None]
    assert torch.equal(model(ids).logits, again(ids).logits)
    assert sizes.file == (tmp_path / FILE).stat().st_size
    files = (tmp_path / FILE, tmp_path / "config.json")
    assert len({path.stat().st_mode for path in files}) == 1  # who may read one may read all
    assert sizes.matrices < sizes.dense_matrices < sizes.dense
    assert sum(sizes.forms.values()) == len(names)


def test_a_damaged_ticket_is_refused(tmp_path: Path) -> None:
    model = tiny_model().to(torch.bfloat16)
    save_ticket(model, tmp_path / FILE)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[-5] ^= 1
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(MiniGPTError, match="damaged"):
        load_weights(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"no ticket")
    with pytest.raises(MiniGPTError, match="not a stored ticket"):
        load_weights(tmp_path / FILE)
    with pytest.raises(MiniGPTError, match="not a stored ticket"):
        load_weights(tmp_path / "missing.safetensors")
