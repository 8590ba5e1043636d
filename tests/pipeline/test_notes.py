"""Notes of a report in plain words: where costs come from, and on which rows trained general text shows."""

from __future__ import annotations

from minigpt.pipeline.notes import general_note, sensitivity_note
from minigpt.pipeline.text import TrainingText
from minigpt.planning import Sensitivity
from minigpt.types import PrunePlan


def plan(sensitivity: str) -> PrunePlan:
    return PrunePlan(
        base_model="b", method="m", seed=0, layers=(0,), ffn=((0,),), kv_groups=((0,),), sensitivity=sensitivity
    )


def test_the_origin_of_costs_is_told() -> None:
    assert sensitivity_note(plan("")) == []
    (shipped,) = sensitivity_note(plan("a tiny model on law text"))
    assert "from a table, measured once (a tiny model on law text)" in shipped
    assert "--set plan.sensitivity=measure" in shipped
    (measured,) = sensitivity_note(plan(Sensitivity(curves={}).source))
    assert "measured on this model" in measured


def test_trained_general_text_is_told_with_the_fairer_row_where_there_is_one() -> None:
    text = TrainingText(real=(), definitions=(), dev=(), general_share=0.5, real_key="", key="")
    note = general_note(text, other=False, tuned=True)
    assert "0.5 times as much as domain text" in note
    assert "into tuning and healing" in note and "the tuned parent had it too" in note
    assert "general/other" not in note
    assert "`general/other`, of sources that nothing was trained on, is the fairer row." in general_note(
        text, other=True, tuned=True
    )


def test_a_note_without_a_tuned_parent_does_not_speak_of_one() -> None:
    text = TrainingText(real=(), definitions=(), dev=(), general_share=0.5, real_key="", key="")
    note = general_note(text, other=True, tuned=False)
    assert "was mixed into healing, 0.5 times" in note and "the parent did not have it" in note
    assert "tun" not in note
