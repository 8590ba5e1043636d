"""The table of specialists against limits: seeds averaged, ratios paired, questions pooled, limits marked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minigpt.errors import MiniGPTError
from minigpt.evaluation import ItemScores, save_scores
from minigpt.files import read_jsonl, write_jsonl
from minigpt.report import save
from minigpt.sweep.cells import row_of
from tests.support.scripts import script
from tests.support.sweeping import built, items

PARENT, TUNED = items(2.0, noise=1.0, seed=7, right=10), items(1.6, right=16)


@pytest.fixture(scope="module")
def quality() -> Any:
    """The script as a module."""
    with script("quality") as module:
        yield module


def times(scores: ItemScores, factor: float, right: int) -> ItemScores:
    """Every document at `factor` times its bits, so that paired ratios are that factor without any noise."""
    texts = {
        task: replace(found, bits=tuple(factor * each for each in found.bits)) for task, found in scores.texts.items()
    }
    return replace(items(1.0, right=right), texts=texts)


def controls(work: Path, parent: ItemScores = PARENT, tuned: ItemScores = TUNED) -> None:
    for name, scores in (("parent", parent), ("parent_tuned", tuned)):
        (work / f"measured_{name}").mkdir(parents=True, exist_ok=True)
        save_scores(scores, work / f"measured_{name}" / "scores.json")


def swept(
    root: Path,
    healed: Mapping[tuple[float, int], ItemScores],
    *,
    method: str = "contextual",
    domain: str = "medical",
    parent: ItemScores = PARENT,
    tuned: ItemScores = TUNED,
) -> Path:
    """A folder as a sweep leaves it: points by size and seed."""
    controls(root / domain / "shared" / "work", parent, tuned)
    rows = []
    for (size, seed), scores in healed.items():
        made = built(method, size, {"pruned": items(3.0), "healed": scores}, seed=seed)
        made = replace(made, report=replace(made.report, seed=seed, method=method, seconds=60 + seed))
        folder = root / domain / "points" / made.point.id
        folder.mkdir(parents=True)
        save(made.report, folder / "report.json")
        save_scores(scores, folder / "items_healed.json")
        rows.append(row_of(made, PARENT, key="k", path=(folder / "report.json").relative_to(root).as_posix()))
    write_jsonl(root / "points.jsonl", rows)
    return root


def test_a_cell_is_the_mean_of_its_seeds_and_paired_with_both_controls(quality: ModuleType, tmp_path: Path) -> None:
    folder = swept(tmp_path, {(0.5, 0): times(PARENT, 0.85, 12), (0.5, 1): times(PARENT, 0.95, 14)})
    ((key, cell),) = quality.cells_of(quality.healed_in([folder])).items()
    assert (key[0], *key[3:]) == ("medical", "contextual", 0.5) and [each.report.seed for each in cell] == [0, 1]
    for task in ("medical", "general"):
        found = quality.scores_against(cell, "parent")[task, "bits_per_byte"].ratio
        assert [found.low, found.value, found.high] == pytest.approx([0.9, 0.9, 0.9])
        level = sum(PARENT.texts[task].bits) / sum(TUNED.texts[task].bits)
        other = quality.scores_against(cell, "tuned")[task, "bits_per_byte"].ratio
        assert other.value == pytest.approx(0.9 * level) and other.low < other.value < other.high
    ours, parents = quality.right_answers(cell, "medical/glossary")
    assert quality.pooled([(ours, parents)]).value == pytest.approx(0.15)
    share = quality.share_of_parent(ours, parents, 0.25)
    assert share.value == pytest.approx((0.65 - 0.25) / (0.5 - 0.25)) and share.low < share.value < share.high


def answered(*right: float) -> Any:
    """Counted and asked, a row a question."""
    return np.stack([np.array(right, dtype=float), np.ones(len(right))], axis=1)


def test_questions_are_pooled_one_by_one(quality: ModuleType) -> None:
    few, many = (answered(*[1] * 20), answered(*[0] * 20)), (answered(*[0] * 60), answered(*[0] * 60))
    found = quality.pooled([few, many])
    assert found.value == pytest.approx(20 / 80)
    assert 0.1 < found.low < 0.2 and 0.3 < found.high < 0.4  # 0.25 -+ 2 x sqrt(0.25 x 0.75 / 80)


def test_where_the_parent_guesses_there_is_no_share(quality: ModuleType) -> None:
    assert quality.share_of_parent(answered(*[1] * 8), answered(*[1, 0, 0, 0] * 2), 0.25) is None
    lucky = answered(*[1] * 6, *[0] * 14)  # 0.30, above chance by luck
    assert quality.share_of_parent(answered(*[1] * 20), lucky, 0.25) is None


def row(quality: ModuleType, folder: Path) -> list[str]:
    (found,) = (line for line in quality.table(quality.healed_in([folder])).splitlines() if line.startswith("| medi"))
    return [cell.strip() for cell in found.strip("|").split("|")]


@pytest.mark.parametrize(("size", "of_parent", "of_tuned"), [(0.75, 0.9, 1.03), (0.5, 0.98, 1.1), (0.35, 1.08, 1.2)])
def test_only_what_is_above_a_limit_is_marked(
    quality: ModuleType, tmp_path: Path, size: float, of_parent: float, of_tuned: float
) -> None:
    for factor, marks in ((-0.001, [False, False]), (0.001, [True, True])):
        parent, tuned = items(2.0), items(2.0 * of_parent / of_tuned)
        folder = tmp_path / f"{factor}"
        swept(folder, {(size, 0): items(2.0 * (of_parent + factor))}, parent=parent, tuned=tuned)
        assert [cell.endswith("*") for cell in row(quality, folder)[2:4]] == marks


def test_a_row_says_which_number_is_whose(quality: ModuleType, tmp_path: Path) -> None:
    cells = row(quality, swept(tmp_path, {(0.6, 0): times(PARENT, 0.9, 12)}))
    assert cells[0].startswith("medical,") and cells[0].endswith("contextual, 60% (1)")
    assert cells[2] == "0.9000 (0.900-0.900)" and cells[4] == "0.9000 (0.900-0.900)"
    assert cells[5] == "0.500, 0.800, 0.600 (n 20)"
    assert cells[6].startswith("+0.100 (") and cells[7].startswith("-0.200 (")


def test_methods_are_not_pooled_with_each_other(quality: ModuleType, tmp_path: Path) -> None:
    one = swept(tmp_path / "one", {(0.5, 0): items(1.7, right=12)})
    two = swept(tmp_path / "two", {(0.5, 0): items(1.7, right=4)}, method="flap")
    pooled = [line for line in quality.table(quality.healed_in([one, two])).splitlines() if "together" in line]
    assert len(pooled) == 2 and all("1 domains, n 20" in line for line in pooled)
    assert "contextual" in pooled[0] and "+0.100 (" in pooled[0] and "-0.300 (" in pooled[1]


def test_a_model_in_two_folders_counts_once(quality: ModuleType, tmp_path: Path) -> None:
    one = swept(tmp_path / "one", {(0.5, 0): items(1.7)})
    two = swept(tmp_path / "two", {(0.5, 0): items(1.9), (0.5, 1): items(1.8)})
    models = quality.healed_in([one, two])
    assert [model.items.texts["medical"].bits_per_byte for model in models] == [pytest.approx(1.7), pytest.approx(1.8)]


def test_seeds_with_different_controls_are_refused(quality: ModuleType, tmp_path: Path) -> None:
    one = swept(tmp_path / "one", {(0.5, 0): items(1.7)})
    two = swept(tmp_path / "two", {(0.5, 1): items(1.8)}, tuned=items(1.5))
    with pytest.raises(MiniGPTError, match="different parents"):
        quality.cells_of(quality.healed_in([one, two]))


def test_controls_of_other_items_are_refused(quality: ModuleType, tmp_path: Path) -> None:
    text = PARENT.texts["medical"]
    turned = replace(PARENT, texts={**PARENT.texts, "medical": replace(text, keys=text.keys[::-1])})
    with pytest.raises(MiniGPTError, match="different items"):
        quality.healed_in([swept(tmp_path, {(0.5, 0): items(1.7)}, parent=turned)])


def test_lines_hold_every_score(
    quality: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, lines = swept(tmp_path / "s", {(0.35, 2): items(1.7, right=12)}), tmp_path / "lines.jsonl"
    monkeypatch.setattr(sys, "argv", ["quality.py", str(folder), "--lines", str(lines), "--label", "as it is"])
    quality.main()
    assert "contextual, 35% (1) |" in capsys.readouterr().out
    (line,) = read_jsonl(lines)
    assert (line["size"], line["seed"], line["kept"], line["label"]) == (0.35, 2, pytest.approx(0.35), "as it is")
    assert line["seconds"] == 62
    found: Any = line
    text, asked = found["texts"]["medical"], found["questions"]["medical/glossary"]
    assert (text["bits_per_byte"], text["tuned"]["value"]) == (pytest.approx(1.7), pytest.approx(1.7 / 1.6))
    assert (asked["parent"], asked["tuned"], asked["accuracy"]) == pytest.approx((0.5, 0.8, 0.6))
    assert (asked["difference"]["value"], asked["difference_to_tuned"]["value"]) == pytest.approx((0.1, -0.2))


def test_a_build_is_read_like_a_point(quality: ModuleType, tmp_path: Path) -> None:
    made = built("contextual", 0.75, {"healed": items(1.8)}).report
    save(made, tmp_path / "report.json")
    controls(tmp_path / "work")
    (tmp_path / "work" / "measured_healed").mkdir()
    save_scores(items(1.8), tmp_path / "work" / "measured_healed" / "scores.json")
    (model,) = quality.healed_in([tmp_path])
    assert (model.size, model.items) == (0.75, items(1.8))


def test_a_folder_without_healed_models_is_refused(quality: ModuleType, tmp_path: Path) -> None:
    for folder in (swept(tmp_path / "s", {}), tmp_path):
        with pytest.raises(MiniGPTError, match="holds no healed model"):
            quality.healed_in([folder])
