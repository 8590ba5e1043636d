"""The page of a sweep: one HTML file that needs nothing else, with its pictures inside."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from minigpt.files import write_text
from minigpt.report.text import count, interval, number, percent
from minigpt.sweep.chart import sentences
from minigpt.sweep.plots import drawn_keys, pictures, save_figure
from minigpt.sweep.records import Cell, Score, SweepReport, Swept

PAGE = "index.html"
PLOTS = "plots"
TITLES: Mapping[str, str] = {
    "quality": "Quality against size",
    "collapse": "Collapse curve: whole layers removed (dashed: before healing)",
    "angular": "Angular distance between the inputs of layers l and l + n",
}


def draw(found: SweepReport, root: Path) -> tuple[str, ...]:
    """Write `plots/*.svg`, `plots/*.png` and `index.html` under `root`; returns their paths from there."""
    drawn: dict[str, str] = {}
    written: list[str] = []
    for name, make in pictures(found.domains).items():
        if (figure := make()) is not None:
            paths = save_figure(figure, root / PLOTS, name)
            drawn[name] = inline(paths[0].read_text("utf-8"))
            written += [path.relative_to(root).as_posix() for path in paths]
    write_text(root / PAGE, page(found, drawn))
    return (*written, PAGE)


def inline(svg: str) -> str:
    """The `<svg>` element of an SVG file, without the XML head that HTML does not take."""
    return svg[svg.index("<svg") :]


def page(found: SweepReport, drawn: Mapping[str, str]) -> str:
    """The HTML of a sweep; `drawn` holds SVG elements by picture name."""
    from jinja2 import Environment

    template = files("minigpt.sweep").joinpath("page.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        report=found,
        influence=drawn.get("block-influence"),
        domains=[_domain(swept, drawn) for swept in found.domains],
    )


def _domain(swept: Swept, drawn: Mapping[str, str]) -> dict[str, object]:
    shown = [
        (title, drawn[f"{swept.domain}-{name}"]) for name, title in TITLES.items() if f"{swept.domain}-{name}" in drawn
    ]
    keys = drawn_keys(swept)
    return {
        "name": swept.domain,
        "parameters": count(swept.parameters),
        "sentences": sentences(swept) if swept.cells else (),
        "pictures": shown,
        "heads": [f"{task} {metric.replace('_', ' ')}" for task, metric in keys],
        "rows": [_row(cell, keys, place in swept.pareto.front) for place, cell in enumerate(swept.cells)],
        "controls": [_control(swept, name, keys) for name in ("parent", "parent_tuned") if _has(swept, name)],
        "skipped": swept.skipped,
    }


def _row(cell: Cell, keys: list[tuple[str, str]], front: bool) -> dict[str, object]:
    return {
        "front": front,
        "method": cell.method,
        "stage": cell.stage,
        "kept": percent(cell.kept),
        "parameters": count(cell.parameters),
        "scores": [_score(cell.score(*key)) for key in keys],
    }


def _has(swept: Swept, stage: str) -> bool:
    return any(score.stage == stage for score in swept.controls)


def _control(swept: Swept, stage: str, keys: list[tuple[str, str]]) -> dict[str, object]:
    named = {(score.task, score.metric): score for score in swept.controls if score.stage == stage}
    return {"method": stage.replace("_", " "), "scores": [_score(named.get(key)) for key in keys]}


def _score(score: Score | None) -> dict[str, str]:
    """Value, interval, and the ratio or difference to the parent."""
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
