"""Write docs/reference/settings.md from the dataclasses of a build: `make docs`. A test checks that it is current."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from minigpt.files import write_text
from minigpt.pipeline.settings import PRESETS, Settings

PAGE = Path(__file__).with_name("reference") / "settings.md"
HEADER = """# Settings and recipes

Written by `make docs` from the settings classes.

A preset is a full set of these settings. Each one can be changed for a build: on the command line, in a recipe or in
Python.

```console
minigpt build --domain medical --preset quick --set heal.steps=50 --set evaluation.questions=200
```

```yaml
# recipe.yaml, for `minigpt build recipe.yaml`
domain: medical
size: 0.75
preset: quick
settings:
  heal: {steps: 50}
  evaluation: {questions: 200}
```

```python
settings = {"heal": {"steps": 50}, "evaluation": {"questions": 200}}
minigpt.build("medical", preset="quick", settings=settings)
```

A dash in the columns of a preset means that the setting has no value (`null`), which its description explains. A value
in **bold** differs between the presets.
"""
ENTRY = re.compile(r"([a-z_0-9]+(?:, [a-z_0-9]+)*)(?: \([^)]*\))?:\s+(.*)")


def described(kind: type) -> dict[str, str]:
    """The descriptions in the `Attributes:` section of a class docstring, by name of the field."""
    lines = iter((inspect.getdoc(kind) or "").splitlines())
    if not any(line == "Attributes:" for line in lines):
        return {}
    descriptions: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            break
        entry = ENTRY.fullmatch(line[4:]) if not line.startswith(" " * 5) else None
        if entry:
            names = entry[1].split(", ")
            descriptions |= dict.fromkeys(names, entry[2])
        elif line.strip():
            descriptions |= {name: f"{descriptions[name]} {line.strip()}" for name in names}
    return descriptions


def type_name(kind: Any) -> str:
    """A type as a reader of the table sees it: `int`, `int or null`, `auto, table or measure`."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(filter(None, [", ".join(map(str, arguments[:-1])), str(arguments[-1])]))
    if get_origin(kind) is tuple:
        return f"list of {type_name(arguments[0])}"
    if type(None) in arguments:
        return " or ".join([*(type_name(item) for item in arguments if item is not type(None)), "null"])
    return str(kind.__name__)


def shown(value: Any) -> str:
    """A default as one would write it on the command line."""
    if value is None:
        return "–"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def row(name: str, kind: Any, values: Mapping[str, Any], description: str) -> str:
    """One setting: name, type, its value in each preset, description."""
    cells = [shown(value) for value in values.values()]
    if len(set(cells)) > 1:
        cells = [f"**{cell}**" for cell in cells]
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", description).replace("|", r"\|")
    return f"| `{name}` | {type_name(kind)} | {' | '.join(cells)} | {text} |"


def section(title: str, prefix: str, kind: type, instances: Mapping[str, Any]) -> Iterator[str]:
    """A table of the plain fields of a dataclass, then a section for each group in it."""
    hints = get_type_hints(kind)
    descriptions = {name: text for base in reversed(kind.__mro__) for name, text in described(base).items()}
    plain = [item.name for item in fields(kind) if not is_dataclass(hints[item.name])]  # type: ignore[arg-type]
    summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    yield f"## {title}\n\n{summary}\n"
    rows = [
        row(
            prefix + name,
            hints[name],
            {key: getattr(it, name) for key, it in instances.items()},
            descriptions.get(name, ""),
        )
        for name in plain
    ]
    head = f"| setting | type | {' | '.join(instances)} | meaning |\n|---|---|{'---|' * len(instances)}---|"
    yield "\n".join([head, *rows]) + "\n"
    for item in fields(kind):
        if item.name not in plain:
            inner = {key: getattr(it, item.name) for key, it in instances.items()}
            yield from section(f"{prefix}{item.name}", f"{prefix}{item.name}.", hints[item.name], inner)


def content() -> str:
    """The whole page."""
    return "\n".join([HEADER, *section("The build as a whole", "", Settings, PRESETS)])


if __name__ == "__main__":
    write_text(PAGE, content())
