"""Tests of the messages of errors."""

from __future__ import annotations

from minigpt.errors import UnknownName


def test_an_unknown_name_is_answered_with_the_nearest_one_and_with_all() -> None:
    assert str(UnknownName("preset", "quik", ["standard", "quick"])) == (
        "Unknown preset 'quik'. Did you mean 'quick'? Known: quick, standard."
    )


def test_where_there_are_no_names_yet_the_message_says_so() -> None:
    assert str(UnknownName("catalog entry", "medical", [])) == "Unknown catalog entry 'medical'. There is none yet."


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    assert "Did you mean 'gguf'?" in str(UnknownName("export format", "GGUF", ["gguf", "onnx"]))
