"""Tests of finding a build and writing its page anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt import report
from minigpt.errors import AssetError
from minigpt.models import catalog
from minigpt.models.page import refresh_page
from tests.support.commands import run
from tests.support.reports import make_report


def test_a_page_is_written_from_the_report_in_a_folder(tmp_path: Path) -> None:
    report.save(make_report(), tmp_path)
    page, decision = refresh_page(str(tmp_path), ["bits_per_byte>0.1x"])
    assert page == tmp_path / "report.html"
    assert decision.answer == "do not ship"
    assert "Do not ship" in page.read_text("utf-8")


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"holds no report\.json"):
        refresh_page(str(tmp_path))


def test_the_page_of_the_catalog_names_what_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    for name in ("here", "moved"):
        (tmp_path / name / "model").mkdir(parents=True)
        report.save(make_report(), tmp_path / name)
        (tmp_path / name / "model" / "config.json").write_text(name)
        catalog.add(tmp_path / name)
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    result = run("catalog", "list", "--page", str(tmp_path / "page.html"), "--json")
    assert result.exit_code == 0, result.stderr
    written = (tmp_path / "page.html").read_text("utf-8")
    assert str(tmp_path / "here") in written
    assert f"No report at {tmp_path / 'moved'}" in written
    assert run("catalog", "list", "--gate", "bits_per_byte>1x").exit_code == 2
