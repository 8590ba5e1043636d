"""What a domain may be called, which packaged data it may name, and how to point at a place in its file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
PACKAGED = re.compile(r"pypi:(?P<name>[^=/#]+)==(?P<version>[^/#]+)/[^#]+(?P<hash>#sha256=[0-9a-fA-F]{64})?")
PINS = Path(__file__).parents[1] / "assets" / "pins.json"


def name_problems(name: str, *, control: bool, controls: Collection[str]) -> Iterator[str]:
    """Why a domain cannot have this name: it becomes a folder, and a control's name would replace the control."""
    if not NAME.fullmatch(name):
        yield f"name: {name!r} cannot name a domain; use small letters, digits, '-' and '_', e.g. cardiology."
    elif name in controls and not control:
        yield f"name: {name!r} is the packaged control; choose another name, or say control: true."


def ref_problems(ref: str) -> Iterator[str]:
    """Why a `pypi:` reference cannot be fetched: only wheels whose hash is known are."""
    if not ref.startswith("pypi:"):
        return
    match = PACKAGED.fullmatch(ref)
    if match is None:
        yield f"{ref!r} is no reference to packaged data; write pypi:NAME==VERSION/PATH#sha256=HASH."
        return
    package = f"{re.sub(r'[-_.]+', '-', match['name']).lower()}=={match['version']}"
    if not match["hash"] and package not in json.loads(PINS.read_text("utf-8")):
        yield f"{package} is not pinned; add #sha256= and the wheel's hash to the ref."


def place(location: list[Any]) -> str:
    """`["corpus", 0, "name"]` as `corpus[0].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def dataclass_at(kind: Any, location: list[Any]) -> Any:
    """The dataclass found by walking the type `kind` along `location`, or None."""
    for part in location:
        if isinstance(part, str):
            if not is_dataclass(kind):
                return None
            kind = get_type_hints(kind).get(part)
        else:
            kind = next(iter(get_args(kind)), None)
    return kind if is_dataclass(kind) else None
