"""Running text from Markdown: headings and lines with a final colon join the block below, lists become sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?")


def blocks(text: str) -> Iterator[str]:
    """Yield the paragraphs and lists of a Markdown text, each as one line. A heading starts the block below it.

    Args:
        text: The Markdown text, without front matter.
    """
    heading = ""
    for raw in re.split(r"\n\s*\n", FENCE.sub("", text)):
        lines = [line for line in raw.splitlines() if line.strip() and not is_decoration(line)]
        while lines and lines[0].startswith("#"):
            heading = lines.pop(0).strip("# ").strip()
        block = joined(lines)
        text = f"{heading}: {block}" if heading and block else block
        if text.endswith(":"):
            heading = text.rstrip(":")
        elif text:
            yield text
            heading = ""


def is_decoration(line: str) -> bool:
    """Return True for a row of a table or a ruler."""
    return line.lstrip().startswith("|") or bool(re.fullmatch(r"\s*[-*_=]{3,}\s*", line))


def joined(lines: list[str]) -> str:
    """Join the lines of a block; a list item gets a period if it has no mark at its end."""
    parts: list[str] = []
    for line in lines:
        item = ITEM.match(line)
        text = ITEM.sub("", line).strip().lstrip("> ").strip()
        if parts and (item or ITEM.match(lines[0])) and item and parts[-1][-1:] not in ".:;!?,":
            parts[-1] += "."
        if text:
            parts.append(text)
    return re.sub(r"\s+", " ", " ".join(parts)).strip()
