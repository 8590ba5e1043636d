"""`minigpt export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.common import Session, examples, standard, table
from minigpt.exporting.formats import EXPORTERS, QUALITY_BYTES, ROUNDINGS, check_options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.runtimes import ExportRecord


def precisions() -> str:
    """List the precisions of each format, the default first, as a part of an epilog."""
    width = max(map(len, EXPORTERS)) + 2
    lines = [f"  {name:{width}}{', '.join(row.precisions)}" for name, row in EXPORTERS.items()]
    return "\n".join(["\b", "Precisions of each format, the default first:", *lines])


@click.command(
    epilog=precisions()
    + "\n\n"
    + examples(
        "minigpt export runs/medical --format onnx --output-dir runs/medical-onnx",
        "minigpt export runs/medical --format onnx --precision int4 --output-dir runs/medical-int4 --json",
        "minigpt export medical --format onnx --domain medical --quality-bytes 200000 --output-dir medical-onnx",
    )
)
@click.argument("model")
@click.option("--format", "kind", required=True, metavar="NAME", help=f"Format to write: {', '.join(EXPORTERS)}.")
@click.option("--precision", metavar="NAME", help="Precision of the weights [the format's first, see below].")
@click.option("--rounding", metavar="NAME", help=f"Rounding of int4 weights: {' or '.join(ROUNDINGS)} [the first].")
@click.option("--output-dir", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option(
    "--domain", metavar="NAME|FILE", help="Domain whose held-out text is measured [the build's, else general]."
)
@click.option(
    "--quality-bytes",
    type=click.IntRange(min=1),
    help=f"Bytes of that text, at most; not of draft and lm-eval [{QUALITY_BYTES}].",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="lm-eval: documents and questions of each set, at most [all]; draft: prompts to try [16].",
)
@click.option(
    "--device", metavar="NAME", help="Device: auto, cpu, cuda, cuda:1 or mps; lm-eval runs on the processor [auto]."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the held-out split [the build's, else 0].")
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
    quality_bytes: int | None,
    limit: int | None,
    device: str | None,
    seed: int | None,
    force: bool,
) -> None:
    """Write MODEL for another runtime, and prove that it computes the same before it is kept.

    MODEL is a model folder, a build folder, a catalog id, a domain (its latest build), a Hub id, a GGUF file or a
    pypi: asset. Logits of a prefill, of step-by-step decoding and of a left-padded batch are held against PyTorch's,
    and bits per byte are measured on held-out text; export.json keeps the results.
    """
    import minigpt

    check_options(kind, quality_bytes=quality_bytes, limit=limit, device=device)
    record = minigpt.export(
        model,
        output_dir,
        format=kind,
        precision=precision,
        rounding=rounding,
        domain=domain,
        quality_bytes=quality_bytes or QUALITY_BYTES,
        limit=limit,
        device=device or "auto",
        seed=seed,
        force=force,
        reporter=session.reporter,
    )
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
    if "speedup" in record.settings:
        result.add_row("speed with the draft", "the parent alone", f"{record.settings['speedup']:.2f}×", "")
        result.add_row("proposed tokens accepted", "", f"{record.settings['acceptance']:.1%}", "")
        result.add_row("draft", "", "switched off" if record.settings["switched_off"] else "worth it", "")
    result.caption = f"{record.format} {record.precision}, {size(record.bytes)}"
    return result
