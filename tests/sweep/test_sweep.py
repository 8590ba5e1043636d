"""What a sweep concludes and draws, from points made by hand."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from minigpt.errors import ConfigError, MiniGPTError
from minigpt.evaluation.paired import averaged, metric_interval, paired
from minigpt.files import to_plain
from minigpt.results import Interval
from minigpt.sweep import DomainSweep, Matrix, SweepOptions, SweepReport
from minigpt.sweep.cells import FinishedPoint, cells_of, pareto_of, scores_of
from minigpt.sweep.chart import render_matrix, render_sweep, sentences
from minigpt.sweep.page import draw
from minigpt.sweep.plots import collapse, drawn_keys, influence, need_matplotlib, quality, save_figure
from minigpt.sweep.plots import matrix as matrix_figure
from minigpt.sweep.records import MatrixCell
from tests.support.sweeping import DOCUMENTS, finished_point, items

PARENT = items(1.0, noise=0.1)


def shown(renderable: Any) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def points() -> list[FinishedPoint]:
    """A sweep with healing: `good` as good as the parent at 0.75, `bad` worse everywhere, both near it at 0.9."""
    finished = []
    for method, before, after in (("good", 1.3, 1.0), ("bad", 2.9, 1.2)):
        finished.append(finished_point(method, 0.9, {"pruned": items(1.1, noise=0.1), "healed": items(1.0, noise=0.1)}))
        finished.append(
            finished_point(
                method,
                0.75 if method == "good" else 0.752,
                {"pruned": items(before, noise=0.1), "healed": items(after, noise=0.1, right=8)},
                layers=24,
                only_layers=True,
            )
        )
    return finished


def domain_sweep(finished: list[FinishedPoint] | None = None, **changes: Any) -> DomainSweep:
    finished = points() if finished is None else finished
    cells = cells_of(finished, PARENT)
    last = "healed" if any(cell.stage == "healed" for cell in cells) else "pruned"
    return replace(
        DomainSweep(
            domain="medical",
            parameters=100_000_000,
            controls=scores_of("parent", [PARENT], None),
            cells=cells,
            pareto=pareto_of(cells, finished, {"parent": PARENT}, stage=last),
            block_influence=(0.5, 0.02, 0.01, 0.3),
            angular=tuple(tuple(abs(i - j) * 0.1 for j in range(5)) for i in range(5)),
        ),
        **changes,
    )


def sweep_report(*domains: DomainSweep, **changes: Any) -> SweepReport:
    report = SweepReport(
        base_model="base & co",
        base_precision="float32",
        preset="quick",
        healing="preset",
        device="cpu",
        versions={"torch": "2"},
        domains=domains,
    )
    return replace(report, **changes)


def test_the_ratio_is_paired() -> None:
    """A child that needs exactly 1.2 times the bits of each document has an interval without width."""
    ours = averaged([items(1.2, noise=0.12).texts["medical"]], "bits_per_byte")
    baseline = averaged([items(1.0, noise=0.1).texts["medical"]], "bits_per_byte")
    bounds = paired(ours, baseline, "bits_per_byte", how="ratio")
    assert (bounds.value, bounds.low, bounds.high) == pytest.approx((1.2, 1.2, 1.2))
    alone = metric_interval(ours, "bits_per_byte")
    assert alone.high - alone.low > 0.01


def test_the_interval_of_a_difference_agrees_with_a_bootstrap_written_out() -> None:
    ours, baseline = items(1.1, noise=0.4, seed=1).texts["medical"], items(1.0, noise=0.4, seed=2).texts["medical"]
    bounds = paired(averaged([ours], "bits_per_byte"), averaged([baseline], "bits_per_byte"), "bits_per_byte")
    draw, values = np.random.default_rng(99), []
    for _ in range(4000):
        indices = draw.integers(DOCUMENTS, size=DOCUMENTS)
        values.append(sum(ours.bits[i] - baseline.bits[i] for i in indices) / (100 * DOCUMENTS))
    low, high = np.percentile(values, [2.5, 97.5])
    assert bounds.value == pytest.approx(ours.bits_per_byte - baseline.bits_per_byte)
    assert (bounds.low, bounds.high) == pytest.approx((low, high), abs=0.02)


def test_items_that_differ_are_not_averaged_or_paired() -> None:
    text = items(1.0).texts["medical"]
    shorter = replace(
        text, keys=text.keys[:3], bits=text.bits[:3], bytes=text.bytes[:3], words=text.words[:3], tokens=text.tokens[:3]
    )
    with pytest.raises(MiniGPTError, match="different documents"):
        averaged([text, shorter], "bits_per_byte")
    with pytest.raises(MiniGPTError, match="same suite"):
        paired(averaged([text], "bits_per_byte"), averaged([shorter], "bits_per_byte"), "bits_per_byte")


def test_seeds_are_averaged_before_the_bootstrap() -> None:
    runs = [
        finished_point("random", 0.75, {"pruned": items(level)}, seed=seed) for seed, level in enumerate((1.1, 1.3))
    ]
    (cell,) = cells_of(runs, PARENT)
    assert cell.points == ("random-0.75-s0-none", "random-0.75-s1-none")
    assert cell.spread == pytest.approx((1.1, 1.3))
    score = cell.score("medical", "bits_per_byte")
    assert score and score.value.value == pytest.approx(1.2)
    assert score.value.high - score.value.low == pytest.approx(0)
    accuracy = cell.score("medical/glossary", "accuracy")
    assert accuracy and accuracy.value.value == 0.5 and accuracy.chance == 0.25 and accuracy.ratio is None


def test_the_pareto_set_by_hand() -> None:
    result = domain_sweep()
    names = {(result.cells[place].method, result.cells[place].size) for place in result.pareto.front}
    assert names == {("good", 0.9), ("bad", 0.9), ("good", 0.75)}, "0.752 is no larger than 0.75 within 1 %"
    for reference in ("parent", "best"):
        place = result.pareto.smallest[reference]
        assert place is not None
        assert (result.cells[place].method, result.cells[place].size, result.cells[place].stage) == (
            "good",
            0.75,
            "healed",
        )


def test_where_everything_is_worse_no_size_is_named() -> None:
    result = domain_sweep([finished_point("bad", 0.5, {"pruned": items(2.0)})])
    assert result.pareto.smallest["parent"] is None
    assert result.pareto.smallest["best"] == 0
    assert sentences(result)[0].startswith("Every point is significantly worse than the parent")


def test_few_documents_make_no_verdict() -> None:
    """A bootstrap of three documents cannot call anything worse."""

    def few(scores: Any) -> Any:
        text = scores.texts["medical"]
        cut = {name: getattr(text, name)[:3] for name in ("keys", "bits", "bytes", "words", "tokens")}
        return replace(scores, texts={"medical": type(text)(**cut)})

    run = finished_point("bad", 0.5, {"pruned": few(items(2.0))})
    cells = cells_of([run], few(PARENT))
    pareto = pareto_of(cells, [run], {"parent": few(PARENT)}, stage="pruned")
    assert pareto.front == (0,) and not pareto.smallest
    assert sentences(replace(domain_sweep(), pareto=pareto))[0].startswith("Too few held-out documents of medical")


def test_points_go_from_mild_to_hard_and_repeat_only_what_is_random() -> None:
    options = SweepOptions(domains=("law",), methods=("contextual", "random"), sizes=(0.5, 0.9, 0.5), seeds=2)
    assert [point.id for point in options.points] == [
        f"{name}-none"
        for size in ("0.9", "0.5")
        for name in (f"contextual-{size}-s0", f"random-{size}-s0", f"random-{size}-s1")
    ]
    healed = replace(options, healing="preset")
    assert len(healed.points) == 8


@pytest.mark.parametrize("wrong", [{"sizes": ()}, {"sizes": (1.5,)}, {"seeds": 0}, {"methods": ()}])
def test_senseless_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SweepOptions(**{"domains": ("law",), "methods": ("random",), "sizes": (0.5,), **wrong})


def paired_ratio(level: float) -> float:
    """Bits of all documents at `level` over the parent's, which have the same noise."""
    return sum(items(level, noise=0.1).texts["medical"].bits) / sum(PARENT.texts["medical"].bits)


def test_the_terminal_shows_every_point_and_the_verdict() -> None:
    text = shown(render_sweep(sweep_report(domain_sweep(skipped={"flap-0.1-s0-none": "No legal shape."}))))
    assert f"{paired_ratio(1.2):.3f}×" in text
    assert text.count("★") == 4, "three cells and the legend"
    assert "Smallest not significantly worse than the parent: good at 0.75" in text
    assert "skipped flap-0.1-s0-none: No legal shape." in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_whole_ratios_and_intervals(width: int) -> None:
    with Path("/dev/null").open("w") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        console.print(render_sweep(sweep_report(domain_sweep())))
    text = console.export_text()
    (cell,) = [
        cell for cell in domain_sweep().cells if cell.stage == "healed" and cell.kept < 0.8 and cell.method == "bad"
    ]
    ratio = next(score.ratio for score in cell.scores if score.ratio is not None and score.task == "medical")
    assert f"{ratio.value:.3f}×" in text and f"{ratio.low:.3f}–{ratio.high:.3f}" in text
    assert "…" not in text


def test_a_sweep_without_points_is_still_shown() -> None:
    assert "medical" in shown(render_sweep(sweep_report(domain_sweep([]))))


def test_the_domain_comes_first_in_pictures() -> None:
    assert [task for task, _ in drawn_keys(domain_sweep())] == ["medical", "medical/glossary", "general"]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    files = draw(sweep_report(domain_sweep(skipped={"x": "<b>no</b>"})), tmp_path)
    for name in ("medical-quality", "medical-collapse", "medical-angular", "block-influence"):
        assert {f"plots/{name}.svg", f"plots/{name}.png"} <= set(files)
        ElementTree.parse(tmp_path / "plots" / f"{name}.svg")
    page = (tmp_path / "index.html").read_text("utf-8")
    assert page.count("<svg") == 4
    assert "&lt;b&gt;no" in page and "base &amp; co" in page
    outside = re.findall(r"(?:src|href)=\"(?!#|data:)([^\"]+)", page)
    assert outside == []
    assert "<script" not in page and "@import" not in page


def test_the_same_figure_gives_the_same_svg(tmp_path: Path) -> None:
    first, _ = save_figure(quality(domain_sweep()), tmp_path / "a", "q")
    second, _ = save_figure(quality(domain_sweep()), tmp_path / "b", "q")
    assert first.read_bytes() == second.read_bytes()


def test_the_quality_picture_holds_the_numbers() -> None:
    figure = quality(domain_sweep())
    axis = figure.axes[1]
    lines = {container.get_label(): container.lines[0] for container in axis.containers}
    assert sorted(lines) == ["bad", "good"]
    places, values = lines["good"].get_data()
    assert list(values) == pytest.approx([1.0, 1.0])
    assert sorted(places) == pytest.approx([75, 90], abs=0.3)


def test_the_collapse_curve_starts_at_the_parent_and_counts_layers() -> None:
    figure = collapse(domain_sweep())
    assert figure is not None
    solid = [line for line in figure.axes[0].lines if line.get_linestyle() == "-" and line.get_label() == "good"]
    assert list(solid[0].get_xdata()) == pytest.approx([0, 20])
    assert solid[0].get_ydata()[0] == pytest.approx(PARENT.texts["medical"].bits_per_byte)
    assert sum(line.get_linestyle() == "--" for line in figure.axes[0].lines) == 2
    assert collapse(domain_sweep([finished_point("flap", 0.75, {"pruned": items(1.1)})])) is None


def test_influence_has_a_row_for_each_domain() -> None:
    figure = influence([domain_sweep(), domain_sweep(domain="law"), domain_sweep(block_influence=())])
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["medical", "law"]
    assert influence([domain_sweep(block_influence=())]) is None


def test_pictures_without_matplotlib_are_refused_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else real(name))
    with pytest.raises(ConfigError, match=r"minigpt\[plots\]"):
        need_matplotlib()
    from minigpt.sweep import sweep

    with pytest.raises(ConfigError, match="--no-pictures"):
        sweep(SweepOptions(domains=("x",), methods=("random",), sizes=(0.5,), output_dir=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def small_matrix() -> Matrix:
    cells = tuple(
        MatrixCell(
            model=model,
            domain=domain,
            own=model == domain,
            value=Interval(value=value, low=value, high=value),
            parent=1.0,
            ratio=Interval(value=value, low=value - 0.01, high=value + 0.01),
            n=20,
        )
        for model, row in (("law", (0.9, 1.5)), ("medical", (1.4, 0.95)))
        for domain, value in zip(("law", "medical"), row, strict=True)
    )
    return Matrix(models=("law", "medical"), domains=("law", "medical"), cells=cells)


def test_the_matrix_is_drawn_and_told() -> None:
    text = shown(render_matrix(small_matrix()))
    assert re.search(r"law\s+0\.900×\s+1\.500×", text)
    figure = matrix_figure(small_matrix())
    image = figure.axes[0].images[0].get_array()
    assert image[0, 1] == pytest.approx(math.log2(1.5))
    assert len(figure.axes[0].patches) == 2, "a frame around each model's own domain"


def test_the_report_is_plain_json() -> None:
    json.dumps(to_plain(sweep_report(domain_sweep())), allow_nan=False)
