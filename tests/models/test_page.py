"""Tests of finding a build and writing its page anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt import report
from minigpt.errors import AssetError
from minigpt.models.page import refresh_page
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
