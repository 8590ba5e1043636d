from __future__ import annotations

from typing import Any

import pytest
import torch

from minigpt.errors import ConfigError
from minigpt.tickets.delta import in_dtype, parameters_of
from minigpt.tickets.delta_masks import random_mask, scores_of, squared_gradients, top_mask
from minigpt.tickets.delta_settings import DeltaSettings
from minigpt.tickets.delta_training import find_ticket, rounds_of
from tests.support.healing import VOCABULARY, patterned, recipe
from tests.support.tiny import tiny_model


def test_the_largest_changes_of_all_tensors_are_kept() -> None:
    parent = {"a": torch.zeros(2, 2), "b": torch.ones(4)}
    tuned = {"a": torch.tensor([[0.1, -5.0], [0.0, 2.0]]), "b": torch.tensor([1.0, 4.0, 1.5, 1.0])}
    mask = top_mask(scores_of(parent, tuned), 3 / 8)
    assert mask["a"].tolist() == [[False, True], [False, True]]
    assert mask["b"].tolist() == [False, True, False, False]
    mask = top_mask(scores_of(parent, tuned), 1 / 4, "layer")
    assert mask["a"].tolist() == [[False, True], [False, False]]
    assert mask["b"].tolist() == [False, True, False, False]


def test_fisher_weighs_a_change_by_the_root_of_the_squared_gradient() -> None:
    parent, tuned = {"a": torch.zeros(3)}, {"a": torch.tensor([1.0, -2.0, 3.0])}
    scores = scores_of(parent, tuned, {"a": torch.tensor([9.0, 4.0, 0.0])})
    assert scores["a"].tolist() == [3.0, 4.0, 0.0]


def test_squared_gradients_are_those_of_torch() -> None:
    model, text = tiny_model(vocab_size=VOCABULARY), patterned(12)
    found = squared_gradients(model, text, recipe(tokens_per_step=10_000), batches=1)
    ids = [torch.tensor([window]) for window in text.windows]
    count = sum(window.shape[1] - 1 for window in ids)
    loss = sum(
        torch.nn.functional.cross_entropy(model(window).logits[0, :-1], window[0, 1:], reduction="sum")
        for window in ids
    )
    (loss / count).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad**2, rtol=1e-3, atol=1e-9)


def test_a_random_mask_has_the_densities_of_the_other() -> None:
    like = {"a": torch.rand(40, 50) < 0.1, "b": torch.zeros(7, dtype=torch.bool)}
    drawn = random_mask(like, 0)
    assert {name: int(mask.sum()) for name, mask in drawn.items()} == {name: int(m.sum()) for name, m in like.items()}
    assert not torch.equal(drawn["a"], like["a"])
    assert torch.equal(random_mask(like, 0)["a"], drawn["a"])


def test_rounds_fall_geometrically_and_share_the_steps() -> None:
    rounds = rounds_of(0.008, DeltaSettings(rounds=3, steps=1000, last=0.5))
    assert [step.fraction for step in rounds] == pytest.approx([0.2, 0.04, 0.008])
    assert [step.steps for step in rounds] == [250, 250, 500]
    assert rounds_of(0.05, DeltaSettings(rounds=1, steps=100))[0].steps == 100


@pytest.mark.parametrize("score", ["magnitude", "fisher"])
def test_a_ticket_changes_no_more_than_its_share_and_learns(score: Any) -> None:
    model = tiny_model(vocab_size=VOCABULARY).to(torch.bfloat16).float()
    parent = in_dtype(parameters_of(model), torch.bfloat16)
    text, dev = patterned(60), patterned(8, seed=1)
    tuned, _ = _tuned(model, text, dev), None
    settings = DeltaSettings(rounds=2, steps=80, learning_rate=1e-2, distill=0.0, score=score)
    mask, trainings = find_ticket(tuned, parent, 0.05, settings, text, dev, recipe())
    assert len(trainings) == 2
    changed = total = 0
    for name, tensor in parameters_of(tuned).items():
        differs = tensor.to(torch.bfloat16) != parent[name]
        assert not (differs & ~mask[name]).any()
        changed, total = changed + int(differs.sum()), total + differs.numel()
    assert 0 < changed <= round(0.05 * total)
    first, last = trainings[-1].dev_losses[0][1], min(loss for _, loss in trainings[-1].dev_losses)
    assert last < first


def _tuned(model: Any, text: Any, dev: Any) -> Any:
    from minigpt.healing import train

    train(model, text, dev, recipe(steps=40))
    return model


@pytest.mark.parametrize("field", [{"rounds": 0}, {"last": 0.0}, {"learning_rate": 0.0}, {"distill": 2.0}])
def test_settings_outside_of_their_range_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"delta.{next(iter(field))} must be"):
        DeltaSettings(**field)
