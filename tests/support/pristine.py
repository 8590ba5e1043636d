"""Kept things before anything has happened to them, and what a reader makes of one that is damaged."""

from __future__ import annotations

import os
import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from minigpt.errors import MiniGPTError
from minigpt.integrity import is_prose
from tests.support.kept import GIVEN, KEPT, KINDS
from tests.support.strikes import cut_off, flipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Pristine:
    """A kept thing that nothing has happened to.

    Attributes:
        kind: its name in `KINDS`.
        root: the folder of what it is made from, of itself and of a copy.
        value: what its reader makes of it.
    """

    kind: str
    root: Path
    value: str

    def restore(self) -> None:
        """Put the thing back as it was."""
        shutil.rmtree(self.root / KEPT)
        shutil.copytree(self.root / "copy", self.root / KEPT)
        os.environ["MINIGPT_HOME"] = str(self.root / KEPT / "home")

    def strike(self, seed: int) -> dict[str, Any]:
        """Damage one file, and say how the next reader fares: same, sentence, silent or traceback."""
        self.restore()
        draw = Random(f"{self.kind} {seed}")
        files = [path for path in sorted((self.root / KEPT).rglob("*")) if path.is_file() and path.stat().st_size]
        path = draw.choice([path for path in files if path.suffix != ".lock" and not is_prose(path.name)])
        data, how = bytearray(path.read_bytes()), draw.choice(("flip", "cut"))
        place = draw.randrange(len(data))
        path.write_bytes(flipped(data, place, draw) if how == "flip" else cut_off(data, place, draw))
        end, said = "same", ""
        try:
            if (value := str(KINDS[self.kind].read(self.root))) != self.value:
                end, said = "silent", value[:300]
        except MiniGPTError as error:
            end, said = "sentence", str(error)
        except Exception:
            end, said = "traceback", traceback.format_exc()[-900:]
        where = path.relative_to(self.root / KEPT).as_posix()
        return {"kind": f"{how}: {self.kind}", "seed": seed, "at": f"{where}, byte {place}", "end": end, "said": said}


def pristine(kind: str, root: Path) -> Pristine:
    """Make a kept thing in an empty folder, and see that it is read as it was written."""
    for name in (KEPT, GIVEN):
        (root / name).mkdir(parents=True)
    os.environ["MINIGPT_HOME"] = str(root / KEPT / "home")
    KINDS[kind].make(root)
    shutil.copytree(root / KEPT, root / "copy")
    thing = Pristine(kind=kind, root=root, value=str(KINDS[kind].read(root)))
    thing.restore()
    assert str(KINDS[kind].read(root)) == thing.value
    return thing
