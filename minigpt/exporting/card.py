"""README of an exported folder: its origin, how to run it and what was verified, followed by its source's card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minigpt.exporting.formats import Format
from minigpt.exporting.request import ExportRequest
from minigpt.files import write_text
from minigpt.runtimes import ExportRecord

CARD = "README.md"


def write_card(request: ExportRequest, row: Format, record: ExportRecord, folder: Path) -> None:
    """Write the card into `folder`, with license and other metadata from the source's card if it has one."""
    write_text(folder / CARD, render_card(row, record, _read_if_present(request.source.path / CARD)))


def render_card(row: Format, record: ExportRecord, source_card: str = "") -> str:
    """Render the card as Markdown.

    Args:
        row: the format that was written.
        record: the verified export.
        source_card: the source's own card, which is appended whole; its metadata comes first.
    """
    from huggingface_hub import ModelCard

    source = ModelCard(source_card, ignore_metadata_errors=True) if source_card.startswith("---") else None
    metadata = source.data.to_yaml() if source else ""
    head = f"---\n{metadata}\n---\n\n" if metadata else ""
    origin = f"\n\n# The model it was made from\n\n{source.text.strip()}" if source else ""
    facts = "\n".join(_fact_lines(record))
    return f"{head}# {row.summary[0].upper()}{row.summary[1:]}\n\n{row.card}\n\n{facts}{origin}\n"


def _fact_lines(record: ExportRecord) -> Iterator[str]:
    """Yield the lines that state origin, size, checks and quality."""
    source = record.source
    yield f"- Made from `{source.ref}` (fingerprint `{source.fingerprint}`, weights {source.precision}) by minigpt "
    yield f"  {record.versions.get('minigpt', '')} in {record.precision}: {record.bytes / 1e6:.1f} MB of weights."
    for check in record.checks:
        allowed = "" if check.tolerance is None else f" (allowed: {check.tolerance:g})"
        yield f"- {check.name}: differs from {check.against} by at most {check.difference:.2g}{allowed}."
    if record.greedy:
        yield f"- Greedy text agrees with the source's for {record.greedy.agreeing} of {record.greedy.tokens} tokens."
    if record.quality:
        result = record.quality.bits_per_byte
        paired = result.paired_difference_vs_parent
        interval = f", difference {paired.value:+.4f} ({paired.low:+.4f} to {paired.high:+.4f})" if paired else ""
        yield (
            f"- Held-out text of {record.quality.domain}: {result.value:.4f} bits per byte, source "
            f"{result.value / record.quality.ratio:.4f}{interval}."
        )


def _read_if_present(path: Path) -> str:
    """Return the text of a file, or nothing where there is none."""
    return path.read_text("utf-8") if path.is_file() else ""
