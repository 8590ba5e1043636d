"""The table of specialists against limits: seeds averaged, ratios paired, questions pooled, limits marked."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minigpt.errors import MiniGPTError
from minigpt.evaluate import ItemScores, save_scores
from minigpt.files import read_jsonl, write_jsonl
from minigpt.report import save
from minigpt.sweep.cells import row_of
from tests.sweeping import built, items

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PARENT, TUNED = items(2.0, right=10), items(1.6, right=16)


@pytest.fixture(scope="module")
def quality() -> Any:
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import quality

        yield quality
        sys.modules.pop("quality", None)


def swept(root: Path, *healed: tuple[float, int, ItemScores]) -> Path:
    """A folder as a sweep leaves it: points of size, seed and items."""
    work = root / "medical" / "shared" / "work"
    for name, scores in (("parent", PARENT), ("parent_tuned", TUNED)):
        (work / f"measured_{name}").mkdir(parents=True, exist_ok=True)
        save_scores(scores, work / f"measured_{name}" / "scores.json")
    rows = []
    for size, seed, scores in healed:
        made = built("contextual", size, {"pruned": items(3.0), "healed": scores}, seed=seed)
        made = replace(made, report=replace(made.report, seed=seed, method="contextual"))
        folder = root / "medical" / "points" / made.point.id
        folder.mkdir(parents=True)
        save(made.report, folder / "report.json")
        save_scores(scores, folder / "items_healed.json")
        rows.append(row_of(made, PARENT, key="k", path=(folder / "report.json").relative_to(root).as_posix()))
    write_jsonl(root / "points.jsonl", rows)
    return root


def test_a_cell_is_the_mean_of_its_seeds_and_paired_with_both_controls(quality: ModuleType, tmp_path: Path) -> None:
    folder = swept(tmp_path, (0.5, 0, items(1.7, right=12)), (0.5, 1, items(1.9, right=14)))
    ((key, cell),) = quality.cells_of(quality.points_of([folder])).items()
    assert key == ("medical", "contextual", 0.5) and [point.report.seed for point in cell] == [0, 1]
    assert quality.text_ratio(cell, "medical", "parent").value == pytest.approx(1.8 / 2.0)
    assert quality.text_ratio(cell, "medical", "tuned").value == pytest.approx(1.8 / 1.6)
    assert quality.text_ratio(cell, "general", "parent").value == pytest.approx(2.3 / 2.5)
    ours, parents, chance = quality.right_answers(cell, "medical/glossary")
    assert quality.difference([(ours, parents)]).value == pytest.approx(0.15)
    share = quality.share_of_parent(ours, parents, chance)
    assert share.value == pytest.approx((0.65 - 0.25) / (0.5 - 0.25)) and share.low < share.value < share.high


def test_questions_are_pooled_one_by_one(quality: ModuleType) -> None:
    import numpy as np

    few, many = (np.ones(2), np.zeros(2)), (np.zeros(6), np.zeros(6))
    assert quality.difference([few, many]).value == pytest.approx(2 / 8)


def test_a_share_of_guessing_is_none(quality: ModuleType) -> None:
    import numpy as np

    assert quality.share_of_parent(np.ones(8), np.array([1.0, 0, 0, 0] * 2), 0.25) is None


def test_what_is_above_a_limit_is_marked(quality: ModuleType, tmp_path: Path) -> None:
    points = quality.points_of([swept(tmp_path, (0.75, 0, items(1.79)), (0.5, 0, items(1.7)))])
    first, second = (line for line in quality.table(points).splitlines() if line.startswith("| medical"))
    assert first.startswith("| medical, 75% (1) | 0.8950 (") and "| 1.1187 (" in first and first.count(" *") == 1
    assert second.startswith("| medical, 50% (1) | 0.8500 (") and " *" not in second
    assert "Questions of all domains at 75% (n 20): +0.000" in quality.table(points)


def test_a_point_in_two_folders_counts_once(quality: ModuleType, tmp_path: Path) -> None:
    one = swept(tmp_path / "one", (0.5, 0, items(1.7)))
    two = swept(tmp_path / "two", (0.5, 0, items(1.9)), (0.5, 1, items(1.8)))
    points = quality.points_of([one, two])
    assert [point.items.texts["medical"].bits_per_byte for point in points] == [pytest.approx(1.7), pytest.approx(1.8)]


def test_lines_hold_every_score(
    quality: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, lines = swept(tmp_path / "s", (0.35, 2, items(1.7, right=12))), tmp_path / "lines.jsonl"
    monkeypatch.setattr(sys, "argv", ["quality.py", str(folder), "--lines", str(lines)])
    quality.main()
    assert "| medical, 35% (1) |" in capsys.readouterr().out
    (line,) = read_jsonl(lines)
    assert (line["size"], line["seed"], line["kept"]) == (0.35, 2, pytest.approx(0.35))
    found: Any = line
    assert found["texts"]["medical"]["tuned"]["value"] == pytest.approx(1.7 / 1.6)
    assert found["questions"]["medical/glossary"]["tuned"] == pytest.approx(0.8)


def test_a_folder_without_healed_points_is_refused(quality: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(MiniGPTError, match="holds no healed points"):
        quality.points_of([swept(tmp_path)])
