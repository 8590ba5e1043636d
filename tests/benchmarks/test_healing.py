"""The benchmark of healing recipes: the committed list is a fair one, teachers are the named ones, runs go on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import ConfigError
from minigpt.files import read_jsonl
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEAL = {"steps": "2", "evaluate_every": "2", "tokens_per_step": "256", "window": "64", "warmup": "1"}
SHAPE = {"vocab_size": 1920, "layers": 4, "kept": 0.77}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import healing

    yield healing
    for name in ("healing", "reading"):
        sys.modules.pop(name, None)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(SHAPE | {"heal": HEAL} | row) + "\n" for row in rows), "utf-8")
    return path


def run(
    module: Any, world: World, monkeypatch: pytest.MonkeyPatch, variants: Path, results: Path, *more: str
) -> list[Any]:
    arguments = ["--domain", str(world.domain), "--base", str(world.base), "--device", "cpu", "--limit", "2000"]
    arguments += ["--tokens", "512", "--tune", json.dumps(HEAL), "--variants", str(variants)]
    monkeypatch.setattr(sys, "argv", ["healing.py", *arguments, "--results", str(results), *more])
    module.main()
    return list(read_jsonl(results))


def test_the_committed_recipes_see_the_same_tokens_on_one_shape(module: Any) -> None:
    variants = module.variants_in(BENCHMARKS / "recipes.jsonl")
    recipes = [variant.recipe() for variant in variants]
    assert len({(recipe.steps, recipe.tokens_per_step, recipe.window) for recipe in recipes}) == 1
    assert len({(each.vocab_size, each.layers, each.kept, each.general, each.definitions) for each in variants}) == 1
    assert {(recipe.adapter, recipe.rank) for recipe in recipes if recipe.adapter == "lora"} >= {
        ("lora", 2), ("lora", 8), ("lora", 64),
    }  # fmt: skip
    assert {recipe.adapter for recipe in recipes} == {"full", "lora", "qlora"}
    assert {recipe.optimizer for recipe in recipes} == {"adamw", "muon"}
    taught = {(each.source, each.teacher) for each, recipe in zip(variants, recipes, strict=True) if recipe.distill}
    assert taught == {("tuned", "tuned"), ("tuned", "parent"), ("parent", "parent"), ("parent", "tuned")}
    assert {recipe.distill for recipe in recipes} >= {0.0, 1.0}


def test_the_committed_texts_are_healed_on_by_one_recipe_and_shape(module: Any) -> None:
    variants = module.variants_in(BENCHMARKS / "text.jsonl")
    assert len({(each.vocab_size, each.layers, each.kept) for each in variants}) == 1
    assert len({each.recipe() for each in variants if not each.tag.endswith("-long")}) == 1
    assert len({(each.general, each.definitions, each.sampled, each.recipe()) for each in variants}) == len(variants)


def test_the_committed_halves_read_one_text_at_one_size(module: Any) -> None:
    variants = module.variants_in(BENCHMARKS / "half.jsonl")
    assert {each.kept for each in variants} == {0.5}
    assert len({(each.general, each.definitions, each.sampled) for each in variants}) == 1
    told = {(each.vocab_size, each.layers, each.kv_groups, each.recipe(), str(each.via)) for each in variants}
    assert len(told) == len(variants)
    (gradual,) = (each for each in variants if each.via)
    steps = [cut.recipe().steps for cut in gradual.cuts()]
    at_once = next(each for each in variants if each.tag == "large-2e-3")
    assert sum(steps) == at_once.recipe().steps, "the same tokens in all"


def test_the_committed_rates_are_compared_on_one_shape_a_size(module: Any) -> None:
    variants = module.variants_in(BENCHMARKS / "rates.jsonl")
    assert len({(each.kept, each.layers, each.vocab_size) for each in variants}) == 2
    assert len({replace(each.recipe(), learning_rate=1.0) for each in variants}) == 1


def test_the_committed_vocabularies_differ_in_shape_alone(module: Any) -> None:
    variants = module.variants_in(BENCHMARKS / "vocabulary.jsonl")
    assert {each.kept for each in variants} == {0.5, 0.75}
    assert len({(each.general, each.definitions, each.sampled) for each in variants}) == 1
    assert len({(each.kept, each.recipe()) for each in variants}) == 2
    assert len({(each.kept, each.layers, each.vocab_size) for each in variants}) == len(variants)


def test_the_committed_twins_have_all_units_and_the_specialist_s_training(module: Any) -> None:
    specialist, *twins = module.variants_in(BENCHMARKS / "twin.jsonl")
    assert {twin.kept for twin in twins} == {1.0} and {twin.teacher for twin in twins} == {specialist.teacher}
    everyone = [specialist, *twins]
    assert len({(each.general, each.definitions, each.sampled) for each in everyone}) == 1
    assert len({replace(each.recipe(), learning_rate=1.0) for each in everyone}) == 1
    assert specialist.recipe() in [twin.recipe() for twin in twins]


def test_a_twin_is_the_parent_as_it_is_before_it_is_trained(
    module: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cutting, repairing and trimming nothing changes no weight."""
    seen: list[bool] = []
    original = module.Bench.heal

    def watched(bench: Any, variant: Any, cut: Any, seed: int) -> Any:
        before, after = bench.models["parent"].state_dict(), cut.model.state_dict()
        seen.append(before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before))
        return original(bench, variant, cut, seed)

    monkeypatch.setattr(module.Bench, "heal", watched)
    row = {"tag": "twin", "vocab_size": 2048, "layers": 4, "kept": 1.0, "source": "parent"}
    (line,) = run(module, world, monkeypatch, write(tmp_path / "v.jsonl", row), tmp_path / "r.jsonl")
    assert seen == [True] and line["shape"] == [4, 256, 2, 2048]


def test_every_variant_is_cut_from_and_taught_by_what_it_names(
    module: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four ways: what is cut differs with the source, what is learnt from with the teacher, and from text none is."""
    seen: list[tuple[Any, Any]] = []
    benches: list[Any] = []
    original, cut = module.train, module.Bench.cut

    def watched(model: Any, *arguments: Any, **options: Any) -> Any:
        seen.append((model.get_input_embeddings().weight.detach().clone(), options.get("teacher")))
        return original(model, *arguments, **options)

    def remembered(self: Any, variant: Any, left: Any = None) -> Any:
        benches.append(self)
        return cut(self, variant, left)

    monkeypatch.setattr(module, "train", watched)
    monkeypatch.setattr(module.Bench, "cut", remembered)
    named = {
        "ours": {},
        "other-teacher": {"teacher": "parent"},
        "other-source": {"source": "parent"},
        "text": {"heal": HEAL | {"distill": "0"}},
        "muon": {"heal": HEAL | {"optimizer": "muon"}},
        "lora": {"heal": HEAL | {"adapter": "lora", "rank": "2"}},
    }
    variants = write(tmp_path / "v.jsonl", *({"tag": tag, **row} for tag, row in named.items()))
    rows = run(module, world, monkeypatch, variants, tmp_path / "r.jsonl")
    assert [row["tag"] for row in rows] == list(named)
    assert len({row["tokens"] for row in rows}) == 1 and rows[0]["tokens"] > 0
    models = benches[0].models
    (_, untaught), *healed = seen
    assert untaught is None, "the tuned parent learns from the text"
    found = dict(zip(named, healed, strict=True))

    def taught_by(tag: str, name: str) -> bool:
        ours, theirs = (each.state_dict() for each in (found[tag][1].model, models[name]))
        return all(torch.equal(value, theirs[key].to(torch.bfloat16)) for key, value in ours.items())

    assert taught_by("ours", "tuned") and not taught_by("ours", "parent")
    assert taught_by("other-teacher", "parent") and taught_by("other-source", "tuned")
    assert found["text"][1] is None
    assert torch.equal(found["ours"][0], found["other-teacher"][0])
    assert not torch.equal(found["ours"][0], found["other-source"][0])
    assert rows[0]["pruned_vs_tuned"] == rows[1]["pruned_vs_tuned"] == rows[4]["pruned_vs_tuned"]
    assert "Muon" in rows[4]["recipe"] and "LoRA rank 2" in rows[5]["recipe"]
    assert rows[0]["controls"]["parent"]["bits"] != rows[0]["controls"]["tuned"]["bits"]


def test_what_is_there_is_not_run_again_and_runs_share_the_tuned_parent(
    module: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = write(tmp_path / "v.jsonl", {"tag": "a"}, {"tag": "b", "general": 1.0})
    tuned, results = ("--tuned", str(tmp_path / "tuned.safetensors")), tmp_path / "r.jsonl"
    (first,) = run(module, world, monkeypatch, variants, results, "--tags", "a", *tuned)
    trained: list[int] = []
    original = module.train

    def counted(*arguments: Any, **options: Any) -> Any:
        trained.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(module, "train", counted)
    rows = run(module, world, monkeypatch, variants, results, *tuned)
    assert [row["tag"] for row in rows] == ["a", "b"] and rows[0] == first
    assert rows[1]["controls"] == first["controls"]
    assert len(trained) == 1, "variant b alone, and no second tuning"

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a model was loaded for nothing")

    monkeypatch.setattr(module, "Bench", fail)
    assert run(module, world, monkeypatch, variants, results, *tuned) == rows
    assert "All variants are there." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"tag": "a", "teacher": "grandparent"}], "must be"),
        ([{"tag": "a", "teachers": "parent"}], "no teachers"),
        ([{"tag": "a"}, {"tag": "a"}], "tag twice"),
        ([{"tag": "a", "heal": {"rank": "0"}}], "rank"),
        ([{"tag": "a", "via": [{"layers": 4, "steps": 1}]}], "has layers, kept and steps"),
        ([{"tag": "a", "via": [{"layers": 3, "kept": 0.8, "steps": 1}]}], "cuts less than a cut on its way"),
    ],
)
def test_mistakes_in_the_list_are_told_before_anything_is_loaded(
    module: Any, tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        module.variants_in(write(tmp_path / "v.jsonl", *rows))


def test_a_cut_on_the_way_is_healed_before_the_next(
    module: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second cut starts from healed weights, keeps the first one's vocabulary, and reaches the size meant."""
    cuts: list[Any] = []
    original = module.Bench.cut

    def remembered(self: Any, variant: Any, left: Any = None) -> Any:
        begun = None if left is None else left.model.get_input_embeddings().weight.detach().clone()
        made = original(self, variant, left)
        cuts.append((left, made, begun, made.model.get_input_embeddings().weight.detach().clone()))
        return made

    monkeypatch.setattr(module.Bench, "cut", remembered)
    way = [{"layers": 4, "kept": 0.838, "steps": 8}]
    at_once, gradual = run(
        module, world, monkeypatch,
        write(tmp_path / "v.jsonl", {"tag": "at-once", "layers": 3, "kept": 0.611},
              {"tag": "gradual", "layers": 3, "kept": 0.611, "via": way}), tmp_path / "r.jsonl",
    )  # fmt: skip
    assert gradual["shape"] == at_once["shape"]
    _, (nothing, first, _, cut), (left, last, begun, _) = cuts
    assert not torch.equal(begun, cut), "the first cut is healed when the second begins"
    assert nothing is None and left is first and last.tokenizer is first.tokenizer and last.ids is first.ids
    assert first.model.config.num_hidden_layers == 4 and last.model.config.num_hidden_layers == 3
    assert gradual["tokens"] > at_once["tokens"]


def test_text_that_the_tuned_parent_writes_is_healed_on(
    module: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minigpt.pipeline import sampling

    monkeypatch.setattr(sampling, "LENGTH", 24)
    seen: list[int] = []
    real = module.train

    def watched(model: Any, text: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(len(text.windows))
        return real(model, text, *arguments, **options)

    monkeypatch.setattr(module, "train", watched)
    variants = write(tmp_path / "v.jsonl", {"tag": "real"}, {"tag": "more", "sampled": 3})
    run(module, world, monkeypatch, variants, tmp_path / "r.jsonl")
    _tuning, plain, more = seen
    assert plain < more <= plain + 3
