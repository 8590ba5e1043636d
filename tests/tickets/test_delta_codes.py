from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.errors import AssetError
from minigpt.tickets.delta_codes import decode_positions, encode_positions, pack_fours, unpack_fours


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 3000), data=st.data())
def test_positions_come_back(size: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, size - 1), max_size=60))
    positions = torch.tensor(sorted(chosen), dtype=torch.int64)
    form, encoded = encode_positions(positions, size)
    assert torch.equal(decode_positions(form, encoded, size), positions)
    assert len(encoded) <= -(-size // 8)  # never larger than the bitmap


def test_gaps_are_written_as_documented() -> None:
    positions = torch.tensor([0, 1, 257, 257 + 256])
    form, encoded = encode_positions(positions, 10_000)
    assert form == "gaps"
    assert encoded.tolist() == [0, 0, 255, 0, 255, 0]


def test_dense_positions_take_a_bitmap() -> None:
    form, encoded = encode_positions(torch.arange(0, 80, 2), 80)
    assert form == "bitmap"
    assert encoded.tolist() == [0b01010101] * 10


def test_positions_outside_of_the_tensor_are_refused() -> None:
    form, encoded = encode_positions(torch.tensor([5, 1000]), 2000)
    with pytest.raises(AssetError, match="1000 lies outside a tensor of 900"):
        decode_positions(form, encoded, 900)


@given(codes=st.lists(st.integers(-8, 7), max_size=33))
def test_codes_of_four_bits_come_back(codes: list[int]) -> None:
    values = torch.tensor(codes, dtype=torch.int8)
    packed = pack_fours(values)
    assert len(packed) == (len(codes) + 1) // 2
    assert torch.equal(unpack_fours(packed, len(codes)), values)
