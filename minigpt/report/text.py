"""Formats of numbers for people, and text of others made safe for a terminal."""

from __future__ import annotations

import re

from minigpt.results import MetricResult

# Names of the stages for people, in the words of the glossary.
STAGE_TITLES = {
    "parent_tuned": "tuned parent",
    "parent_distilled": "distilled twin",
    "healed": "specialist",
    "delta": "delta ticket",
    "conditional": "conditional form",
    "exported": "export",
}
# Openings that print as nothing.
BLANKS = {"\n": "a line end", "\n\n": "an empty line", " ": "a space", "\t": "a tab"}
QUANTIZED_NAME = re.compile(r"(?P<stem>.+?)[.-](?P<type>i?q\d\w*|f16|bf16|f32)", re.IGNORECASE)


def count(value: int) -> str:
    """Write a parameter or token count: 134.5 M, 24,576."""
    for size, unit in ((10**9, "B"), (10**6, "M")):
        if abs(value) >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:,}"


def size(value: int) -> str:
    """Write bytes in decimal units, as file managers and hubs show them: 204.2 MB."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value} B"


def duration(seconds: float) -> str:
    """Write wall time to the precision that matters: 8.4 s, 12 min 05 s, 1 h 02 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(fraction: float | None) -> str:
    """Write a share in percent with one decimal, or a dash where there is none."""
    return "–" if fraction is None else f"{fraction:.1%}".replace("%", " %")


def number(value: float, like: float | None = None) -> str:
    """Write a number with three decimals if it is small and fewer if it is large, so that columns stay narrow.

    Args:
        value: The number to show.
        like: Use as many decimals as this number would get; for pairs that belong together.
    """
    magnitude = abs(value if like is None else like)
    if magnitude >= 10000:
        return f"{value:.1e}"
    return f"{value:.3f}" if magnitude < 4 else f"{value:.1f}" if magnitude < 1000 else f"{value:.0f}"


def interval(low: float, high: float) -> str:
    """Write an interval, `0.741–0.785`."""
    return f"{number(low, high)}–{number(high)}"


def change(result: MetricResult, against: MetricResult) -> str:
    """Write the ratio of perplexities (`0.901×`) or the difference of scores (`+0.021`) between two results."""
    if result.metric == "recitation" or result.higher_is_better:
        # Adding zero turns a zero that was rounded from below into one without a minus.
        return f"{round(result.value - against.value, 3) + 0.0:+.3f}".replace("-", "−")
    return f"{result.value / against.value:.3f}×" if against.value else "–"


def stage_title(stage: str) -> str:
    """Name a stage for people, e.g. `specialist` for the healed model."""
    return STAGE_TITLES.get(stage, stage)


def opening(text: str) -> str:
    """Write the token that stood before every measured text, e.g. `<|endoftext|>` or `a line end`."""
    return BLANKS.get(text, clean(text).replace("\n", "\\n"))


def short_reference(reference: str) -> str:
    """Shorten the reference of a packaged model or a GGUF file, e.g. `SmolLM2-135M-Instruct (Q4_1 GGUF)`.

    Hub ids and folders stay as they are.
    """
    stem = reference.rsplit("/", 1)[-1]
    if stem.lower().endswith(".gguf"):
        stem = stem[: -len(".gguf")]
        match = QUANTIZED_NAME.fullmatch(stem)
        return f"{match['stem']} ({match['type'].upper()} GGUF)" if match else f"{stem} (GGUF)"
    return stem if reference.startswith("pypi:") and stem else reference


def clean(text: str, limit: int | None = None) -> str:
    """Remove control characters, which could move the cursor, from foreign text, and cut it at `limit` characters."""
    shown = "".join(char if char.isprintable() or char == "\n" else " " if char == "\t" else "�" for char in text)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1].rstrip() + "…"
