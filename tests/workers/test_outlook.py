"""Outlook of a crew: the time left by hand."""

from __future__ import annotations

import pytest

from minigpt.progress.pieces import Planned
from minigpt.workers.outlook import Outlook

PIECES = [*(Planned(name=name, kinds=("point",)) for name in "abcdef"), Planned(name="results")]


def test_the_rest_is_shared_out_to_the_workers_that_are_left() -> None:
    """Two workers; each piece takes 30 s of its own, and the first paid 50 s for the text that both wait for."""
    outlook = Outlook(PIECES, began=1000.0)
    assert outlook.left(2, now=1010.0) is None
    outlook.learn("a", "0", 30.0, at=1080.0)
    # b runs since the start, as far as anybody knows; c begins now; d, e and f are ahead.
    assert outlook.left(2, now=1080.0) == pytest.approx(max(0 + 30 + 30, 30 + 30))
    outlook.learn("b", "1", 30.0, at=1080.0)
    assert outlook.left(2, now=1090.0) == pytest.approx(20 + 30)
    assert outlook.left(1, now=1090.0) == pytest.approx(20 + 3 * 30)


def test_pieces_that_were_there_say_nothing() -> None:
    outlook = Outlook(PIECES, began=0.0)
    for name in "abc":
        outlook.learn(name, "0", None, at=1.0)
    assert outlook.left(1, now=1.0) is None
    outlook.learn("d", "0", 8.0, at=9.0)
    assert outlook.left(1, now=9.0) == pytest.approx(16.0)
    outlook.learn("e", "0", 8.0, at=17.0)
    outlook.learn("f", "0", 8.0, at=25.0)
    assert outlook.left(1, now=25.0) == 0.0, "gathering takes no time to speak of"
