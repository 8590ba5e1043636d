"""The search against every shape and precision tried by brute force, and its sentence where nothing fits."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from minigpt.errors import PlanError
from minigpt.fitting.constraints import parse_constraints
from minigpt.fitting.costmodel import CostModel
from minigpt.fitting.engines import engine_named
from minigpt.fitting.filesize import of_config
from minigpt.fitting.profile import work_of
from minigpt.fitting.search import AIM, Space, meets, rounding_cost, search
from minigpt.planning.allocate import Limits, expected_cost
from minigpt.planning.sensitivity import shipped
from minigpt.types import Shape

PARENT = Shape(layers=30, intermediate_size=1536, kv_groups=3, vocab_size=49152)
SENSITIVITY = shipped("llama", 576, PARENT, "thorough")
# A coarse grid, small enough to try all of it.
LIMITS = Limits(layers=(12, 20, 30), kv_groups=(1, 3), neurons=(1472, 1536), vocab=(4096, 49152), cut_vocab=49151)
# A machine on which a token costs 1 ms and the time to read its weights.
MODELS = {
    name: CostModel(
        runtime="llama.cpp", precision=name, seconds=(1e-3, 0.0, 1e-10, 1e-10, 0.0), memory=(50e6, 1.5, 0.0, 0.0),
        parent=100.0,
    )
    for name in ("int8", "int4")
}  # fmt: skip


def config() -> Any:
    """The config of the default parent."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        "llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192,
    )  # fmt: skip


def space(*constraints: str, limits: Limits = LIMITS, runtime: str = "llama.cpp") -> Space:
    assert SENSITIVITY is not None
    parsed = parse_constraints(constraints)
    measured = any(item.kind != "file" for item in parsed)
    sizes = of_config(config(), [25 * rows for rows in range(49153)])
    return Space(
        engine=engine_named(runtime),
        sizes=sizes,
        parent=sizes.whole,
        limits=limits,
        parameters=sizes.costs.total,
        sensitivity=SENSITIVITY,
        models=MODELS if measured else {},
        constraints=parsed,
    )


def brute_force(searched: Space) -> float:
    """The least expected cost over the whole grid, every vocabulary of it tried."""
    limits, costs = searched.limits, []
    widths = list(limits.neuron_widths())
    rows = [*range(limits.vocab[0], limits.vocab[1], 64), limits.vocab[1]]
    for precision, layers, groups, neurons in product(searched.precisions, limits.layers, limits.kv_groups, widths):
        for vocab in rows:
            shape = Shape(layers=layers, intermediate_size=neurons, kv_groups=groups, vocab_size=vocab)
            layout = searched.engine.layouts[precision]
            work = work_of(searched.sizes, shape, layout)
            within = {
                "file": lambda limit, work=work: work.file <= limit * AIM["file"],
                "ram": lambda limit, work=work, name=precision: MODELS[name].peak(work) <= limit * AIM["ram"],
                "speed": lambda limit, work=work, name=precision: limit <= MODELS[name].speed(work) * AIM["speed"],
            }
            if all(within[item.kind](item.amount) for item in searched.constraints):
                pruning = expected_cost(PARENT, shape, searched.sensitivity)
                costs.append(pruning + rounding_cost(searched.engine, precision))
    return min(costs)


@pytest.mark.parametrize(
    "constraints", [("70MB",), ("100MB",), ("90MB ram",), ("180 tokens/s",), ("80MB", "150 tokens/s", "150MB ram")]
)
def test_finds_the_least_cost_of_all_that_fit(constraints: tuple[str, ...]):
    searched = space(*constraints)
    choice = search(searched)
    assert choice.best.cost == pytest.approx(brute_force(searched), abs=2e-4)
    assert meets(searched, choice.best.precision, choice.best.shape)


def test_uses_the_bytes_up_and_prefers_fewer_bits_to_fewer_parameters():
    best = search(space("50MB", limits=replace(LIMITS, neurons=(384, 1536), layers=(24, 27, 30)))).best
    assert best.precision == "int4" and 0.97 * 50e6 < best.file <= 50e6


def test_takes_the_parent_as_it_is_where_that_fits_best():
    best = search(space("1GB")).best
    assert (best.precision, best.shape, best.pruning_cost) == ("fp16", PARENT, 0.0)


def test_prefers_more_bits_where_rounding_costs_more_than_pruning():
    # In int4 (91.7 MB) nothing has to go; in int8 (144.8 MB) a little, which costs less than four bits do.
    assert search(space("143MB", limits=replace(LIMITS, neurons=(384, 1536)))).best.precision == "int8"


def test_a_larger_budget_never_expects_worse():
    costs = [search(space(f"{size}MB")).best.cost for size in (70, 80, 90, 110, 150, 300)]
    assert costs == sorted(costs, reverse=True)


def test_names_alternatives_and_why_they_were_not_chosen():
    choice = search(space("80MB"))
    reasons = [reason for _, reason in choice.others]
    assert any(reason.startswith("in int8:") for reason in reasons)
    assert "the uncut parent in int4 does not fit" in reasons
    assert all(point.cost >= choice.best.cost - 1e-4 for point, reason in choice.others if "expected" in reason)


@pytest.mark.parametrize(("constraint", "nearest"), [("5MB", "MB"), ("900 tokens/s", "tokens/s"), ("52MB ram", "MB")])
def test_says_what_is_nearest_where_nothing_fits(constraint: str, nearest: str):
    with pytest.raises(PlanError) as caught:
        search(space(constraint))
    message = str(caught.value)
    assert message.startswith(f"Nothing fits {constraint} in llama.cpp: the nearest is") and nearest in message
    assert message.count(". ") == 0
