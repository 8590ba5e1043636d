"""Gates: an expression that comes true fails with its figures; one that cannot be decided never passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minigpt.errors import ConfigError, GateFailed
from minigpt.report import check_gate, parse_gate
from tests.support.reports import make_report

GOOD, BAD = ("good", make_report()), ("bad", make_report(healed=0.7823))
LAW = ("law", make_report("law"))


def test_grammar():
    gate = parse_gate(" bits_per_byte @ general >= 1.5x ")
    assert (gate.metric, gate.task, gate.op, gate.number, gate.relative) == (
        "bits_per_byte",
        "general",
        ">=",
        1.5,
        True,
    )
    assert parse_gate("bpb<.9") == parse_gate("bits_per_byte < 0.9")
    assert parse_gate("accuracy@medical/glossary<0.4").task == "medical/glossary"


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "bits_per_byte",
        "bits_per_byte=1",
        ">1",
        "bits_per_byte>",
        "bits_per_byte>x",
        "bits_per_byte>1.02y",
        "bits_per_byte>-1",
        "bits_per_byte>1>2",
        "loss>1",
        "bits_per_byte@>1",
    ],
)
def test_a_bad_expression_is_answered_with_an_example(expression):
    with pytest.raises(ConfigError, match=r"bits_per_byte>1\.02x"):
        check_gate(expression, [GOOD])


def test_relative_to_the_first_model():
    with pytest.raises(GateFailed) as error:
        check_gate("bits_per_byte>1.02x", [GOOD, BAD])
    for part in ("bad", "0.7823", "0.7154", "1.02 × 0.7014 of good"):
        assert part in str(error.value)
    assert len(check_gate("bits_per_byte>1.02x", [BAD, GOOD])) == 1
    assert check_gate("bits_per_byte>1.2x", [GOOD, BAD])


def test_every_other_model_is_looked_at():
    with pytest.raises(GateFailed, match="bad"):
        check_gate("bits_per_byte>1.02x", [GOOD, GOOD, BAD])


def test_relative_to_the_parent_of_a_single_report():
    assert check_gate("bits_per_byte>0.95x", [GOOD])
    with pytest.raises(GateFailed, match=r"0\.95 × 0\.7618 of its parent"):
        check_gate("bits_per_byte>0.95x", [BAD])


def test_absolute_gates_hold_for_all_models_the_first_included():
    with pytest.raises(GateFailed, match="bad"):
        check_gate("bits_per_byte>0.75", [BAD, GOOD])
    assert len(check_gate("bits_per_byte>0.8", [GOOD, BAD])) == 2


@pytest.mark.parametrize(
    ("expression", "fails"),
    [
        ("bits_per_byte>0.7014", False),
        ("bits_per_byte>=0.7014", True),
        ("bits_per_byte<0.7014", False),
        ("bits_per_byte<=0.7014", True),
    ],
)
def test_borders(expression, fails):
    if fails:
        with pytest.raises(GateFailed):
            check_gate(expression, [GOOD])
    else:
        assert check_gate(expression, [GOOD])


def test_tasks():
    for task in ("medical/glossary", "glossary"):
        with pytest.raises(GateFailed, match="medical/glossary"):
            check_gate(f"accuracy_norm@{task}<0.6", [GOOD])
    with pytest.raises(GateFailed, match="medical/glossary"):
        check_gate("accuracy_norm<0.6", [GOOD])
    assert check_gate("bits_per_byte@general>1.3x", [GOOD, LAW])


@pytest.mark.parametrize(
    ("expression", "reports", "words"),
    [
        ("bits_per_byte>1.02x", [GOOD, LAW], "measured on law, not medical"),
        ("bits_per_byte@nowhere>1", [GOOD], "measured on general, medical"),
        ("accuracy<0.4", [GOOD], "measured on nothing"),
        ("token_perplexity>1.1x", [GOOD], "not comparable (other tokenizer)"),
        ("bits_per_byte>1.1x", [("p", replace(GOOD[1], stages=GOOD[1].stages[:1]))], "its parent has no"),
        ("bits_per_byte>1", [], "at least one report"),
    ],
)
def test_what_cannot_be_decided_does_not_pass(expression, reports, words):
    with pytest.raises(ConfigError) as error:
        check_gate(expression, reports)
    assert words in str(error.value)


def test_gates_compare_values_even_of_too_few_documents():
    report = make_report()
    stages = tuple(
        replace(stage, metrics=tuple(replace(result, n=1) for result in stage.metrics)) for stage in report.stages
    )
    few = replace(report, stages=stages)
    assert check_gate("bits_per_byte>0.95x", [("few", few)])
    with pytest.raises(GateFailed):
        check_gate("bits_per_byte>0.9x", [("few", few)])
