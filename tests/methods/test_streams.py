"""Methods that a streamed parent is ranked by: they may look at statistics and norms, and never at the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt.methods import METHODS
from minigpt.methods.material import gather
from minigpt.methods.ranking import choose, rank
from minigpt.transformer.arch import arch_of, shape_of
from tests.support.archsuite import model_of, random_batch

STREAMED = [name for name, row in METHODS.items() if row.streams]


@pytest.mark.parametrize("name", STREAMED)
def test_a_model_without_numbers_is_ranked_as_the_model(name: str) -> None:
    """The same scores and the same layers come from a parent of which only the shapes are in memory."""
    row = METHODS[name]
    model: Any = model_of("llama" if row.axes & {"ffn", "layers"} else "qwen3_moe")
    material = gather(model, [random_batch()])
    shapes = type(model)(model.config).to("meta")
    streamed = replace(material, model=shapes, batches=[])
    scores, again = rank(row, material), rank(row, streamed)
    if scores is not None and again is not None:
        for field in ("ffn", "kv_groups", "layers", "experts"):
            value = getattr(scores, field)
            assert torch.equal(value, getattr(again, field)) if isinstance(value, Tensor) else value is None
    whole = shape_of(model)
    axis = "layers" if "layers" in row.axes else next(iter(sorted(row.axes & arch_of(model).axes - {"vocab"})))
    names = {"ffn": "intermediate_size", "kv_groups": "kv_groups", "layers": "layers", "experts": "experts"}
    fewer = {names[axis]: getattr(whole, names[axis]) // 2}
    plans = [
        choose(row, one, replace(whole, **fewer), of, base_model="")
        for one, of in ((material, scores), (streamed, again))
    ]
    assert plans[0] == plans[1]


def test_a_method_that_runs_the_model_says_so() -> None:
    """Mini-GPTs' magnitudes are those of every projection, which are measured on the whole model."""
    assert not METHODS["mini-gpt"].streams and {"contextual", "linear", "activation", "shortgpt"} <= set(STREAMED)
