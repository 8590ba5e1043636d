"""Samples and answers on the page: side by side, in words of their own, escaped; and nowhere on a card."""

from __future__ import annotations

import re
from dataclasses import replace

from minigpt.exchanges import Exchange, TaskExchanges
from minigpt.pipeline.coverage import without_recited
from minigpt.report.card import render_card
from minigpt.report.page import render_page
from minigpt.report.page.written import NOTHING, continued, won_and_lost
from minigpt.results import BuildReport
from tests.support.reports import make_report

PRIVATE = "Frau Muster kam am"


def written() -> BuildReport:
    """A report with two beginnings and one task."""
    report = make_report()
    stages = tuple(
        replace(stage, samples=(f"{stage.stage} one <b>", "")) if stage.stage != "pruned" else stage
        for stage in report.stages
    )
    exchanges = (
        TaskExchanges(
            task="medical/kind",
            rule="equal to a right answer",
            both=3,
            won=1,
            lost=1,
            neither=2,
            shown=(
                Exchange(prompt="Which? & how", right="sign", answers={"healed": "x", "parent": "sign"}, won=False),
                Exchange(
                    prompt="What?", right="disease", answers={"healed": "disease", "parent": "", "parent_tuned": "y"},
                    won=True,
                ),
            ),
        ),
    )  # fmt: skip
    return replace(report, stages=stages, sample_prompts=(PRIVATE, "A second"), exchanges=exchanges)


def test_samples_stand_side_by_side_in_the_order_of_the_stages() -> None:
    first, second = continued(written())
    assert first.prompt == PRIVATE
    assert [name for name, _ in first.texts] == ["parent", "tuned parent", "specialist"]
    assert first.texts[2][1] == "healed one <b>"
    assert second.texts[0][1] == NOTHING
    assert continued(make_report()) == []


def test_won_answers_come_first_and_controls_before_the_specialist() -> None:
    won, lost = won_and_lost(written())
    assert (won.won, won.right, lost.won) == (True, "disease", False)
    assert won.answers == (("parent", NOTHING), ("tuned parent", "y"), ("specialist", "disease"))
    assert lost.answers == (("parent", "sign"), ("specialist", "x"))


def test_the_page_shows_them_escaped() -> None:
    page = render_page(written())
    assert "2 samples" in page
    assert PRIVATE in page
    assert "healed one &lt;b&gt;" in page
    assert "healed one <b>" not in page
    assert "Which? &amp; how" in page
    assert "Answers won and lost" in page
    cells = re.findall(r'data-label="(?:both right|won|lost|none right)">(?:<b class="\w+">)?(\d+)', page)
    assert cells == ["3", "1", "1", "2"]


def test_a_report_without_them_has_no_such_section() -> None:
    page = render_page(make_report())
    assert "Answers won and lost" not in page
    assert " samples</h2>" not in page


def test_a_card_shows_none_of_them() -> None:
    card = render_card(without_recited(written(), ()))
    assert PRIVATE not in card
    assert "healed one" not in card
    bare = without_recited(written(), ())
    assert bare.sample_prompts == () and bare.exchanges == () and not any(stage.samples for stage in bare.stages)
    assert PRIVATE not in render_card(written()), "even where nothing was left out before"
