"""The list of the papers' models says what the tables of families do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from minigpt.errors import UnsupportedModel
from minigpt.exporting.paper_models import PaperModel, paper_models
from minigpt.transformer.arch import arch_of
from minigpt.transformer.families import ARCHITECTURES
from tests.support.commands import run
from tests.support.tiny import tiny_config

ROWS = paper_models()


def test_every_model_of_the_papers_is_listed() -> None:
    assert [row.model for row in ROWS] == [
        *("Phi-1.5", "OPT-1.3B", "Llama-1.3B"),
        *("Llama-2", "Baichuan2", "RWKV-7B", "Mamba-2.8B"),
        *("Llama-2", "Qwen", "Mistral-7B", "Phi-2"),
        "BERT",
    ]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.model}-{index}" for index, row in enumerate(ROWS)])
def test_the_program_takes_or_refuses_a_model_as_listed(row: PaperModel) -> None:
    """A supported model has a row by which its configs are read; any other is refused with the listed reason."""
    if row.works:
        assert row.family in ARCHITECTURES and arch_of(tiny_config(row.family)).name == row.family
    else:
        with pytest.raises(UnsupportedModel) as refusal:
            arch_of(SimpleNamespace(model_type=row.family))
        assert row.note.partition("; ")[0] in str(refusal.value)


def test_families_named_in_place_of_others_are_supported() -> None:
    """No advice leads to a family that is refused."""
    named = {part for row in ROWS for part in row.note.split("`")[1::2]}
    named -= {"state-spaces/mamba-2.8b-hf", "rescale_every"}
    assert {"qwen2", "qwen3"} <= named and named <= set(ARCHITECTURES)


def test_the_command_gives_the_list_as_data() -> None:
    result = run("families", "--json")
    assert result.exit_code == 0 and '"papers"' in result.output and "Baichuan2" in result.output
