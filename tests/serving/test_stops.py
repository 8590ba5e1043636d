"""Stop strings: whatever the pieces, the text is cut where the first stop string begins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minigpt.serving.stops import StopFilter


def expected(text: str, stops: list[str]) -> str:
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text


@given(
    pieces=st.lists(st.text("ab.", max_size=4), max_size=8),
    stops=st.lists(st.text("ab.", min_size=1, max_size=3), max_size=3),
)
def test_any_pieces_give_the_text_before_the_stop_string_that_ends_first(pieces: list[str], stops: list[str]) -> None:
    """One character at a time, a filter sees the stop string that ends first; bigger pieces may hold two."""
    text = "".join(pieces)
    narrow = StopFilter(stops)
    shown = "".join(narrow.feed(letter) for letter in text) + narrow.flush()
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    head = text[: min(ends)] if ends else text
    assert shown == expected(head, stops)
    assert narrow.stopped == bool(ends)
    whole = StopFilter(stops)
    assert whole.feed(text) + whole.flush() == expected(text, stops)
    spread = StopFilter(stops)
    assert "".join(map(spread.feed, pieces)) + spread.flush() in {shown, expected(text, stops)} | {
        expected(text[:length], stops) for length in range(len(text) + 1)
    }
