"""Samples that repeat a text of the build are left out of what is published; other samples stay."""

from __future__ import annotations

from minigpt.pipeline.coverage import without_recited
from minigpt.types import Document
from tests.support.reports import make_report, stage

VALUES = {"bpb": 0.8, "general": 0.9, "glossary": 0.3}
SECRET = "The patient in room seven was treated with aspirin and went home on the following Monday morning."


def test_a_sample_with_eight_words_of_a_text_in_a_row_is_left_out() -> None:
    repeats = stage("healed", "medical", VALUES, sample=f"Yes: {SECRET[4:70]} and so on.")
    invents = stage("parent", "medical", VALUES, sample="The patient was treated with water, and went home on foot.")
    report = make_report(stages=(invents, repeats))
    shown = without_recited(report, [Document(text=SECRET, source="note 7")])
    assert [one.sample for one in shown.stages] == [invents.sample, ""]
    assert [one.metrics for one in shown.stages] == [one.metrics for one in report.stages]


def test_short_and_empty_samples_stay() -> None:
    report = make_report(stages=(stage("parent", "medical", VALUES, sample=""), stage("healed", "medical", VALUES)))
    assert without_recited(report, [Document(text=SECRET, source="note 7")]) == report
