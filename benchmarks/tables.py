"""Tables and pictures of `benchmarks/methods.py`: every method at every size, with intervals, and who wins.

All numbers are computed from the items in the results: seeds are averaged first, then a bootstrap over documents or
questions gives 95 % intervals, paired wherever two models are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from digest import as_csv, marked, overview
from entries import Entry, Key, Suite, suites

from minigpt.evaluation import ItemScores
from minigpt.evaluation.paired import averaged, paired
from minigpt.files import write_text
from minigpt.report.figures import ENOUGH_ITEMS, HEADLINE
from minigpt.sweep.cells import scores_of
from minigpt.sweep.plots import collapse, quality, save_figure
from minigpt.sweep.records import Pareto, Score, Swept


def versus(one: Entry, other: Entry, task: str, metric: str) -> int:
    """1 where `one` is significantly better than `other` on the same items, -1 where worse, else 0."""
    ours, theirs = (averaged([_task(run, task) for run in entry.runs], metric) for entry in (one, other))
    found = paired(ours, theirs, metric)
    if len(ours) < ENOUGH_ITEMS or found.low <= 0 <= found.high:
        return 0
    return 1 if (found.value < 0) == (metric == HEADLINE) else -1


def _task(run: ItemScores, task: str) -> Any:
    return run.texts[task] if task in run.texts else run.questions[task]


def best_of(entries: Mapping[Key, Entry], size: float, task: str, metric: str) -> Key | None:
    """The best value at a size."""
    found = {key: each.score(task, metric) for key, each in entries.items() if key[1] == size}
    values = {key: score.value.value for key, score in found.items() if score is not None}
    if not values:
        return None
    choose: Callable[..., Key] = min if metric == HEADLINE else max
    return choose(values, key=lambda key: values[key])


def table(entries: Mapping[Key, Entry], task: str, metric: str, stale: Sequence[str] = ()) -> str:
    """A Markdown table: a row a method, a column a size; best in bold, `=` where the best is not shown to be better."""
    sizes = sorted({size for _, size in entries}, reverse=True)
    winners = {size: best_of(entries, size, task, metric) for size in sizes}
    lines = ["| method | " + " | ".join(f"{size:.0%} kept" for size in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for method in dict.fromkeys(name for name, _ in entries):
        cells = [_cell(entries, (method, size), winners[size], task, metric) for size in sizes]
        lines.append(f"| {marked(method, stale)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(entries: Mapping[Key, Entry], key: Key, winner: Key | None, task: str, metric: str) -> str:
    entry = entries.get(key)
    score = entry.score(task, metric) if entry else None
    if entry is None or score is None or winner is None:
        return "–"
    shown = score.ratio if metric == HEADLINE and score.ratio else score.value
    text = f"{shown.value:.3f} ({shown.low:.3f}–{shown.high:.3f})"
    if metric != HEADLINE and score.difference is not None:
        low, high = score.difference.low, score.difference.high
        text += f", {score.difference.value:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    kept = entry.rows[0]["kept"]
    off = f" [{kept:.1%}]" if abs(kept - key[1]) > 0.01 else ""
    if key == winner:
        return f"**{text}**{off}"
    return text + (" =" if versus(entry, entries[winner], task, metric) == 0 else "") + off


def standing(found: Sequence[Suite], focus: str) -> str:
    """Where the method in focus is beaten: the cells in which another is significantly better, lost ones first."""
    lines, lost, total = [], 0, 0
    for suite in found:
        for steps, entries in suite.entries.items():
            for (method, size), entry in entries.items():
                if method != focus:
                    continue
                for task, metric in _measures(suite):
                    rivals = {
                        name: other for (name, other_size), other in entries.items()
                        if other_size == size and name != focus
                    }  # fmt: skip
                    better = [name for name, other in rivals.items() if versus(other, entry, task, metric) == 1]
                    total += bool(rivals)
                    lost += bool(better)
                    if better:
                        when = f"after {steps} steps" if steps else "before healing"
                        lines.append(f"- {suite.name}, {size:.0%} kept, {when}, {task}: {', '.join(better)}")
    head = f"`{focus}` is significantly beaten in {lost} of {total} cells" + (":" if lines else ".")
    return "\n".join([head, "", *lines]).rstrip()


def _measures(suite: Suite) -> list[tuple[str, str]]:
    return [(suite.domain, HEADLINE), *((task, "accuracy") for task in suite.parent.questions)]


def swept(suite: Suite, steps: int) -> Swept:
    """A domain as a sweep, which the pictures are drawn from: unhealed points, and those of one healing budget."""
    cells = [
        entry.cell(suite.domain, key)
        for budget in dict.fromkeys((0, steps))
        for key, entry in suite.entries.get(budget, {}).items()
    ]
    controls = scores_of("parent", [suite.parent], None)
    if suite.tuned is not None:
        controls += scores_of("parent_tuned", [suite.tuned], suite.parent)
    return Swept(
        domain=suite.domain,
        parameters=suite.parameters,
        controls=controls,
        cells=tuple(cells),
        pareto=Pareto(front=(), smallest={}),
    )


def document(
    found: Sequence[Suite],
    focus: str,
    pictures: Mapping[str, Sequence[str]],
    *,
    notes: str = "",
    stale: Sequence[str] = (),
) -> str:
    """The whole page: notes, what the method in focus loses, all domains at one glance, then domain by domain."""
    parts = [
        "# Methods side by side",
        "Written by `benchmarks/tables.py` from the items of `benchmarks/methods.py`. Bits per byte of held-out text "
        "as ratios to the parent's, accuracy with its difference to the parent, all "
        "with 95 % intervals from a bootstrap over documents or questions (paired where two models are compared). "
        "**Bold** is the best value of a column, `=` marks what the best is not significantly better than, `[..]` the "
        "size really reached where it misses the one asked for by more than one percent of the parent.",
        standing(found, focus),
        *([notes.strip()] if notes else []),
    ]
    for steps in sorted({steps for suite in found for steps in suite.entries}):
        shown = [suite for suite in found if steps in suite.entries]
        note = "Bits per byte over the parent's, smaller is better; real sizes and intervals stand further down:"
        parts += [f"## All domains, {_when(steps)}", note]
        parts += [overview(shown, steps, HEADLINE, stale), "Questions answered right, larger is better:"]
        parts.append(overview([suite for suite in shown if suite.parent.questions], steps, "accuracy", stale))
    for suite in found:
        parts += _section(suite, pictures.get(suite.name, ()), stale)
    return "\n\n".join(parts) + "\n"


def _when(steps: int) -> str:
    return f"after {steps} steps of healing" if steps else "before healing"


def _section(suite: Suite, pictures: Sequence[str], stale: Sequence[str]) -> list[str]:
    """A domain: its controls, a table for each task, and the pictures."""
    parent = ", ".join(_control(score) for score in scores_of("parent", [suite.parent], None) if _shown(score))
    parts = [f"## {suite.name}", f"Parent `{suite.base}`: {parent}. Measured on: {', '.join(suite.devices)}."]
    if suite.tuned is not None:
        tuned = scores_of("parent_tuned", [suite.tuned], suite.parent)
        parts.append(f"Tuned parent, which is pruned and teaches: {', '.join(map(_control, filter(_shown, tuned)))}.")
    parts += [f"![{suite.name}]({name})" for name in pictures]
    for steps, entries in suite.entries.items():
        for task, metric in [*_measures(suite), *(_general(suite))]:
            what = "bits per byte / parent" if metric == HEADLINE else metric
            parts += [f"### {task}, {what}, {_when(steps)}", table(entries, task, metric, stale)]
    return parts + [
        f"Not possible: {method} at {size:g} ({reason})"
        for each in suite.skipped.values()
        for (method, size), reason in each.items()
    ]


def _general(suite: Suite) -> list[tuple[str, str]]:
    return [(task, HEADLINE) for task in suite.parent.texts if task != suite.domain]


def _shown(score: Score) -> bool:
    return score.metric in (HEADLINE, "accuracy")


def _control(score: Score) -> str:
    value = f"{score.task} {score.metric.replace('_', ' ')} {score.value.value:.3f}"
    chance = f", chance {score.chance:.2f}" if score.chance is not None else ""
    return f"{value} ({score.value.low:.3f}–{score.value.high:.3f}, n = {score.n}{chance})"


def main() -> None:
    """Write the page, its pictures and its numbers as CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, nargs="+", help="later files overrule earlier ones")
    parser.add_argument("--output", type=Path, default=Path("docs/results/methods.md"))
    parser.add_argument("--focus", default="contextual", help="the method whose lost cells are listed")
    parser.add_argument("--notes", type=Path, help="Markdown that goes to the top of the page")
    parser.add_argument("--mark", default="", help="methods whose rows get a dagger, which the notes explain")
    chosen = parser.parse_args()
    found = suites(*chosen.results)
    pictures: dict[str, list[str]] = {}
    for suite in found:
        drawn = swept(suite, max(suite.entries, default=0))
        for name, draw in (("quality", quality), ("collapse", collapse)):
            if drawn.cells and (figure := draw(drawn)) is not None:
                stem = f"{chosen.output.stem}-{suite.name}-{name}"
                save_figure(figure, chosen.output.parent, stem)
                pictures.setdefault(suite.name, []).append(f"{stem}.svg")
    notes = chosen.notes.read_text("utf-8") if chosen.notes else ""
    page = document(found, chosen.focus, pictures, notes=notes, stale=chosen.mark.split(","))
    write_text(chosen.output, page)
    write_text(chosen.output.with_suffix(".csv"), as_csv(found))
    print(standing(found, chosen.focus))


if __name__ == "__main__":
    main()
