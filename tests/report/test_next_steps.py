"""The end of a build advises only what its user has not done already."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt.report.next_steps import next_commands
from tests.support.reports import make_report


@pytest.mark.parametrize(("domain", "advised"), [("medical", True), ("cardiology-letters", False)])
def test_texts_of_your_own_are_not_advised_to_who_built_on_them(domain: str, advised: bool) -> None:
    purposes = [purpose for purpose, _ in next_commands(make_report(domain), Path("runs/x"))]
    assert ("build one on texts of your own" in purposes) == advised
    assert purposes[0] == "try it"
