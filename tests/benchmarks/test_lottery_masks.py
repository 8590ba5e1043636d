"""The benchmark of one-shot masks: what each domain keeps, and what the parent loses under another domain's mask."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from minigpt.parsing import load_json
from tests.support.scripts import script
from tests.support.worlds import World


@pytest.fixture(scope="module")
def masks() -> Any:
    with script("lottery_masks") as module:
        yield module


@pytest.mark.parametrize("criterion", ["wanda", "magnitude"])
def test_a_domain_beside_itself_shares_its_mask_and_loses_nothing(
    masks: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, criterion: str
) -> None:
    (world.root / "same.yaml").write_text((world.root / "words.yaml").read_text())
    arguments = ["--data", str(world.root), "--domains", "words,same", "--json", str(tmp_path / "out.json")]
    arguments += ["--work", str(tmp_path / "work"), "--base", str(world.base), "--tokens", "1024", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["lottery_masks.py", *arguments, "--criterion", criterion])
    for _ in range(2):
        masks.main()
    result = load_json((tmp_path / "out.json").read_text())
    assert result["pairs"]["words same"]["jaccard"]["value"] == 1
    assert result["pairs"]["words same"]["chance"] == pytest.approx(1 / 3, abs=0.01)
    sample = result["pairs"]["words words again"]["jaccard"]["value"]
    assert sample == 1 if criterion == "magnitude" else 0.5 < sample < 1
    assert result["core"] == pytest.approx(0.5, abs=0.01)
    assert result["core_by_chance"] == pytest.approx(0.25, abs=0.01)
    assert result["masks"]["words on same"]["to_own"]["value"] == 1
    assert result["masks"]["words on words"]["bits"] != result["dense"]["words"]
    assert len(list((tmp_path / "work").iterdir())) == 4
