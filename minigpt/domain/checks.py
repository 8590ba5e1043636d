"""Checks of a domain file: its keys, the domain's name, its packaged data, and sentences that explain a mistake."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from minigpt.errors import ConfigError, did_you_mean
from minigpt.escaping import printable
from minigpt.parsing import Repeated, load_json, load_yaml

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,119}")
# Names of readers.
MODULE = re.compile(r"[a-z][a-z0-9_]*")
# Characters of a name at most.
LONGEST_NAME = 120
# Names under a domain that a report uses for texts: `<domain>/other` and so on. Question sets cannot have them.
TEXT_TASKS = ("other", "unseen", "train")
PACKAGED = re.compile(r"pypi:(?P<name>[^=/#]+)==(?P<version>[^/#]+)/[^#]+(?P<hash>#sha256=[0-9a-fA-F]{64})?")
PINS = Path(__file__).parents[1] / "assets" / "pins.json"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a domain file, with older keys under their present names.

    Raises:
        ConfigError: There is no such file, or it is not YAML or not a mapping.
    """
    return with_present_keys(
        read_mapping(
            path, "domain file", "a domain file is a mapping such as `name: medical`; see `minigpt domains new`"
        )
    )


def read_mapping(path: Path, kind: str, shape: str) -> dict[str, Any]:
    """Read a YAML file that a user wrote.

    Args:
        path: The file.
        kind: What the file is, for messages.
        shape: What it should hold, said where it holds something else.

    Raises:
        ConfigError: There is no such file, or it is not YAML or not a mapping.
    """
    try:
        value = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"No such {kind}: {path}.") from None
    except (OSError, ValueError) as error:
        line = getattr(error, "line", None)
        where = f"{path}, line {line}" if line is not None else str(path)
        if isinstance(error, Repeated):
            raise ConfigError(f"{where}: {error}; keep one of them.") from None
        raise ConfigError(f"{where}: not readable as YAML ({error}). Check indentation, colons and quotes.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {shape}.")
    return value


def with_present_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Return a domain file's mapping with the older key `control` renamed to `general_text`, in its sources too."""

    def renamed(part: Any) -> Any:
        # Where both keys are given, the older one stays and is refused as unknown.
        if isinstance(part, dict) and "control" in part and "general_text" not in part:
            return {"general_text" if key == "control" else key: value for key, value in part.items()}
        return part

    corpus = values.get("corpus")
    if isinstance(corpus, list):
        values = {**values, "corpus": [renamed(source) for source in corpus]}
    present: dict[str, Any] = renamed(values)
    return present


def check_origin(config: Any, *, known: set[str]) -> None:
    """Check that a source names one origin and only options that this origin has.

    Args:
        config: A source of text or of questions.
        known: Keys that its `columns` may have.

    Raises:
        ValueError: It does not. Pydantic adds the place in the file to the reason.
    """
    if problem := next(source_problems(config.name, config.reader), None):
        raise ValueError(problem)
    given = [key for key in ("reader", "file", "hub") if getattr(config, key) is not None]
    if len(given) != 1:
        origins = " and ".join(given) or "none"
        raise ValueError(f"{config.name!r} needs exactly one of reader, file or hub (found {origins})")
    if (config.ref is None) == (config.reader is not None):
        raise ValueError(f"{config.name!r}: a reader needs a ref, and only a reader has one")
    stray = [key for key in ("revision", "subset", "hub_split") if getattr(config, key) is not None]
    if stray and config.hub is None:
        raise ValueError(f"{config.name!r}: {stray[0]} is only for Hub data sets")
    for key in config.columns:
        if key not in known:
            raise ValueError(f"{config.name!r}: columns has no {key!r}.{did_you_mean(key, known)}")
    if config.limit is not None and config.limit < 1:
        raise ValueError(f"{config.name!r}: limit must be at least 1")


def source_problems(name: str, reader: str | None) -> Iterator[str]:
    """Yield the reasons why a source or a question set cannot have this name or this reader.

    Names stand in tasks, tables and file names, and a reader is the name of a module.
    """
    unusual = printable(name) != name or any(character in name for character in "/\\\n\t")
    if unusual or not name.strip() or len(name) > LONGEST_NAME:
        yield f"{name!r:.60} cannot name a source: use up to {LONGEST_NAME} letters, digits and spaces, without '/'"
    if reader is not None and not MODULE.fullmatch(reader):
        yield f"{reader!r:.60} is no reader: write the name of a module of corpora/, e.g. glossary"


def name_problems(name: str, *, general_text: bool, reserved: Collection[str]) -> Iterator[str]:
    """Yield the reasons why a domain cannot have this name.

    Args:
        name: The name, which becomes the name of a folder.
        general_text: True if the domain holds general text.
        reserved: Names of packaged general text, which only another domain of general text may replace.
    """
    if len(name) > LONGEST_NAME:
        yield (
            f"name: {name[:30]!r}... cannot name a domain; it has {len(name)} characters, and at most {LONGEST_NAME} "
            "can be used."
        )
    elif not NAME.fullmatch(name):
        yield f"name: {name!r} cannot name a domain; use small letters, digits, '-' and '_', e.g. cardiology."
    elif name in reserved and not general_text:
        yield f"name: {name!r} is the packaged general text; choose another name, or say general_text: true."


def ref_problems(ref: str) -> Iterator[str]:
    """Yield the reasons why a `pypi:` reference cannot be fetched. Only wheels whose hash is known can be."""
    if not ref.startswith("pypi:"):
        return
    match = PACKAGED.fullmatch(ref)
    if match is None:
        yield f"{ref!r} is no reference to packaged data; write pypi:NAME==VERSION/PATH#sha256=HASH."
        return
    package = f"{re.sub(r'[-_.]+', '-', match['name']).lower()}=={match['version']}"
    if not match["hash"] and package not in load_json(PINS.read_text("utf-8")):
        yield f"{package} is not pinned; add #sha256= and the wheel's hash to the ref."


def explain(error: Any, kind: type) -> str:
    """Describe the first problem of a pydantic error in one sentence, with its place and, for a typo, the likely key.

    Args:
        error: The validation error.
        kind: The dataclass that was read.
    """
    first = error.errors()[0]
    location = [part for part in first["loc"] if not (isinstance(part, str) and "[" in part)]
    location = location or list(first["loc"][-1:])  # a key may look like one of pydantic's own names
    where = location_text(location)
    if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        owner = dataclass_at(kind, location[:-1])
        known = [item.name for item in fields(owner) if item.name != "root"] if owner else []
        inside = location_text(location[:-1])
        return (
            f"unknown key {location[-1]!r}{f' in {inside}' if inside else ''}.{did_you_mean(str(location[-1]), known)}"
        )
    if first["type"] in {"missing", "missing_argument"}:
        return f"{where} is missing."
    # A list of YAML becomes a tuple, which is no word of the file's.
    reason = first["msg"].removeprefix("Value error, ").rstrip(".").replace("a valid tuple", "a list")
    reason = reason if reason.endswith("?") else f"{reason}."  # a hint may be a question
    return f"{where}: {reason}" if where else reason


def location_text(location: list[Any]) -> str:
    """Format a place in a domain file, e.g. `["corpus", 0, "name"]` as `corpus[0].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def dataclass_at(kind: Any, location: list[Any]) -> Any:
    """Return the dataclass that `location` leads to from the type `kind`, or None if there is none."""
    for part in location:
        if isinstance(part, str):
            if not is_dataclass(kind):
                return None
            kind = get_type_hints(kind).get(part)
        else:
            kind = next(iter(get_args(kind)), None)
    return kind if is_dataclass(kind) else None


def synonyms_of(path: Path) -> set[str]:
    """Return the synonyms in a domain file, in lower case; none if the file cannot be read."""
    try:
        names = read_yaml(path).get("synonyms") or ()
    except ConfigError:
        return set()
    return {str(name).casefold() for name in names} if isinstance(names, list) else set()
