"""Planning: cost curves, sizes as users say them, the split of a budget, and who removed what."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.methods import method_named
from minigpt.planning import LEFT_AFTER, Healing, Limits, Sensitivity, Target, allocate, shipped
from minigpt.planning.allocate import expected_cost, removed_fractions
from minigpt.planning.budget import budget_for
from minigpt.planning.settings import PlanSettings
from minigpt.pruning import vocab
from minigpt.transformer.arch import UnitCosts, fixed_layers, parameters_of, unit_costs
from minigpt.types import AXES, PrunePlan, Shape
from tests.support import tiny

DEFAULT = Shape(layers=30, intermediate_size=1536, kv_groups=3, vocab_size=49152)
DEFAULT_COSTS = UnitCosts(per_token=576, per_neuron=1728, per_kv_group=294912, per_layer_fixed=1152, fixed=576)
# Axes of the default parent, which has no experts.
DENSE_AXES = {"vocab", "ffn", "kv_groups", "layers"}
DEFAULT_LIMITS = Limits(layers=tuple(range(12, 31)), kv_groups=(1, 2, 3), neurons=(384, 1536), vocab=(4096, 49152))
SMALL = Shape(layers=4, intermediate_size=256, kv_groups=2, vocab_size=1000)
SMALL_COSTS = UnitCosts(per_token=32, per_neuron=96, per_kv_group=1536, per_layer_fixed=64, fixed=32)
SMALL_LIMITS = Limits(layers=(2, 3, 4), kv_groups=(1, 2), neurons=(64, 256), vocab=(256, 1000))
CURVES = {
    "vocab": ((0.5, 0.1), (0.8, 0.4)),
    "ffn": ((0.25, 0.2), (0.5, 0.5)),
    "kv_groups": ((0.5, 0.6),),
    "layers": ((0.25, 0.3), (0.5, 0.9)),
}
COSTS = Sensitivity(curves=CURVES)


def default_table() -> Sensitivity:
    found = shipped("llama", 576, DEFAULT, "short")
    assert found is not None
    return found


def test_costs_run_linearly_from_nothing_between_points_and_twice_as_steep_beyond() -> None:
    costs = Sensitivity(curves={"ffn": ((0.5, 0.5), (0.25, 0.2))})
    assert costs.cost("ffn", 0.0) == 0.0
    assert costs.cost("ffn", -0.1) == 0.0
    assert costs.cost("ffn", 0.125) == pytest.approx(0.1)
    assert costs.cost("ffn", 0.25) == pytest.approx(0.2)
    assert costs.cost("ffn", 0.375) == pytest.approx(0.35)
    assert costs.cost("ffn", 0.75) == pytest.approx(0.5 + 2 * 0.3)


def test_noise_never_makes_removal_look_free() -> None:
    costs = Sensitivity(curves={"ffn": ((0.1, -0.05), (0.3, 0.2), (0.5, 0.1))})
    assert costs.cost("ffn", 0.1) == 0.0
    assert costs.cost("ffn", 0.5) == pytest.approx(0.2)


def test_probes_that_coincide_do_no_harm() -> None:
    """A parent too small for three different widths gives the same place several times."""
    costs = Sensitivity(curves={"ffn": ((0.0, 0.3), (0.5, 0.2), (0.5, 0.4))})
    assert costs.cost("ffn", 0.25) == pytest.approx(0.2)
    assert costs.cost("ffn", 1.0) == pytest.approx(0.4 + 2 * 0.4)


@given(
    points=st.lists(st.tuples(st.floats(0.01, 1), st.floats(-1, 3)), min_size=1, max_size=6),
    places=st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)),
)
def test_removing_more_never_costs_less(points: list[tuple[float, float]], places: tuple[float, float]) -> None:
    costs = Sensitivity(curves={"vocab": tuple(points)})
    less, more = sorted(places)
    assert costs.cost("vocab", less) <= costs.cost("vocab", more) + 1e-9


@pytest.mark.parametrize("curves", [{}, {"ffn": ()}, {"ffn": ((0.0, 0.1),)}])
def test_an_axis_without_measurements_is_named(curves: dict[str, tuple[tuple[float, float], ...]]) -> None:
    with pytest.raises(PlanError, match="'ffn'"):
        Sensitivity(curves=curves).cost("ffn", 0.1)


def test_the_default_parent_has_a_table_and_no_other_shape_has_one() -> None:
    table = default_table()
    assert set(table.curves) == DENSE_AXES
    assert "law" in table.source
    for changed in ({"layers": 29}, {"intermediate_size": 1535}, {"kv_groups": 9}, {"vocab_size": 49216}):
        assert shipped("llama", 576, replace(DEFAULT, **changed), "short") is None
    assert shipped("qwen2", 576, DEFAULT, "short") is None
    assert shipped("llama", 577, DEFAULT, "short") is None


@pytest.mark.parametrize("healing", ["long", "thorough"])
def test_healing_leaves_a_known_part_of_every_cost(healing: Healing) -> None:
    short, healed = default_table(), shipped("llama", 576, DEFAULT, healing)
    assert healed is not None
    for axis in DENSE_AXES:
        assert 0 < LEFT_AFTER[healing][axis] <= 1
        assert healed.cost(axis, 0.2) == pytest.approx(LEFT_AFTER[healing][axis] * short.cost(axis, 0.2))


def test_beyond_what_was_healed_a_cost_counts_three_times() -> None:
    short, healed = default_table(), shipped("llama", 576, DEFAULT, "thorough")
    assert healed is not None and set(healed.known_to) == set(AXES)
    for axis, known in healed.known_to.items():
        if axis not in DENSE_AXES:
            continue
        inside, outside = (short.cost(axis, at) for at in (known, 0.9))
        expected = LEFT_AFTER["thorough"][axis] * (inside + 3 * (outside - inside))
        assert healed.cost(axis, 0.9) == pytest.approx(expected)


def test_the_longer_the_healing_the_more_of_the_vocabulary_is_kept() -> None:
    """Tokens are what it cannot bring back."""
    limits = Limits(layers=tuple(range(15, 31)), kv_groups=(1, 2, 3), neurons=(64, 1536), vocab=(8192, 49152))
    kept = []
    for healing in ("short", "long", "thorough"):
        table = shipped("llama", 576, DEFAULT, healing)
        assert table is not None
        kept.append(allocate(DEFAULT, DEFAULT_COSTS, 100_886_256, table, limits).vocab_size)
    assert kept[0] < kept[1] < kept[2]


def test_the_same_size_said_in_three_ways() -> None:
    parent = 134_515_008
    assert Target(size=0.75).parameters(parent, "bfloat16") == 100_886_256
    assert Target().parameters(parent, "float32") == 100_886_256
    assert Target(params=100_000_000).parameters(parent, "bfloat16") == 100_000_000
    assert Target(bytes=200_040_000).parameters(parent, "bfloat16") == 100_000_000
    assert Target(bytes=200_040_000).parameters(parent, "float32") == 50_000_000
    assert Target(bytes=200_001_000).parameters(parent, "float16", header=1000) == 100_000_000
    assert Target(size=1.0).parameters(parent, "bfloat16") == parent


def test_targets_say_what_was_asked_for_and_no_two_say_the_same() -> None:
    assert str(Target(size=0.75)) == str(Target()) == "75.0% of the parameters"
    assert str(Target(size=0.7504)) == "75.04% of the parameters"
    assert str(Target(params=100_000_000)) == "100,000,000 parameters"
    assert str(Target(bytes=150_000_000)) == "150,000,000 bytes"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target(size=1.1), "1,100 parameters; the parent has 1,000. Ask for less"),
        (Target(params=1001), "the parent has 1,000. Ask for less"),
        (Target(params=0), "Ask for more"),
        (Target(size=0.0), "Ask for more"),
        (Target(bytes=39_000), "Ask for more"),
    ],
)
def test_sizes_that_cannot_be_are_refused(target: Target, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        target.parameters(1000, "bfloat16")


def test_two_targets_at_once_are_refused() -> None:
    with pytest.raises(PlanError, match="one of them"):
        Target(size=0.5, params=10)


@pytest.mark.parametrize("size", [0.4, 0.5, 0.6, 0.75, 0.9, 0.999])
def test_the_default_parent_meets_any_size_from_below(size: float) -> None:
    target = round(size * 134_515_008)
    shape = allocate(DEFAULT, DEFAULT_COSTS, target, default_table(), DEFAULT_LIMITS)
    total = DEFAULT_COSTS.total(shape)
    assert 0.99 * target <= total <= target
    assert shape.layers in DEFAULT_LIMITS.layers
    assert shape.kv_groups in DEFAULT_LIMITS.kv_groups
    assert 384 <= shape.intermediate_size <= 1536
    assert shape.intermediate_size % 32 == 0
    assert 4096 <= shape.vocab_size <= 49152
    assert shape.vocab_size % 64 == 0


@pytest.mark.parametrize(("parent", "costs"), [(DEFAULT, DEFAULT_COSTS), (SMALL, SMALL_COSTS)])
def test_keeping_everything_is_a_plan(parent: Shape, costs: UnitCosts) -> None:
    """Also where the parent's vocabulary is no multiple of 64."""
    limits = DEFAULT_LIMITS if parent is DEFAULT else SMALL_LIMITS
    table = default_table() if parent is DEFAULT else COSTS
    assert allocate(parent, costs, costs.total(parent), table, limits) == parent


def brute_force(target: int, sensitivity: Sensitivity, limits: Limits) -> float:
    """The least expected cost over every legal shape at most 1 % below the target."""
    sizes = [size for size in range(limits.vocab[0], limits.vocab[1] + 1) if size % 64 == 0 or size == limits.vocab[1]]
    best = float("inf")
    for layers, groups, width, size in product(limits.layers, limits.kv_groups, range(64, 257, 32), sizes):
        shape = Shape(layers=layers, intermediate_size=width, kv_groups=groups, vocab_size=size)
        if 0.99 * target <= SMALL_COSTS.total(shape) <= target:
            best = min(best, expected_cost(SMALL, shape, sensitivity))
    return best


@settings(max_examples=60, deadline=None)
@given(
    size=st.floats(0.3, 1.0),
    scale=st.fixed_dictionaries({axis: st.floats(0.05, 5) for axis in AXES}),
)
def test_no_legal_shape_is_cheaper(size: float, scale: dict[str, float]) -> None:
    sensitivity = Sensitivity(curves=CURVES, weights=scale)
    target = round(size * SMALL_COSTS.total(SMALL))
    wanted = brute_force(target, sensitivity, SMALL_LIMITS)
    if wanted == float("inf"):
        return
    shape = allocate(SMALL, SMALL_COSTS, target, sensitivity, SMALL_LIMITS)
    assert SMALL_COSTS.total(shape) <= target
    assert expected_cost(SMALL, shape, sensitivity) == pytest.approx(wanted)


def test_fixed_widths_are_taken_as_they_are() -> None:
    limits = replace(DEFAULT_LIMITS, layers=(27,), neurons=(1500, 1500), kv_groups=(3,))
    shape = allocate(DEFAULT, DEFAULT_COSTS, 100_000_000, default_table(), limits)
    assert (shape.layers, shape.intermediate_size, shape.kv_groups) == (27, 1500, 3)
    assert DEFAULT_COSTS.total(shape) <= 100_000_000


@pytest.mark.parametrize(("size", "width"), [(0.9, 1280), (0.75, 896), (0.6, 512)])
def test_no_dear_unit_goes_for_a_fraction_of_a_percent(size: float, width: int) -> None:
    """Neurons or a KV group, nothing finer: widths are 1.23 % of the parent apart, and with two of three groups one
    lies within 1 % below each of these sizes. It costs far more than the nearest width with all groups."""
    limits = replace(DEFAULT_LIMITS, layers=(30,), neurons=(32, 1536), vocab=(49152, 49152))
    shape = allocate(DEFAULT, DEFAULT_COSTS, round(size * 134_515_008), default_table(), limits)
    assert (shape.kv_groups, shape.intermediate_size) == (3, width)
    assert abs(DEFAULT_COSTS.total(shape) / 134_515_008 - size) < 0.0062


def test_a_cheap_group_still_goes_before_dear_neurons() -> None:
    limits = replace(DEFAULT_LIMITS, layers=(30,), neurons=(32, 1536), vocab=(49152, 49152))
    curves = {"ffn": ((0.1, 1.0),), "kv_groups": ((0.4, 0.01),)}
    shape = allocate(DEFAULT, DEFAULT_COSTS, 121_000_000, Sensitivity(curves=curves, weights={}), limits)
    assert shape.kv_groups < 3


def test_a_size_may_be_exceeded_where_only_widths_are_left() -> None:
    """Vocabulary and depth fixed: widths are 32 neurons apart, and the nearest is 0.2 % above."""
    limits = replace(SMALL_LIMITS, layers=(4,), kv_groups=(2,), vocab=(1000, 1000))
    nearest = SMALL_COSTS.total(replace(SMALL, intermediate_size=160))
    shape = allocate(SMALL, SMALL_COSTS, round(nearest / 1.002), COSTS, limits)
    assert shape.intermediate_size == 160


def test_rows_without_a_token_go_or_stay_together() -> None:
    """1,000 rows for 901 tokens: of a vocabulary that is cut at all, 896 tokens are the most that can be kept."""
    limits = replace(SMALL_LIMITS, cut_vocab=900)
    assert [limits.vocab_size(room) for room in (1200, 1000, 999, 700, 64)] == [1000, 1000, 896, 640, 256]
    assert SMALL_LIMITS.vocab_size(999) == 960


def test_a_size_out_of_reach_is_refused_with_the_nearest() -> None:
    least = SMALL_COSTS.total(Shape(layers=2, intermediate_size=64, kv_groups=1, vocab_size=256))
    with pytest.raises(PlanError, match=rf"5,000 parameters are too few: .* is {least:,} of 142,880.*2 of 4 layers"):
        allocate(SMALL, SMALL_COSTS, 5000, COSTS, SMALL_LIMITS)


def test_the_size_that_the_refusal_names_is_possible() -> None:
    with pytest.raises(PlanError) as caught:
        allocate(DEFAULT, DEFAULT_COSTS, round(0.02 * DEFAULT_COSTS.total(DEFAULT)), COSTS, DEFAULT_LIMITS)
    size = float(re.search(r"--target-size ([0-9.]+) or more", str(caught.value))[1])  # type: ignore[index]
    shape = allocate(DEFAULT, DEFAULT_COSTS, round(size * DEFAULT_COSTS.total(DEFAULT)), COSTS, DEFAULT_LIMITS)
    assert DEFAULT_COSTS.total(shape) >= DEFAULT_COSTS.total(DEFAULT_LIMITS.smallest)


def test_whole_layers_end_at_the_nearest_size_within_one_of_them() -> None:
    """4 layers of which only whole ones may go: 80 % is nearer to one layer removed than to none."""
    one = SMALL_COSTS.total(SMALL) - SMALL_COSTS.total(replace(SMALL, layers=3))
    limits = Limits(layers=(2, 3, 4), kv_groups=(2,), neurons=(SMALL.intermediate_size,) * 2, vocab=(1000, 1000))
    target = SMALL_COSTS.total(SMALL) - round(0.7 * one)
    with pytest.raises(PlanError, match="within 1 %"):
        allocate(SMALL, SMALL_COSTS, target, COSTS, limits)
    assert allocate(SMALL, SMALL_COSTS, target, COSTS, limits, slack=one).layers == 3
    with pytest.raises(PlanError, match="too few"):
        allocate(SMALL, SMALL_COSTS, SMALL_COSTS.total(SMALL) - 4 * one, COSTS, limits, slack=one)


def test_fractions_removed() -> None:
    shape = Shape(layers=3, intermediate_size=64, kv_groups=1, vocab_size=250)
    assert removed_fractions(SMALL, shape) == {"vocab": 0.75, "ffn": 0.75, "kv_groups": 0.5, "layers": 0.25}


@pytest.fixture(scope="module")
def measured() -> tuple[object, object, object]:
    from minigpt.methods.norms import weight_norms
    from minigpt.transformer import stats
    from minigpt.transformer.batches import to_batches
    from minigpt.transformer.packing import pack, tokenize
    from minigpt.types import Document

    model, tokenizer = tiny.tiny_model("llama"), tiny.tiny_tokenizer()
    documents = [Document(text=text, source=text) for text in tiny.SENTENCES]
    packed = pack(tokenize(tokenizer, documents, window=64), 64, pad=0)
    found = stats.collect(model, list(to_batches(packed, batch_tokens=256)))
    return model, found, weight_norms(model)


@pytest.mark.parametrize("kinds", [None, ("linear",), ("activation",), ("linear", "activation"), ("embedding",)])
@pytest.mark.parametrize(
    "after",
    [
        Shape(layers=4, intermediate_size=64, kv_groups=2, vocab_size=512),
        Shape(layers=4, intermediate_size=64, kv_groups=2, vocab_size=320),
        Shape(layers=3, intermediate_size=32, kv_groups=1, vocab_size=448),
    ],
)
def test_what_each_kind_removed_adds_up(
    measured: tuple[object, object, object], after: Shape, kinds: tuple[str, ...] | None
) -> None:
    from minigpt.methods import method_named
    from minigpt.methods.material import Material
    from minigpt.methods.ranking import make_plan, rank
    from minigpt.planning.attribution import removed_parameters

    model, found, norms = measured
    before, costs = Shape(layers=4, intermediate_size=64, kv_groups=2, vocab_size=512), unit_costs(model)
    material = Material(model=model, batches=(), statistics=found, norms=norms)  # type: ignore[arg-type]
    scores = rank(method_named("contextual"), material)
    assert scores is not None
    plan: PrunePlan = make_plan(scores, after)
    removed = removed_parameters(plan, before, after, costs, found, norms, kinds)  # type: ignore[arg-type]
    assert set(removed) == {"linear", "activation", "embedding", "layers"}
    assert sum(removed.values()) == costs.total(before) - costs.total(after)
    assert min(removed.values()) >= 0
    if kinds == ("linear",):
        assert removed["activation"] == 0
    if kinds == ("activation",):
        assert removed["linear"] == (2 - after.kv_groups) * after.layers * costs.per_kv_group


def test_a_tokenizer_that_cannot_be_pruned_hinders_only_where_its_tokens_may_go() -> None:
    """Unigram tokenizers are refused by vocabulary pruning; `--kinds linear` keeps the vocabulary."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=unigram, unk_token="<unk>")
    config, method = tiny.tiny_config("llama"), method_named("contextual")
    target = parameters_of(config) * 3 // 4
    budget = budget_for(config, tokenizer, method, target, settings=PlanSettings(), kinds=("linear",))
    assert budget.limits.vocab == (config.vocab_size, config.vocab_size)
    with pytest.raises(UnsupportedModel, match="drop `embedding` from --kinds"):
        budget_for(config, tokenizer, method, target, settings=PlanSettings())


def test_layers_that_always_stay_count_in_the_smallest_size() -> None:
    """Half of LFM2's layers have attention and stay: no target may ask for fewer."""
    tokenizer = tiny.tiny_tokenizer()
    config, method = tiny.tiny_config("lfm2", vocab_size=len(tokenizer)), method_named("shortgpt")
    budget = budget_for(config, tokenizer, method, parameters_of(config) // 2, settings=PlanSettings())
    assert min(budget.limits.layers) == len(fixed_layers(config)) == 2
    config.layer_types = ["full_attention"] * 3 + ["conv"]
    budget = budget_for(config, tokenizer, method, parameters_of(config) // 2, settings=PlanSettings())
    assert min(budget.limits.layers) == 3


def test_a_vocabulary_below_the_tokens_that_always_stay_is_refused() -> None:
    tokenizer = tiny.tiny_tokenizer()
    config, method = tiny.tiny_config("llama", vocab_size=len(tokenizer)), method_named("contextual")
    least = len(vocab.closure(tokenizer, ()))
    settings = PlanSettings(vocab_size=least // 64 * 64)
    with pytest.raises(PlanError, match=rf"is too small: {least} tokens are in every vocabulary"):
        budget_for(config, tokenizer, method, parameters_of(config) * 3 // 4, settings=settings)
