"""Command `minigpt compare`."""

from __future__ import annotations

from pathlib import Path

import click

from minigpt.cli.common import Session, examples, standard


@click.command(
    epilog=examples(
        "minigpt compare runs/medical runs/medical-half",
        "minigpt compare medical law finance",
        "minigpt compare medical law finance --matrix --output-dir runs/matrix",
        'minigpt compare runs/medical --fail-if "bits_per_byte>1.02x" --fail-if "bits_per_byte@other>1.02x"',
        "minigpt compare runs/medical runs/medical-half --page compare.html",
        'minigpt compare runs/new runs/old --fail-if "accuracy@glossary<0.4" --json',
    )
)
@click.argument("builds", nargs=-1, required=True, metavar="A [B ...]")
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="EXPR",
    help="Gate: exit with code 3 if EXPR is true. Repeat for several.",
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the comparison as an HTML page that decides by --fail-if, or by the default gates.",
)
@click.option("--matrix", is_flag=True, help="Measure every model on the held-out text of all their domains.")
@click.option("--limit", type=click.IntRange(min=1), help="With --matrix: most passages of each domain [all].")
@click.option(
    "--device",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="With --matrix: device, one of auto, cpu, cuda, cuda:1 or mps.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/matrix"),
    help="With --matrix: folder for matrix.json, the picture and the figures of every passage [runs/matrix].",
)
@click.option(
    "--pictures/--no-pictures",
    default=True,
    help="With --matrix: whether to draw a picture, which needs matplotlib [yes].",
)
@standard
def compare(
    session: Session,
    *,
    builds: tuple[str, ...],
    gates: tuple[str, ...],
    page: Path | None,
    matrix: bool,
    limit: int | None,
    device: str,
    output_dir: Path,
    pictures: bool,
) -> None:
    """Compare the reports of several models side by side, or of one model with its parent.

    A, B, ... are build folders, report.json files, catalog ids or domains (their latest build).

    EXPR is METRIC[@TASK] OP NUMBER[x], e.g. bits_per_byte>1.02x. With x, the number is a multiple of the value of A,
    or of the parent's value if there is one report.

    With --matrix the models are measured again, all on the same text: bits per byte of every specialist on the text of
    every domain and on general text, as ratios to its parent with paired 95 % intervals.
    """
    if matrix:
        if gates or page:
            raise click.UsageError("--fail-if and --page read reports, --matrix measures again: give only one of them.")
        from minigpt.sweep.chart import render_matrix
        from minigpt.sweep.matrix import cross_domain

        measured = cross_domain(
            builds, output_dir=output_dir, device=device, limit=limit, pictures=pictures, reporter=session.reporter
        )
        session.show(measured, lambda: render_matrix(measured))
        return
    from minigpt import report
    from minigpt.models import find

    reports = [(name, find.find_report(name)) for name in builds]
    for gate in gates:
        report.parse_gate(gate)
    comparison = report.compare(reports)
    if page is not None:
        from minigpt.report.page import write_comparison_page

        write_comparison_page(reports, page, gates)
        session.reporter.note(f"The page is {page}.")
    if session.json or not (session.quiet and gates):  # a script that asked for quiet wants the gate alone
        session.show(comparison, lambda: report.render_comparison(comparison))
    for gate in gates:
        for sentence in report.check_gate(gate, reports):
            session.reporter.note(f"Gate {gate!r} holds: {sentence}.")
