"""Hook of mkdocs: cross-reference marks of docstrings (`:class:`), which Markdown does not know, leave the pages."""

from __future__ import annotations

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Drop the mark in front of a name in code type."""
    return re.sub(r":(?:class|func|meth|data|mod):(?=<code>)", "", html)
