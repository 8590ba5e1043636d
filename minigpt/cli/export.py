"""`minigpt export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table
from minigpt.exporting.formats import EXPORTERS, ROUNDINGS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.runtimes import ExportRecord


@click.command(
    epilog=examples(
        "minigpt export runs/medical --format onnx --output-dir runs/medical-onnx",
        "minigpt export runs/medical --format onnx --precision int4 --output-dir runs/medical-int4 --json",
        "minigpt export medical --format onnx --domain medical --quality-bytes 200000 --output-dir medical-onnx",
    )
)
@click.argument("model")
@click.option("--format", "kind", required=True, metavar="NAME", help=f"{', '.join(EXPORTERS)}.")
@click.option("--precision", metavar="NAME", help="Of the weights [the format's first: see below].")
@click.option("--rounding", metavar="NAME", help=f"Of int4: {' or '.join(ROUNDINGS)} [the first].")
@click.option("--output-dir", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where it goes.")
@click.option("--domain", metavar="NAME|FILE", help="Held-out text to measure it on [the build's, else general].")
@click.option(
    "--quality-bytes", type=click.IntRange(min=1), default=65536, show_default=True, help="At most so much of it."
)
@click.option("--limit", type=click.IntRange(min=1), help="lm-eval: at most this many documents and questions [all].")
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the held-out split.")
@click.option("--force", is_flag=True, help="Write over an earlier export.")
@standard
def export(
    session: Session,
    *,
    model: str,
    kind: str,
    precision: str | None,
    rounding: str | None,
    output_dir: Path,
    domain: str | None,
    quality_bytes: int,
    limit: int | None,
    device: str,
    seed: int,
    force: bool,
) -> None:
    """Write MODEL for another runtime, and prove that it computes the same before it is kept.

    MODEL is a model folder, a build folder, a catalog id, a domain (its latest build), a Hub id, a GGUF file or a
    pypi: asset. Logits of a prefill, of step-by-step decoding and of a left-padded batch are held against PyTorch's,
    and bits per byte are measured on held-out text; export.json keeps what was found.
    """
    from minigpt.domain import config
    from minigpt.exporting import ExportRequest, format_of, rounding_of
    from minigpt.exporting import export as run
    from minigpt.machine import pick_device
    from minigpt.models import find

    rounding_of(kind, format_of(kind, precision)[1], rounding)
    domain = domain or find.domain_of_build(model) or "general"
    config.load_domain(domain)
    with session.reporter.stage(f"Finding {model}"):
        source = find.find_model(model, reporter=session.reporter)
    request = ExportRequest(
        source=source,
        format=kind,
        precision=precision,
        rounding=rounding,
        output_dir=output_dir,
        domain=domain,
        quality_bytes=quality_bytes,
        limit=limit,
        seed=seed,
        device=pick_device(device),
        force=force,
    )
    record = run(request, reporter=session.reporter)
    session.show(record, lambda: checks(record))
    session.reporter.note(f"Exported to {output_dir}")


def checks(record: ExportRecord) -> RenderableType:
    """One row a check."""
    from minigpt.report.text import size

    result = table("check", "against", ">largest difference", ">allowed")
    for check in record.checks:
        allowed = "–" if check.tolerance is None else f"{check.tolerance:g}"
        result.add_row(check.name, check.against, f"{check.difference:.2g}", allowed)
    if record.greedy:
        result.add_row("greedy text", "the source's", f"{record.greedy.agreeing} of {record.greedy.tokens} tokens", "")
    if record.quality:
        value = f"{record.quality.bits_per_byte.value:.4f}"
        result.add_row(f"bits per byte, {record.quality.domain}", value, f"{record.quality.ratio - 1:+.2%}", "")
    result.caption = f"{record.format} {record.precision}, {size(record.bytes)}"
    return result
