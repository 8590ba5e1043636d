"""The benchmark of 2:4 tickets: what counts as right, and that nothing wrong or uncaptured gets a speed-up."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch

from minigpt.tickets.masks import prunable
from tests.support.scripts import script
from tests.support.tiny import tiny_model


@pytest.fixture(scope="module")
def speed() -> Iterator[Any]:
    with script("lottery_speed") as module:
        yield module


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama").eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ids(model: Any) -> torch.Tensor:
    return torch.randint(3, model.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(0))


def compare(speed: Any, model: Any, other: Any, ids: torch.Tensor) -> dict[str, Any]:
    with torch.inference_mode():
        result: dict[str, Any] = speed.compare_models(model, other, deepcopy(model).float(), prunable(model), ids)
    return result


def test_the_same_model_in_16_bits_is_right(speed: Any, model: Any, ids: torch.Tensor) -> None:
    half = deepcopy(model).to(torch.bfloat16)
    row = compare(speed, half, deepcopy(half), ids)
    assert row["right"] and row["error"] == row["worst_product"] == 0
    assert row["distance_to_fp32"] == row["dense_distance_to_fp32"] > 0


def test_one_wrong_product_is_named(speed: Any, model: Any, ids: torch.Tensor) -> None:
    other: Any = deepcopy(model)
    name = prunable(model)[4]
    other.get_parameter(name)[:8].mul_(-1)
    row = compare(speed, model, other, ids)
    assert not row["right"] and row["worst_product_of"] == name and row["worst_product"] > 0.5


def test_a_value_that_is_not_finite_is_never_right(speed: Any) -> None:
    one = torch.ones(3)
    assert speed.relative(one, one * float("nan")) == float("inf")
    assert speed.relative(one, one * float("inf")) == float("inf")


TIMES = {"dense": 2.0, "sparse": 1.0}


def nothing() -> None:
    """Compute nothing, as both contestants."""


@pytest.mark.parametrize("right", [True, False])
def test_only_right_results_have_a_speed_up(speed: Any, right: bool) -> None:
    row: dict[str, Any] = {"right": right}
    speed.add_times(row, dict.fromkeys(TIMES, nothing), eager=lambda _: 5.0, replayed=lambda _: TIMES)
    assert row["sparse_ms"] == 1 and row["sparse_eager_ms"] == 5
    assert row.get("speedup") == (2 if right else None)


def test_what_cannot_be_captured_has_no_speed_up(speed: Any) -> None:
    def refuse(_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    row: dict[str, Any] = {"right": True}
    speed.add_times(row, dict.fromkeys(TIMES, nothing), eager=lambda _: 5.0, replayed=refuse)
    assert "capturing" in row["not_captured"] and "speedup" not in row and row["dense_eager_ms"] == 5


@pytest.mark.gpu
def test_layers_are_timed_from_graphs(speed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SHAPES", ((512, 512),))
    monkeypatch.setattr(speed, "TOKENS", (16, 64))
    rows = speed.layer_rows(torch.bfloat16, "cuSPARSELt")
    assert len(rows) == 2
    for row in rows:
        assert "refused" not in row, row["refused"]
        assert row["right"] and row["dense_ms"] < row["dense_eager_ms"]


@pytest.mark.gpu
def test_a_model_is_captured(speed: Any, model: Any) -> None:
    half = deepcopy(model).to("cuda", torch.bfloat16)
    ids = torch.randint(3, half.config.vocab_size, (2, 16), device="cuda")
    with torch.inference_mode(), speed.causal_attention(half):
        times = speed.captured_ms({"dense": lambda: half(input_ids=ids, use_cache=False, logits_to_keep=1)})
    assert times["dense"] > 0
