"""Every cell of the table of families has a test behind it, and every refusal is the sentence that the program says.

Tests are named here by the column that they prove, and a cell counts as proved where such a test runs on its family.
Columns whose refusals take an export to see (ONNX, GenAI) name tests that run on refused families, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.exporting.gguf_arch import family_of
from minigpt.exporting.support import COLUMNS, Support, matrix
from minigpt.healing import Recipe, TokenText, train
from minigpt.methods import METHODS
from minigpt.methods.material import gather
from minigpt.methods.ranking import rank
from minigpt.pruning.repair import prune_with_repair
from minigpt.transformer.arch import check_shape, has_state, shape_of
from tests.support.archsuite import keep_all, model_of, random_batch
from tests.support.tiny import tiny_config

ROWS = {row.family: row for row in matrix()}
# Tests that prove a column, as "module:function"; each is parametrized by `family`.
PROOFS: Mapping[str, tuple[str, ...]] = {
    "ffn": (
        "pruning.test_apply:test_slice_equals_mask",
        "transformer.test_state:test_slice_equals_mask_and_loads_in_stock_classes",
        "methods.test_merging:test_narrow_experts_equal_masked_ones",
    ),
    "heads": ("pruning.test_apply:test_slice_equals_mask",),
    "layers": (
        "pruning.test_apply:test_slice_equals_mask",
        "transformer.test_state:test_slice_equals_mask_and_loads_in_stock_classes",
    ),
    "vocabulary": (
        "pruning.test_vocab_model:test_kept_tokens_keep_their_logits",
        "transformer.test_state:test_a_family_is_planned_pruned_saved_and_healed",
    ),
    "experts": ("transformer.test_experts:test_cutting_equals_logits_of_minus_infinity",),
    "repair": (
        "pruning.test_repair:test_repair_beats_plain_slicing",
        "pruning.test_repair:test_groups_are_cut_on_the_way",
    ),
    "heal": ("laws.test_family_cells:test_every_family_is_healed",),
    "onnx": ("exporting.test_support:test_onnx_is_what_the_exporter_does",),
    "gguf": ("runtimes.test_llama:test_every_family_gives_the_same_logits",),
    "onnx-genai": ("exporting.test_support:test_genai_is_what_the_builder_does",),
}
# Columns whose proofs run on the families that are refused, too.
SEEN_BY_EXPORT = ("onnx", "onnx-genai")


def covered(reference: str) -> set[str]:
    """Return the families that a test runs on, by its parameters."""
    module, _, name = reference.partition(":")
    test = getattr(import_module(f"tests.{module}"), name)
    for mark in test.pytestmark:
        if mark.name == "parametrize":
            names = mark.args[0].split(",") if isinstance(mark.args[0], str) else list(mark.args[0])
            if "family" in (names := [part.strip() for part in names]):
                place = names.index("family")
                values = [getattr(value, "values", value) for value in mark.args[1]]
                return {value if isinstance(value, str) else value[place] for value in values}
    raise AssertionError(f"{reference} is not parametrized by family")


def too_few_heads(family: str) -> None:
    """Ask for fewer heads than the family takes, or for a method that cuts them where layers carry a state."""
    config = tiny_config(family)
    if has_state(config):
        rank(METHODS["llm-pruner"], gather(model_of(family), [random_batch()]))
    shape = shape_of(config)
    check_shape(config, type(shape)(**{name: getattr(shape, name) for name in shape.__slots__} | {"kv_groups": 1}))


def repaired(family: str) -> None:
    """Ask for the repair."""
    model = model_of(family)
    prune_with_repair(model, keep_all(model), [random_batch()])


# What to ask for where a column is refused, so that the program says its sentence.
REQUESTS: Mapping[str, Callable[[str], object]] = {
    "heads": too_few_heads,
    "repair": repaired,
    "gguf": lambda family: family_of(tiny_config(family)),
}


def cells(state: str) -> list[Any]:
    """List the cells of a state as (family, column)."""
    return [(row.family, name) for row in ROWS.values() for name in COLUMNS if row.cells[name].state == state]


def test_every_cell_is_of_a_known_state() -> None:
    """No cell is silent: what is refused or not there has a reason."""
    assert {cell.state for row in ROWS.values() for cell in row.cells.values()} <= {"yes", "refused", "none"}
    silent = [row.family for row in ROWS.values() if any(c.state != "yes" and not c.note for c in row.cells.values())]
    assert not silent and all(isinstance(row, Support) for row in ROWS.values())
    assert set(PROOFS) == set(COLUMNS)


@pytest.mark.parametrize("column", COLUMNS)
def test_every_yes_has_a_test_behind_it(column: str) -> None:
    """The tests that are named for the column run on every family that has a yes in it."""
    proved = set().union(*(covered(reference) for reference in PROOFS[column]))
    states = ("yes", "refused") if column in SEEN_BY_EXPORT else ("yes",)
    unproved = [row.family for row in ROWS.values() if row.cells[column].state in states and row.family not in proved]
    assert not unproved, f"{column} is not proved for {', '.join(unproved)}"


@pytest.mark.parametrize(
    ("family", "column"), [(family, column) for family, column in cells("refused") if column not in SEEN_BY_EXPORT]
)
def test_every_refusal_gives_a_sentence(family: str, column: str) -> None:
    """The program refuses every cell that the table calls refused, in one sentence with a reason."""
    with pytest.raises(MiniGPTError) as refusal:
        REQUESTS[column](family)
    assert str(refusal.value).rstrip().endswith(".") and len(str(refusal.value)) > 40


@pytest.mark.parametrize("family", list(ROWS))
def test_every_family_is_healed(family: str) -> None:
    """Four steps lower the loss on text that is read again."""
    model = model_of(family, layers=2)
    draw = torch.Generator().manual_seed(0)
    windows = tuple(tuple(torch.randint(3, 500, (24,), generator=draw).tolist()) for _ in range(4))
    text = TokenText(windows=windows, bytes=400)
    recipe = Recipe(steps=4, tokens_per_step=96, window=24, learning_rate=3e-3, warmup=1, evaluate_every=4, average=0.0)
    training = train(model, text, text, recipe)
    losses = [loss for _, loss in training.dev_losses]
    assert training.steps == 4 and losses[-1] < losses[0]
