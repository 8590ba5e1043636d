"""The importance table: golden values on hand-made statistics, and what every method owes its users."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.errors import ConfigError, UnknownName
from minigpt.methods import METHODS, method_named
from minigpt.methods.material import Material, gather
from minigpt.methods.norms import weight_norms
from minigpt.methods.ranking import rank, select
from minigpt.methods.scores import KINDS, Scores, WeightNorms
from minigpt.pruning.apply import mask_plan
from minigpt.transformer.arch import shape_of
from minigpt.types import PrunePlan, Shape
from tests.support.archsuite import FAMILIES, logits, model_of, random_batch


def hand_made() -> tuple[Any, WeightNorms]:
    """One layer, three neurons, two groups of two columns."""
    measured = SimpleNamespace(
        gate_abs=torch.tensor([[3.0, 2, 1]]),
        up_abs=torch.tensor([[10.0, 40, 10]]),
        act_abs=torch.tensor([[0.5, 0.1, 0.9]]),
        ffn_abs=torch.tensor([[0.3, 0.2, 0.1]]),
        ffn_sq=torch.tensor([[4.0, 1, 9]]),
        ffn_mean=torch.tensor([[2.0, 0, 1]]),
        head_abs=torch.tensor([[7.0, 8]]),
        column_sq=torch.tensor([[1.0, 4, 9, 4]]),
        column_mean=torch.tensor([[1.0, 0, 0, 0]]),
        layer_cos=torch.tensor([0.25]),
        expert_share=torch.zeros(1, 0),
        expert_loss=torch.zeros(1, 0),
    )
    norms = WeightNorms(
        rows=torch.tensor([[1.0, 1, 1]]),
        down=torch.tensor([[1.0, 9, 4]]),
        output=torch.tensor([[4.0, 0, 1, 0]]),
        group=torch.tensor([[16.0, 25]]),
        down_abs=torch.tensor([[1.0, 4, 3]]),
        output_abs=torch.tensor([[3.0, 1, 2, 0]]),
    )
    return measured, norms


FORMULAS = tuple(name for name, row in METHODS.items() if str(row.rank).startswith("minigpt.methods.formulas:"))


def score(
    name: str, statistics: Any, norms: WeightNorms, *, seed: int = 0, kinds: frozenset[str] = frozenset(KINDS)
) -> Scores:
    """Scores of hand-made statistics."""
    material = Material(model=None, batches=(), statistics=statistics, norms=norms, seed=seed, kinds=kinds)
    return ranked(name, material)


def ranked(name: str, material: Material) -> Scores:
    scores = rank(method_named(name), material)
    assert scores is not None
    return scores


def test_golden_scores() -> None:
    """Each formula on numbers small enough to do by hand."""
    measured, norms = hand_made()
    golden = {
        "contextual": ([2.0, 3, 6], [2.0, 3], [0.25]),
        "linear": ([0.5, 1, 0.5], [7.0, 8], [0.25]),
        "activation": ([0.5, 0.1, 0.9], [7.0, 8], [0.25]),
        "wanda": ([2.0, 4, 9], [5.0, 6], [0.25]),
        "flap": ([gap / (3 * (4902 / 18) ** 0.5) for gap in (-41, -14, 55)], [-0.5, 0.5], [0.25]),
        "magnitude": ([2**0.5, 10**0.5, 5**0.5], [4.0, 5], [(41 + 3 + 14) ** 0.5]),
    }
    for name, expected in golden.items():
        found = score(name, measured, norms)
        for actual, value in zip((found.ffn[0], found.kv_groups[0], found.layers), expected, strict=True):
            torch.testing.assert_close(actual, torch.tensor(value), msg=lambda text, name=name: f"{name}: {text}")


def test_kinds_choose_the_evidence() -> None:
    """One kind alone ranks neurons by that kind's form; both by the contribution."""
    measured, norms = hand_made()
    for kind in ("linear", "activation"):
        alone = score("contextual", measured, norms, kinds=frozenset((kind,)))
        assert torch.equal(alone.ffn, score(kind, measured, norms).ffn)
    both = score("contextual", measured, norms, kinds=frozenset(("linear", "activation")))
    assert torch.equal(both.ffn, score("contextual", measured, norms).ffn)


def test_random_is_seeded() -> None:
    """Same seed, same scores; another seed, others."""
    measured, norms = hand_made()
    first, again, other = (score("random", measured, norms, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.ffn, again.ffn) and not torch.equal(first.ffn, other.ffn)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", FORMULAS)
def test_every_method_scores_every_family(family: str, name: str) -> None:
    """Shapes [L, I], [L, G], [L]; finite; without a side effect on the model."""
    model = model_of(family)
    found = ranked(name, gather(model, [random_batch()]))
    assert (found.ffn.shape, found.kv_groups.shape, found.layers.shape) == (
        (4, 64),
        (4, shape_of(model).kv_groups),
        (4,),
    )
    assert found.method == name and found.ffn.dtype == torch.float32


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma"])
def test_weight_norms_golden(family: str) -> None:
    """A group owns its query heads, its key, its value and its columns of o."""
    model = model_of(family)
    attention, mlp = model.model.layers[2].self_attn, model.model.layers[2].mlp
    norms = weight_norms(model)
    rows = [getattr(attention, name).weight[start:] for name, start in (("q_proj", 16), ("k_proj", 8), ("v_proj", 8))]
    parts = (*rows, attention.o_proj.weight[:, 16:])
    torch.testing.assert_close(norms.group[2, 1], sum(part.detach().square().sum() for part in parts))
    rows = mlp.gate_proj.weight[5].detach().square().sum() + mlp.up_proj.weight[5].detach().square().sum()
    torch.testing.assert_close(norms.rows[2, 5], rows)
    torch.testing.assert_close(norms.down[2, 5], mlp.down_proj.weight[:, 5].detach().square().sum())


def test_dead_units_go_first_and_live_ones_stay() -> None:
    """Neurons and a group that give nothing out are exactly what contextual pruning removes, at no cost."""
    model, dead = model_of("llama"), (3, 17, 40)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight[list(dead)] = 0
            layer.self_attn.v_proj.weight[:8] = 0
    found = ranked("contextual", gather(model, [random_batch()]))
    layers, ffn, groups = select(found, Shape(layers=4, intermediate_size=61, kv_groups=1, vocab_size=512))
    assert all(set(range(64)) - set(row) == set(dead) for row in ffn) and groups == ((1,),) * 4
    plan = PrunePlan(base_model="", method="", seed=0, layers=layers, ffn=ffn, kv_groups=groups)
    ids, dense = random_batch().input_ids, logits(model, random_batch().input_ids)
    with mask_plan(model, plan):
        torch.testing.assert_close(logits(model, ids), dense)


def test_a_layer_that_does_nothing_scores_zero() -> None:
    """Block Influence of an identity layer is 0 and the lowest."""
    model = model_of("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
        model.model.layers[1].self_attn.o_proj.weight.zero_()
    found = ranked("contextual", gather(model, [random_batch()]))
    assert int(found.layers.argmin()) == 1 and abs(float(found.layers[1])) < 1e-6


def test_overflow_and_unknown_names_are_refused() -> None:
    """No plan is ever made from NaN."""
    measured, norms = hand_made()
    measured.ffn_sq = torch.tensor([[float("nan"), 1, 1]])
    with pytest.raises(ConfigError, match="not finite"):
        score("contextual", measured, norms)
    with pytest.raises(UnknownName, match="Did you mean 'contextual'"):
        score("contextal", measured, norms)
    dense = {"contextual", "linear", "activation", "wanda", "flap", "magnitude", "random"}
    assert set(FORMULAS) == dense | {"reap", "expert-frequency"}


def test_importing_is_cheap() -> None:
    """The formulas do not load torch before they are used."""
    code = "import sys, minigpt.methods.formulas; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
