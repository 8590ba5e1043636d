"""Every test runs offline and away from the user's own caches and catalog; fixtures that several modules share."""

from __future__ import annotations

import gc
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.worlds import World

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
os.environ["COLUMNS"] = "100"
os.environ.setdefault("MINIGPT_HOME", str(Path(tempfile.gettempdir()) / f"minigpt-tests-{os.getuid()}"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty catalog for every test; the folder beside it."""
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small world of the module's own. What is loaded by now stays, so that later collections need not look at it."""
    from tests.support.worlds import make_world

    made = make_world(tmp_path_factory.mktemp("world"))
    gc.freeze()
    return made


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stage of builds was made to the end."""
    from minigpt.pipeline.workspace import Workspace

    counted: Counter[str] = Counter()
    original = Workspace.stage

    def stage(self: Workspace, name: str, key: str, make: Callable[[Path], None]) -> Any:
        def counting(folder: Path) -> None:
            make(folder)
            counted[name] += 1

        return original(self, name, key, counting)

    monkeypatch.setattr(Workspace, "stage", stage)
    return counted
