"""References to assets: a path, a Hub id, or a file inside a wheel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from minigpt.errors import AssetError
from minigpt.files import path_of

_WHEEL = re.compile(
    r"pypi:(?P<dist>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"/(?P<member>[^#]+)(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)
_HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
# A name of a Hub model without its owner, as older guides have it.
_BARE = re.compile(r"[A-Za-z0-9][\w.-]*(?:@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRef:
    """A folder or file on this machine.

    Attributes:
        path: Its path, which exists.
    """

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRef:
    """A model repository on the Hugging Face Hub.

    Attributes:
        repo: Its id, `org/name`.
        revision: Branch, tag or commit; None for the default.
    """

    repo: str
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelRef:
    """A file or folder inside a wheel on the package index.

    Attributes:
        dist: Name of the distribution, normalized as in PEP 503.
        version: Its version.
        member: Path inside the wheel. One that ends in "/" is a folder.
        sha256: Hash of the wheel in lower case, if the reference gives one.
    """

    dist: str
    version: str
    member: str
    sha256: str | None = None

    @property
    def package(self) -> str:
        """Requirement as pip and pins.json write it, `DIST==VERSION`."""
        return f"{self.dist}=={self.version}"


Ref = PathRef | HubRef | WheelRef


def parse_ref(text: str) -> Ref:
    """Parse a reference. A path that exists wins over a Hub id of the same spelling.

    Raises:
        AssetError: The text is no reference, or it is a path that does not exist.
    """
    if text.startswith("pypi:"):
        return _wheel(text)
    path = path_of(text)
    if text and path.exists():
        return PathRef(path=path)
    if _looks_local(text):
        raise AssetError(f"No such file or folder: {text!r}. Check the spelling or give a Hub id (org/name) instead.")
    if match := _HUB.fullmatch(text):
        return HubRef(repo=match["repo"], revision=match["revision"])
    if _BARE.fullmatch(text):
        raise AssetError(
            f"There is no file or folder {text!r} here, and a model of the Hugging Face Hub is named with its owner, "
            "org/name, as in openai-community/gpt2 for gpt2. Give the full name or the path of a model."
        )
    raise AssetError(
        f"Cannot read {text!r} as a model or asset: give an existing folder or GGUF file, a Hub id "
        "org/name[@revision], or pypi:DIST==VERSION/PATH."
    )


def _looks_local(text: str) -> bool:
    """Return True if the text is meant as a path."""
    return text.startswith(("/", "./", "../", "~", ".\\", "..\\")) or text.lower().endswith((".gguf", "/", "\\"))


def _wheel(text: str) -> WheelRef:
    """Parse a reference that starts with `pypi:`."""
    match = _WHEEL.fullmatch(text)
    if match is None:
        raise AssetError(
            f"Cannot read {text!r}: a packaged asset is written pypi:DIST==VERSION/PATH, with the exact version and "
            "optionally #sha256= and the wheel's 64 hex digits at the end."
        )
    member = match["member"]
    if "\\" in member or PurePosixPath(member).is_absolute() or {"", ".", ".."} & set(member.rstrip("/").split("/")):
        raise AssetError(f"Cannot read {text!r}: the path must lie inside the wheel, without '..' or empty parts.")
    return WheelRef(
        dist=re.sub(r"[-_.]+", "-", match["dist"]).lower(),
        version=match["version"],
        member=member,
        sha256=match["sha256"].lower() if match["sha256"] else None,
    )
