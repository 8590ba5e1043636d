"""The report's laws: it survives the disk unchanged, refuses what it would misread, and says only what it measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from minigpt.errors import MiniGPTError
from minigpt.files import to_plain
from minigpt.report import load, save, svg
from minigpt.report.bars import bar, chunks, column, columns, ruler, sparkline
from minigpt.report.figures import (
    final_stage,
    headline,
    kept_per_layer,
)
from minigpt.report.page import write_page
from minigpt.report.text import clean, count, duration, interval, number, size
from minigpt.results import Interval
from minigpt.types import PrunePlan, Shape
from tests.support.reports import make_report, metric, shown, with_metrics


def test_a_saved_report_reads_back_equal(tmp_path):
    report = make_report()
    save(report, tmp_path)
    assert load(tmp_path) == report == load(tmp_path / "report.json")


def broken(tmp_path, change):
    data = to_plain(make_report())
    change(data)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(schema_version=2), "schema_version 2"),
        (lambda data: data.pop("schema_version"), "schema_version None"),
        (lambda data: data.pop("seed"), "seed"),
        (lambda data: data.update(sede=1), "unknown field 'sede'"),
        (lambda data: data["stages"][0].update(loss=1), "unknown field 'stages.0.loss'"),
        (lambda data: data["stages"][1].update(parameters="5"), "stages.1.parameters: '5' has the wrong type"),
        (lambda data: data["stages"][0].update(stage="grown"), "stages.0.stage"),
        (lambda data: data["stages"].append(data["stages"][0]), "twice"),
        (lambda data: data["stages"][0]["metrics"].append(data["stages"][0]["metrics"][0]), "twice"),
        (lambda data: data["stages"][0]["metrics"][0].update(value=float("inf")), "not a finite number"),
        (lambda data: data.update(stages=[]), "no stage"),
    ],
)
def test_a_report_that_would_be_misread_is_refused_by_name(tmp_path, change, words):
    with pytest.raises(MiniGPTError) as error:
        load(broken(tmp_path, change))
    assert words in str(error.value)


def test_missing_and_broken_files_are_one_clear_sentence(tmp_path):
    with pytest.raises(MiniGPTError, match="No report at"):
        load(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(MiniGPTError, match="is not JSON"):
        load(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(MiniGPTError, match="schema_version"):
        load(tmp_path)


def test_a_report_that_is_not_finite_is_not_written(tmp_path):
    report = make_report()
    stages = (replace(report.stages[0], metrics=(metric("medical", "bits_per_byte", float("nan")),)),)
    with pytest.raises(MiniGPTError, match="bits_per_byte of medical in parent"):
        save(replace(report, stages=stages), tmp_path)
    assert not list(tmp_path.iterdir())


def test_headline_holds_the_figures_of_the_final_stage():
    assert headline(make_report()) == pytest.approx(
        {
            "bits_per_byte": 0.7014,
            "ratio_to_parent": 0.9207,
            "ratio_to_tuned_parent": 1.0618,
            "general_ratio_to_parent": 1.2340,
            "parameters_kept": 0.7590,
        },
        abs=1e-4,
    )
    assert "ratio_to_tuned_parent" not in headline(make_report(tuned=False))


def test_final_stage_is_the_furthest_there_is():
    report = make_report()
    assert final_stage(report).stage == "healed"
    assert final_stage(replace(report, stages=report.stages[:1])).stage == "parent"


def test_kept_per_layer_counts_parent_layers():
    plan = PrunePlan(
        base_model="b", method="m", seed=0, layers=(0, 2), ffn=((1, 2, 3), (0, 5, 6)), kv_groups=((0,), (1,))
    )
    before = Shape(layers=3, intermediate_size=8, kv_groups=2, vocab_size=10)
    assert kept_per_layer(plan, before) == {"ffn": (3, 0, 3), "kv_groups": (1, 0, 1)}


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("tuned", [True, False])
def test_the_report_fits_the_terminal_and_holds_its_figures(width, tuned):
    text = shown(make_report(tuned=tuned), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    for part in (
        "minigpt · medical",
        "Q4_1 dequantized",
        "18 min 25 s",
        "134,515,008",
        "75.9 %",
        "204.2 MB",
        "0.681–0.721",
        "0.921×",
        "Better than the parent on its own sources: with 75.9 % of the parameters",
        "0.921× the parent's 0.762 (paired 95 % interval of the difference −0.067 to −0.053)",
        "not distinguishable from the parent",
        "1.234× the parent's bits per byte, worse than the parent",
        "1,280 of 1,536",
        "removed (×): 21, 26",
        "24,576 of 49,152 tokens",
        "Human Phenotype Ontology",
        "HPO license",
        "A congenital defect",
        "best step 150",
        "The glossary questions were made from the ontology.",
    ):
        assert part in flat, part


def test_the_narrow_table_gives_up_the_pruned_column_first():
    assert "0.960–1.000" in shown(make_report(), 100)
    assert "0.960–1.000" not in shown(make_report(), 80)
    assert "0.960–1.000" in shown(make_report(tuned=False), 80)


def test_a_report_of_the_parent_alone_renders():
    report = make_report()
    bare = replace(
        report,
        stages=report.stages[:1],
        kept_per_layer={},
        removed_parameters={},
        attributions=(),
        notes=(),
        corpus_counts={},
        sample_prompt="",
    )
    text = shown(bare)
    assert "0.742–0.782" in text
    assert "What was removed" not in text
    assert "Verdict" not in text


def test_foreign_text_cannot_steer_the_terminal_or_the_markup():
    report = make_report()
    parent = replace(report.stages[0], sample="\x1b[2J [red]ansi[/red] \x07 end")
    text = shown(replace(report, stages=(parent, *report.stages[1:]), domain="medical"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]ansi[/red]" in text


def test_svg_is_a_picture_of_the_same_figures(tmp_path):
    import xml.etree.ElementTree as ElementTree

    svg(make_report(), tmp_path / "report.svg")
    root = ElementTree.parse(tmp_path / "report.svg").getroot()
    text = "".join(root.itertext()).replace("\xa0", " ")
    assert root.tag.endswith("svg")
    assert "0.681–0.721" in text
    assert "minigpt build --domain medical" in text
    first = (tmp_path / "report.svg").read_bytes()
    svg(make_report(), tmp_path / "report.svg")
    assert (tmp_path / "report.svg").read_bytes() == first


def test_bars():
    assert bar(0.5, 4) == "━━  "
    assert bar(3 / 8, 4) == "━╸  "
    assert bar(2, 3) == "━━━"
    assert bar(-1, 3) == "   "
    assert columns((0, 1, 4, 7), 7) == "×▁▄▇"
    assert column(0.001) == "▁"
    assert ruler(0, 12) == "0    5    10"
    assert ruler(48, 8) == "  50   55"
    assert [list(part) for part in chunks(5, 2)] == [[0, 1], [2, 3], [4]]
    assert sparkline((3, 1, 2)) == "▇▁▄"
    assert sparkline((1, 1)) == "▁▁"
    assert sparkline(()) == ""


def test_numbers_as_people_read_them():
    assert count(134_515_008) == "134.5 M"
    assert count(24_576) == "24,576"
    assert size(204_225_456) == "204.2 MB"
    assert size(12) == "12 B"
    assert duration(8.44) == "8.4 s"
    assert duration(59.99) == "1 min 00 s"
    assert duration(3_720) == "1 h 02 min"
    assert number(0.70142) == "0.701"
    assert number(27.84) == "27.8"
    assert number(123456) == "1.2e+05"
    assert interval(3.9, 4.2) == "3.9–4.2"
    assert clean("a" * 10, 5) == "aaaa…"


@pytest.mark.parametrize("control", ["tuned", "distilled"])
def test_a_broken_paired_difference_to_a_control_is_not_written(tmp_path, control):
    broken = {f"paired_difference_vs_{control}": Interval(value=0, low=0, high=float("nan"))}
    ours = replace(metric("medical", "bits_per_byte", 0.7), **broken)
    with pytest.raises(MiniGPTError, match="not a finite number"):
        save(with_metrics(make_report(), healed=(ours,)), tmp_path)


def test_the_quantized_parent_is_explained_and_neurons_are_one_row():
    flat = " ".join(shown(make_report()).split())
    assert "parent weights are counted as bfloat16; the quantized file it came from is smaller" in flat
    assert "neurons, KV groups ━" in flat
    assert "12.4 M 9.2 % of parent" in flat
    assert "by --kinds: embedding 14.2 M, linear 6.2 M, activation 6.2 M, layers 7.1 M" in flat
    assert "quantized file" not in shown(make_report(base_precision="bfloat16"))


@pytest.mark.parametrize("width", [50, 56, 60, 66, 72])
@pytest.mark.parametrize("tuned", [True, False])
def test_a_narrow_terminal_keeps_parent_and_healed(width, tuned):
    text = shown(make_report(tuned=tuned), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "0.742–0.782" in text
    assert "0.681–0.721" in text
    assert "102,097,728" in text
    assert "activation" in text
    assert "10.5 % of parent" in text


def test_widths_that_a_model_does_not_have_are_not_drawn(tmp_path):
    """Layers with a state have no neurons and no heads: the page and the terminal tell of layers and tokens."""
    whole, cut = (Shape(layers=n, intermediate_size=1, kv_groups=1, vocab_size=100) for n in (4, 3))
    kept = {"ffn": (1, 1, 0, 1), "kv_groups": (1, 1, 0, 1)}
    removed = {"layers": 10, "embedding": 5}
    report = replace(
        make_report(), shape_before=whole, shape_after=cut, kept_per_layer=kept, removed_parameters=removed
    )
    flat = " ".join(shown(report, 120).split())
    assert "layers 3 of 4, removed (×): 2" in flat and "FFN neurons" not in flat and "KV groups" not in flat
    write_page(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "FFN neurons" not in page and "layers, neurons" not in page and "3 of 4" in page
