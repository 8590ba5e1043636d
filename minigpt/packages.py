"""Checks of the installed packages, offline: what they require of each other, and which versions a file pins.

`pip check` looks at everything that is installed; here it is what one package needs, with the rules of the library that
pip itself uses (https://packaging.pypa.io).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from minigpt.errors import ConfigError

ROOT = "minigpt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """An installed package that is not as something wants it.

    Attributes:
        package: its name.
        installed: its version; None if it is missing.
        wanted: the version or versions that are wanted.
        by: what wants them: a package, a file of constraints, or a build.
    """

    package: str
    installed: str | None
    wanted: str
    by: str


def unmet(root: str = ROOT) -> tuple[Mismatch, ...]:
    """List what a package requires, directly or through others, and what is not installed so; empty if all is well.

    Args:
        root: the package. One that is not installed, as when it runs from its source, requires nothing.
    """
    left, seen = [(root, frozenset[str]())], set[tuple[str, frozenset[str]]]()
    wrong: dict[tuple[str, str, str], Mismatch] = {}
    while left:
        place = left.pop()
        if place in seen:
            continue
        seen.add(place)
        name, extras = place
        for wanted in _requirements(name, extras):
            installed = version_of(wanted.name)
            if installed is None or not wanted.specifier.contains(installed, prereleases=True):
                item = Mismatch(package=wanted.name, installed=installed, wanted=str(wanted.specifier), by=name)
                wrong[item.package, item.wanted, item.by] = item
            if installed is not None:
                left.append((canonicalize_name(wanted.name), frozenset(wanted.extras)))
    return tuple(wrong[key] for key in sorted(wrong))


def against(constraints: Path) -> tuple[Mismatch, ...]:
    """List the installed packages whose versions are not those of a file of constraints.

    Args:
        constraints: a file as pip reads it, with a package and its version on each line.

    Raises:
        ConfigError: it cannot be read, or a line is no constraint.
    """
    wrong = []
    for line in _lines(constraints):
        try:
            pin = Requirement(line)
        except InvalidRequirement:
            raise ConfigError(f"{constraints}: {line!r:.80} is no constraint such as torch==2.13.0.") from None
        installed = version_of(pin.name)
        applies = pin.marker is None or pin.marker.evaluate()
        if installed is not None and applies and not pin.specifier.contains(installed, prereleases=True):
            wrong.append(
                Mismatch(package=pin.name, installed=installed, wanted=str(pin.specifier), by=constraints.name)
            )
    return tuple(wrong)


def other_versions(versions: Mapping[str, str], by: str) -> tuple[Mismatch, ...]:
    """List the packages whose versions are not those that something was made with.

    Args:
        versions: version by package; names of no package are left out.
        by: what was made with them.
    """
    present = {name: version_of(name) for name in versions}
    return tuple(
        Mismatch(package=name, installed=present[name], wanted=f"=={version}", by=by)
        for name, version in sorted(versions.items())
        if name != "python" and present[name] != version
    )


def version_of(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Yield what a package requires here, with some of its extras."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:  # of an old package, which pip leaves out, too
            continue
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield wanted


def _lines(constraints: Path) -> Iterator[str]:
    """Yield the lines of a file of constraints without comments, options and hashes."""
    try:
        text = constraints.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {constraints}: {getattr(error, 'strerror', None) or error}.") from None
    for line in text.replace("\\\n", " ").splitlines():
        pin = line.partition("#")[0].partition(" --hash")[0].strip()
        if pin and not pin.startswith("-"):
            yield pin
