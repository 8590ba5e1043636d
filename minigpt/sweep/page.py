"""HTML page of a sweep: one file with its pictures inside, which loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from minigpt.files import write_text
from minigpt.report.text import count, interval, number, percent
from minigpt.sweep.chart import sentences
from minigpt.sweep.plots import drawn_keys, pictures, save_figure
from minigpt.sweep.records import Cell, DomainSweep, Score, SweepReport

PAGE = "index.html"
PLOTS = "plots"
TITLES: Mapping[str, str] = {
    "quality": "Quality against size",
    "collapse": "Collapse curve: whole layers removed (dashed: before healing)",
    "angular": "Angular distance between the inputs of layers l and l + n",
}


def draw(report: SweepReport, root: Path) -> tuple[str, ...]:
    """Write `plots/*.svg`, `plots/*.png` and `index.html` into a sweep's folder.

    Args:
        report: Results of the sweep.
        root: Folder of the sweep.

    Returns:
        Paths of the written files from `root`.
    """
    svgs: dict[str, str] = {}
    files_written: list[str] = []
    for name, make_figure in pictures(report.domains).items():
        if (figure := make_figure()) is not None:
            paths = save_figure(figure, root / PLOTS, name)
            svgs[name] = inline(paths[0].read_text("utf-8"))
            files_written += [path.relative_to(root).as_posix() for path in paths]
    write_text(root / PAGE, page(report, svgs))
    return (*files_written, PAGE)


def inline(svg: str) -> str:
    """Cut an SVG file to its `<svg>` element, without the XML head, which HTML does not allow."""
    return svg[svg.index("<svg") :]


def page(report: SweepReport, svgs: Mapping[str, str]) -> str:
    """Render the HTML of a sweep.

    Args:
        report: Results of the sweep.
        svgs: SVG elements by picture name.
    """
    from jinja2 import Environment

    template = files("minigpt.sweep").joinpath("page.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        report=report,
        influence=svgs.get("block-influence"),
        domains=[_domain(domain_sweep, svgs) for domain_sweep in report.domains],
    )


def _domain(domain_sweep: DomainSweep, svgs: Mapping[str, str]) -> dict[str, object]:
    """Compute the values that the template shows of one domain."""
    titled = [
        (title, svgs[f"{domain_sweep.domain}-{name}"])
        for name, title in TITLES.items()
        if f"{domain_sweep.domain}-{name}" in svgs
    ]
    keys = drawn_keys(domain_sweep)
    return {
        "name": domain_sweep.domain,
        "parameters": count(domain_sweep.parameters),
        "sentences": sentences(domain_sweep) if domain_sweep.cells else (),
        "pictures": titled,
        "heads": [f"{task} {metric.replace('_', ' ')}" for task, metric in keys],
        "rows": [_row(cell, keys, place in domain_sweep.pareto.front) for place, cell in enumerate(domain_sweep.cells)],
        "references": [
            _reference(domain_sweep, name, keys) for name in ("parent", "parent_tuned") if _has(domain_sweep, name)
        ],
        "skipped": domain_sweep.skipped,
    }


def _row(cell: Cell, keys: list[tuple[str, str]], front: bool) -> dict[str, object]:
    """Fill the row of a cell."""
    return {
        "front": front,
        "method": cell.method,
        "stage": cell.stage,
        "kept": percent(cell.kept),
        "parameters": count(cell.parameters),
        "scores": [_score(cell.score(*key)) for key in keys],
    }


def _has(domain_sweep: DomainSweep, stage: str) -> bool:
    """Check whether the parent or the tuned parent was measured."""
    return any(score.stage == stage for score in domain_sweep.controls)


def _reference(domain_sweep: DomainSweep, stage: str, keys: list[tuple[str, str]]) -> dict[str, object]:
    """Fill the row of the parent or the tuned parent."""
    by_key = {(score.task, score.metric): score for score in domain_sweep.controls if score.stage == stage}
    return {"method": stage.replace("_", " "), "scores": [_score(by_key.get(key)) for key in keys]}


def _score(score: Score | None) -> dict[str, str]:
    """Write a value, its interval, and its ratio or difference to the parent."""
    if score is None:
        return {"value": "–", "interval": "", "against": ""}
    against = ""
    if score.ratio is not None:
        against = f"{score.ratio.value:.3f}× ({interval(score.ratio.low, score.ratio.high)})"
    elif score.difference is not None:
        low, high = score.difference.low, score.difference.high
        against = f"{score.difference.value:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    shown = interval(score.value.low, score.value.high)
    return {"value": number(score.value.value), "interval": shown, "against": against}
