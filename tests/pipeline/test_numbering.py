"""Needs of a build: a disk without room refuses it before anything long."""

from __future__ import annotations

import pytest

from minigpt.errors import ConfigError
from minigpt.pipeline import numbering
from tests.support.building import build, folder_of
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")


def test_a_build_that_the_disk_has_no_room_for_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "free_bytes", lambda folder: 1000)
    options = world.options("full")
    with pytest.raises(ConfigError, match=r"The build needs about .* in .*full, where .* are free\. Free space"):
        build(options)
    assert not (folder_of(options) / "work" / "measured_parent").exists()
