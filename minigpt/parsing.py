"""Reading of YAML and JSON that others wrote, within bounds: no code, no bombs, one exception for all mistakes."""

from __future__ import annotations

import json
from typing import Any

from minigpt.errors import first_line

# Bounds of a document that a person wrote.
MAX_CHARACTERS = 16_000_000
# Keys of a mapping with all that it merges (`<<`): nested merges multiply while the text is read.
MAX_MERGED = 10_000
MAX_VALUES = 1_000_000
MAX_DEPTH = 64


class Unreadable(ValueError):
    """Text that is not YAML or not JSON, or that is too deep or too large.

    Attributes:
        line: line of the mistake, counted from 1; None where it is not known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class Repeated(Unreadable):
    """YAML in which a mapping has a key twice, so that nobody knows which of its values is meant."""


def load_yaml(text: str) -> Any:
    """Read a YAML document. Dates stay text, as they stand in the file.

    Raises:
        Unreadable: it is not YAML, has a key twice, is too large or too deep, or grows too much by its references.
    """
    import yaml

    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"it has more than {MAX_CHARACTERS:,} characters")
    try:
        loader = _loader()(text)
        root = loader.get_single_node()
        _check_keys(root)
        value = None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        reason = getattr(error, "problem", None) or first_line(error)
        raise Unreadable(str(reason), None if line is None else line + 1) from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except Unreadable:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise Unreadable(first_line(error)) from None
    _check_size(value)
    return value


def load_json(text: str | bytes) -> Any:
    """Read a JSON document.

    Raises:
        Unreadable: it is not JSON or not UTF-8, has a number of thousands of digits, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"{error.msg}, column {error.colno}", error.lineno) from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(first_line(error)) from None


def _loader() -> Any:
    """Return PyYAML's safe loader without its rule for dates, which refuses impossible ones in words of its own."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe loader that leaves dates as text, and writes out no more merged keys (`<<`) than a value may have."""

        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)
            if len(node.value) > MAX_MERGED:
                raise Unreadable(f"a mapping merges more than {MAX_MERGED:,} keys into itself")

    Loader.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _check_keys(root: Any) -> None:
    """Refuse a mapping that has a key twice. What it merges (`<<`) may have the same keys: its own ones count.

    Args:
        root: node of the document, before anything is merged into it; None for an empty one.
    """
    import yaml

    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen:  # a reference
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            stack += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[tuple[str, str]] = set()
            for key, value in node.value:
                stack += (key, value)
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                if (key.tag, key.value) in keys:
                    raise Repeated(f"the key {key.value!r:.80} is there twice", key.start_mark.line + 1)
                keys.add((key.tag, key.value))


def _check_size(value: Any) -> None:
    """Refuse a value that is too deep or, with every reference written out, too large.

    References make a short text stand for an endless value: each one is counted as often as it is used.
    """
    left = MAX_VALUES
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        left -= 1
        if left < 0:
            raise Unreadable(f"it stands for more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise Unreadable("it is nested too deeply")
        if isinstance(item, dict):
            stack += [(part, depth + 1) for part in (*item.keys(), *item.values())]
        elif isinstance(item, (list, tuple, set)):
            stack += [(part, depth + 1) for part in item]
