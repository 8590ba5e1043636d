"""Two processes give what one gives: statistics and plans to the byte, scores to the bit, weights within rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt import pipeline
from minigpt.distributed import set_current
from minigpt.distributed.group import Group
from minigpt.errors import MiniGPTError
from minigpt.evaluation.lm import log_probabilities
from minigpt.evaluation.run import text_bits
from minigpt.healing import Bound, Mask, bits_per_byte, sharded, train
from minigpt.healing import checkpoint as checkpoints
from minigpt.healing import run as training_run
from minigpt.healing.answers import likeliest
from minigpt.healing.data import pieces_of
from minigpt.healing.planes import Layout
from minigpt.healing.stored import Store, StoredTeacher, write_answers
from minigpt.healing.teacher import teacher_of
from minigpt.healing.together import sample_together
from minigpt.transformer import stats, together
from minigpt.transformer.calibration import calibration_batches
from minigpt.transformer.shipping import can_ship, held
from minigpt.types import Document
from tests.support.building import FAST
from tests.support.healing import VOCABULARY, Killed, Killer, Notes, Steps, patterned, recipe
from tests.support.pair import current, pair
from tests.support.tiny import tiny_model, tiny_tokenizer
from tests.support.worlds import make_world

# Weights of two processes differ from those of one by the order in which gradients are added.
ROUNDING = 2e-4


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with pair() as both:
        yield both


def student(**options: Any) -> Any:
    return tiny_model(vocab_size=VOCABULARY, layers=2, **options)


def texts() -> list[Document]:
    words = [" ".join(f"word{(7 * n + k) % 90}" for k in range(40)) for n in range(24)]
    return [Document(text=text, source=f"s{n}", license="CC0") for n, text in enumerate(words)]


def difference(one: Any, other: Any) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((left - right).detach().abs().max()) for left, right in pairs)


def healed(group: Group | None, **options: Any) -> tuple[Any, Any]:
    """A model and the record of its training, by both processes or by this one alone."""
    model = student()
    settings = options.pop("recipe", recipe())
    arguments = (model, patterned(40), patterned(12, seed=1), settings)
    if group is None:
        return model, train(*arguments, **options)
    with current(group):
        return model, train(*arguments, **options)


def test_values_and_tensors_travel(group: Group) -> None:
    # The other process answers to jobs only, so what travels is tried through one: a model that both hold.
    with current(group), held(student()):
        assert group.shipped is not None
    assert group.shipped is None


def test_a_process_that_does_not_arrive_is_named(group: Group) -> None:
    with pytest.raises(MiniGPTError, match=r"Process 1 of 2 did not arrive within 0\.05 seconds"):
        group.barrier(0.05)


@pytest.mark.parametrize("tokens", [200, 350, 5000])
def test_statistics_of_two_are_those_of_one_to_the_byte(group: Group, tokens: int) -> None:
    model = tiny_model(layers=2)
    batches = calibration_batches(tiny_tokenizer(), texts(), window=64, tokens=tokens, batch_tokens=128)
    alone = stats.collect(model, batches)
    with current(group):
        both = together.collect(model, batches)
    for item in fields(stats.ActivationStats):
        left, right = getattr(alone, item.name), getattr(both, item.name)
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right, item.name


def test_a_model_that_is_more_than_its_config_stays_in_one_process(group: Group) -> None:
    model = student()
    assert can_ship(model)
    model.model.layers[0].mlp.up_proj = torch.nn.Linear(3, 5)
    assert not can_ship(model)
    assert not can_ship(torch.nn.Linear(2, 2))


def test_scores_of_two_are_those_of_one_to_the_bit(group: Group) -> None:
    model, tokenizer = tiny_model(layers=2), tiny_tokenizer()
    alone = text_bits(model, tokenizer, texts(), batch_tokens=256, window=64)
    with current(group), held(model):
        both = text_bits(model, tokenizer, texts(), batch_tokens=256, window=64)
    assert both == alone


def test_two_score_no_rows(group: Group) -> None:
    model = student()
    with current(group), held(model):
        sums = log_probabilities(model, [], 2, batch_tokens=64, title="Scores")
    assert sums.tolist() == [0.0, 0.0]


def test_texts_that_two_sample_are_those_of_one(group: Group) -> None:
    prompts = [[1, 5 + n % 7] for n in range(70)]  # three blocks on a processor
    alone = sample_together(student(), prompts, length=8, seed=3, ends=(9,))
    with current(group):
        both = sample_together(student(), prompts, length=8, seed=3, ends=(9,))
    assert both == alone
    assert alone[0] != alone[35], "each block has draws of its own"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_train_as_one(group: Group, optimizer: str) -> None:
    settings = recipe(optimizer=optimizer, evaluate_every=3)
    one, alone = healed(None, recipe=settings)
    two, both = healed(group, recipe=settings)
    assert difference(one, student()) > 100 * ROUNDING
    # Muon's iteration is in bf16 where that is fast, which widens differences.
    assert difference(one, two) < (ROUNDING if optimizer == "adamw" else 10 * ROUNDING)
    assert [step for step, _ in both.dev_losses] == [step for step, _ in alone.dev_losses]
    losses = zip(both.dev_losses, alone.dev_losses, strict=True)
    assert max(abs(left[1] - right[1]) for left, right in losses) < 0.003
    assert (both.tokens, both.steps) == (alone.tokens, alone.steps)
    dev = patterned(12, seed=1)
    assert bits_per_byte(two, dev) == pytest.approx(bits_per_byte(one, dev), abs=0.003)


def test_two_train_in_portions_as_one_at_once(group: Group) -> None:
    settings, texts = recipe(tokens_per_step=192), (patterned(40), patterned(12, seed=1))
    one, _ = healed(None, recipe=settings)
    two, sizes = student(), list[int]()

    def watch(module: Any, _args: Any, named: Any) -> None:
        if module.training:
            sizes.append(len(named["input_ids"]))

    two.model.register_forward_pre_hook(watch, with_kwargs=True)
    with current(group):
        train(two, *texts, settings, portions=6)
    # This process reads half of a batch of about twelve windows, and at most a sixth of the batch at once.
    assert max(sizes) <= 4 and len(sizes) >= 2 * settings.steps
    assert difference(one, two) < ROUNDING


def test_two_distill_within_a_bound_and_a_mask_as_one(group: Group) -> None:
    base = student()
    name = "model.layers.0.mlp.up_proj.weight"
    free = {name: torch.rand(base.get_parameter(name).shape) < 0.5}
    results = []
    for both in (None, group):
        teacher = teacher_of(tiny_model(vocab_size=VOCABULARY + 8, layers=2, seed=5), list(range(VOCABULARY)), base)
        bound = Bound(text=patterned(6, seed=9), limit=100.0)
        mask = Mask(free=free, trains_others=True)
        options: dict[str, Any] = {"teacher": teacher, "bound": bound, "mask": mask}
        results.append(healed(both, recipe=recipe(distill=0.5, weight_decay=0.01), **options)[0])
    assert difference(*results) < ROUNDING
    frozen = results[1].get_parameter(name)[~free[name]]
    assert torch.equal(frozen, base.get_parameter(name)[~free[name]])


def test_two_learn_from_stored_answers_as_one(group: Group, tmp_path: Path) -> None:
    base, settings = student(), recipe(distill=0.5, weight_decay=0.01)
    teacher = teacher_of(tiny_model(vocab_size=VOCABULARY, layers=2, seed=5), None, base)
    layout = Layout(count=9, vocab=VOCABULARY)
    store = Store.planned(tmp_path, "k", layout, pieces_of(patterned(40).windows), 96)
    write_answers(store, lambda batch: likeliest(teacher.logits(batch.ids, batch.places), 9))
    results = [healed(both, recipe=settings, teacher=StoredTeacher(tmp_path, "k"))[0] for both in (None, group)]
    assert difference(*results) < ROUNDING


def test_two_divide_a_large_model(group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    monkeypatch.setattr(training_run, "CHECKPOINT_SECONDS", 0.0)
    settings = recipe(steps=20)
    one, _ = healed(None, recipe=settings)
    monkeypatch.setattr(sharded, "SHARDED_PARAMETERS", 1)
    with monkeypatch.context() as kept:
        kept.setattr(checkpoints, "remove", lambda _path: None)
        two, record = healed(group, recipe=settings, checkpoint=path)
    assert record.steps == 20
    assert difference(one, two) < ROUNDING
    steps = Steps()
    resumed, _ = healed(None, recipe=settings, checkpoint=path, reporter=steps)
    assert steps.totals["Healing"] == 20 - 16, "one process resumes what was divided"
    assert difference(one, resumed) < ROUNDING


@pytest.mark.slow
def test_adapters_are_trained_by_two(group: Group) -> None:
    settings = recipe(adapter="lora", rank=2, dropout=0.0)
    assert difference(healed(None, recipe=settings)[0], healed(group, recipe=settings)[0]) < ROUNDING


def test_a_rate_that_does_harm_is_given_up_by_both(group: Group) -> None:
    notes = Notes()
    settings = recipe(learning_rate=30.0, evaluate_every=2, warmup=0)
    _, record = healed(group, recipe=settings, backs_off=True, reporter=notes)
    assert record.learning_rate < 30.0
    assert any("starting over" in note for note in notes.notes)


def test_two_resume_what_one_began(group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    monkeypatch.setattr(training_run, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        healed(None, checkpoint=path, reporter=Killer(7))
    assert path.exists()
    one, _ = healed(None)
    steps = Steps()
    two, record = healed(group, checkpoint=path, reporter=steps)
    assert steps.totals["Healing"] == 12 - 7
    assert record.steps == 12
    assert difference(one, two) < ROUNDING
    assert not path.exists()


def test_one_resumes_what_two_began(group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    monkeypatch.setattr(training_run, "CHECKPOINT_SECONDS", 0.0)
    settings = recipe(steps=20)
    with monkeypatch.context() as kept:
        kept.setattr(checkpoints, "remove", lambda _path: None)
        two, _ = healed(group, recipe=settings, checkpoint=path)
    assert path.exists(), "two processes look every 16 steps"
    steps = Steps()
    one, _ = healed(None, recipe=settings, checkpoint=path, reporter=steps)
    assert steps.totals["Healing"] == 20 - 16
    assert difference(one, two) < ROUNDING


def test_the_plan_of_two_is_that_of_one_to_the_byte(group: Group, tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    plans = []
    for folder, members in (("one", None), ("two", group)):
        set_current(members)
        pipeline.plan_specialists(world.options(folder, overrides=FAST))
        set_current(None)
        plans.append((world.root / folder / "work" / "plan" / "plan.json").read_bytes())
    assert plans[0] == plans[1]
