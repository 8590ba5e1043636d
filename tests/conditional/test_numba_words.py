"""Tests of words in tokens and rows: the plain forms compute what compiled code does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

numba_words = pytest.importorskip("minigpt.conditional.kernels.numba_words", reason="needs numba")


def test_a_word_of_16_bits_is_a_bf16_number() -> None:
    words = torch.tensor([1.5, -2.25, 0.0, float("inf")]).bfloat16().view(torch.uint16).numpy()
    assert [float(numba_words.floats(word)) for word in words] == [1.5, -2.25, 0.0, float("inf")]
    assert numba_words.floats(np.float32(0.1)) == np.float32(0.1)


def test_floats_are_stored_as_torch_rounds_them() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 100
    values[:3] = torch.tensor([float("nan"), float("inf"), 1.00390625])  # the last is a tie
    expected = values.bfloat16()
    plain, compiled = (np.zeros(1000, dtype=np.uint16) for _ in range(2))
    numba_words.put(plain, values.numpy())
    numba_words.compiled(lambda target, source: numba_words.put(target, source))(compiled, values.numpy())
    for words in (plain, compiled):
        result = torch.from_numpy(words.view(np.int16).copy()).view(torch.bfloat16)
        assert torch.equal(result.isnan(), expected.isnan()) and torch.equal(result[1:], expected[1:])
    copy = np.zeros(1000, dtype=np.float32)
    numba_words.put(copy, values.numpy())
    assert np.array_equal(copy, values.numpy(), equal_nan=True)
