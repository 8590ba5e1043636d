"""The place of a process, from what torchrun puts into the environment."""

from __future__ import annotations

import pytest

from minigpt.distributed.place import Place, place_of
from minigpt.errors import ConfigError
from tests.support.pair import addresses


@pytest.fixture(autouse=True)
def third_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in addresses(2, 4, 29500).items():
        monkeypatch.setenv(name, value)


def test_each_process_has_a_card_of_its_own() -> None:
    assert place_of("auto", 4) == Place(rank=2, world=4, local=2, device="cuda:2")
    assert place_of("cuda", 8) == Place(rank=2, world=4, local=2, device="cuda:2")


def test_without_cards_or_by_wish_they_work_on_the_processor() -> None:
    assert place_of("auto", 0) == place_of("cpu", 4) == Place(rank=2, world=4, local=2)


def test_a_process_without_a_card_is_refused() -> None:
    with pytest.raises(ConfigError, match="Use --nproc-per-node 2"):
        place_of("auto", 2)


def test_one_card_for_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device cuda:1 is one device for 4 processes"):
        place_of("cuda:1", 4)


def test_a_process_alone_has_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert place_of("auto", 4) is None
    monkeypatch.delenv("RANK")
    assert place_of("auto", 4) is None


def test_only_the_first_process_leads() -> None:
    assert Place(rank=0, world=2).leads
    assert not Place(rank=1, world=2).leads
