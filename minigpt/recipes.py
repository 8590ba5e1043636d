"""Files that repeat a command: read strictly into a dataclass, written with a comment above each key, and sealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from minigpt.domain.checks import explain, read_mapping
from minigpt.errors import ConfigError, MiniGPTError, did_you_mean
from minigpt.files import write_text
from minigpt.integrity import SUMS, aside_note, check_file, read_sums, seal, set_aside, sha256_once
from minigpt.progress import SILENT, Reporter

T = TypeVar("T")

# Name of the file.
RECIPE = "recipe.yaml"


def read_strictly(path: Path, kind: type[T], example: str) -> T:
    """Read a recipe file strictly.

    Args:
        path: the file.
        kind: the dataclass of its keys, with their defaults.
        example: what such a file holds, for a message.

    Raises:
        ConfigError: there is no such file, it is not YAML, a key is unknown (the error suggests the nearest one), or a
            value has the wrong type.
        MiniGPTError: it lies where a command left it, and is not what the command wrote.
    """
    from pydantic import TypeAdapter, ValidationError

    check_file(path)
    values = read_mapping(path, "recipe", f"a recipe is a mapping such as {example}")
    try:
        recipe = TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, kind)}") from None
    known: Mapping[str, Any] = getattr(kind, "__dataclass_fields__", {})
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}.{did_you_mean(unknown[0], known)}")
    return recipe


def beside(recipe: Path, name: str) -> str:
    """Return the path of a file or folder beside a recipe; any other name as it is."""
    candidate = recipe.parent / name
    return str(candidate) if not Path(name).is_absolute() and candidate.exists() else name


def with_changes(options: T, given: Mapping[str, Any]) -> T:
    """Replace options of a recipe by those that the user gave beside it; settings (`overrides`) are merged one by one.

    Args:
        options: a dataclass with a field `overrides`.
        given: the user's options, by the names of its fields.
    """
    record: Any = options
    changes = dict(given)
    if "overrides" in changes:
        changes["overrides"] = {**record.overrides, **changes["overrides"]}
    changed: T = replace(record, **changes)
    return changed


def with_comments(head: str, values: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Write the text of a recipe: the head, then each key below its comment."""
    import yaml

    parts = [head]
    for name, value in values.items():
        written = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=100)
        parts.append(f"# {comments[name]}\n{written}")
    return "".join(parts)


def leave(folder: Path, texts: Mapping[str, str], reporter: Reporter = SILENT) -> None:
    """Write a recipe and the files that it names into a folder, and record their hashes there.

    A file that somebody has changed since is moved aside, because it may be wanted.

    Args:
        folder: the folder.
        texts: text of each file by its path in the folder.
        reporter: told about files that are moved aside.
    """
    try:
        sums = read_sums(folder / SUMS)
    except MiniGPTError:
        sums = None
    recorded = sums.files if sums is not None else {}
    for name, text in texts.items():
        path = folder / name
        as_left = path.is_file() and sha256_once(path) == recorded.get(name)
        if path.is_file() and not as_left and path.read_bytes() != text.encode():
            reporter.note(aside_note(path, "it is not what was written", set_aside(path)))
        write_text(path, text)
    seal(folder, names=texts)
