"""Overrides: set fields of nested frozen dataclasses by dotted names (`--set heal.steps=50`), with clear errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_type_hints

from minigpt.errors import ConfigError, did_you_mean
from minigpt.parsing import Unreadable, load_yaml

T = TypeVar("T")


def apply_overrides(instance: T, overrides: Mapping[str, str]) -> T:
    """Copy a frozen dataclass with dotted fields replaced, e.g. `{"heal.steps": "50"}`.

    Values are converted to the field's type (`1e-5` is a number, `null` is None, `[a, b]` a list).

    Raises:
        ConfigError: there is no such option (the error suggests the nearest name), or a value has the wrong type.
    """
    for dotted, text in overrides.items():
        instance = _override(instance, dotted.split("."), text, dotted)
    return instance


def _override(instance: Any, path: list[str], text: str, dotted: str) -> Any:
    """Replace the field at `path`, group by group; `dotted` is the whole name, for errors."""
    names = [item.name for item in fields(instance)]
    head, *rest = path
    if head not in names:
        before = dotted.split(".")[: -len(path)]
        hint = within_groups(instance, head) if not before and not rest else ""
        hint = hint or did_you_mean(".".join([*before, head]), [".".join([*before, name]) for name in names])
        raise ConfigError(f"Unknown option {dotted!r}.{hint}")
    current = getattr(instance, head)
    if rest:
        if not is_dataclass(current):
            raise ConfigError(f"Option {dotted!r} goes too deep: {head!r} is a single value.")
        return replace(instance, **{head: _override(current, rest, text, dotted)})
    if is_dataclass(current):
        inner = ", ".join(f"{dotted}.{item.name}" for item in fields(current))
        raise ConfigError(f"Option {dotted!r} is a group; set one of: {inner}.")
    return replace(instance, **{head: _convert(get_type_hints(type(instance))[head], text, dotted)})


def within_groups(instance: Any, name: str) -> str:
    """Return a hint, with a leading space, at the options of groups that have this name; empty if none has it."""
    groups = {item.name: getattr(instance, item.name) for item in fields(instance)}
    options = [
        f"{group}.{name}"
        for group, values in groups.items()
        if is_dataclass(values) and name in {item.name for item in fields(values)}
    ]
    return f" Did you mean {' or '.join(options)}?" if options else ""


def _convert(kind: Any, text: str, dotted: str) -> Any:
    """Convert text from the command line to a value of type `kind`."""
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(kind)
    if text.casefold() in {"null", "none"} and type(None) in get_args(kind):
        return None
    try:
        return adapter.validate_python(text)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
    try:
        return adapter.validate_python(load_yaml(text))
    except (ValidationError, Unreadable):
        shown = reason[:1].lower() + reason[1:]
        raise ConfigError(f"Option {dotted}={text!r} does not fit: {shown}.") from None
