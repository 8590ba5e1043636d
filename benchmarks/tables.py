"""Tables and pictures of the results of `benchmarks/methods.py`: every method at every size, with intervals.

All numbers are computed from the items in the results. Seeds are averaged first. The 95 % intervals are over
documents or questions, and paired wherever two models are compared.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from digest import as_csv, marked, overview, takeaway
from entries import Entry, Key, Suite, read_suites

from minigpt.evaluation import ItemScores
from minigpt.evaluation.paired import averaged, paired
from minigpt.files import write_text
from minigpt.report.figures import ENOUGH_ITEMS, HEADLINE
from minigpt.sweep.cells import scores_of
from minigpt.sweep.plots import collapse, quality, save_figure
from minigpt.sweep.records import DomainSweep, Pareto, Score


def versus(one: Entry, other: Entry, task: str, metric: str) -> int:
    """Compare two entries on the same items.

    Returns:
        1 where `one` is significantly better than `other`, -1 where it is significantly worse, else 0.
    """
    first, second = (averaged([_task(run, task) for run in entry.runs], metric) for entry in (one, other))
    difference = paired(first, second, metric)
    if len(first) < ENOUGH_ITEMS or difference.low <= 0 <= difference.high:
        return 0
    return 1 if (difference.value < 0) == (metric == HEADLINE) else -1


def _task(run: ItemScores, task: str) -> Any:
    """Return the items of a text or a question set."""
    return run.texts[task] if task in run.texts else run.questions[task]


def best_of(entries: Mapping[Key, Entry], size: float, task: str, metric: str) -> Key | None:
    """Find the entry with the best value at a size, or None where nothing was measured."""
    scores = {key: entry.score(task, metric) for key, entry in entries.items() if key[1] == size}
    values = {key: score.value.value for key, score in scores.items() if score is not None}
    if not values:
        return None
    choose: Callable[..., Key] = min if metric == HEADLINE else max
    return choose(values, key=lambda key: values[key])


def table(entries: Mapping[Key, Entry], task: str, metric: str, stale: Sequence[str] = ()) -> str:
    """Write a Markdown table with a row for each method and a column for each size.

    The best value of a column is bold. `=` marks a value that the best is not significantly better than.

    Args:
        entries: entries by method and size.
        task: the text or question set.
        metric: `bits_per_byte` or `accuracy`.
        stale: methods whose rows are marked.
    """
    sizes = sorted({size for _, size in entries}, reverse=True)
    winners = {size: best_of(entries, size, task, metric) for size in sizes}
    lines = ["| method | " + " | ".join(f"{size:.0%} kept" for size in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for method in dict.fromkeys(name for name, _ in entries):
        cells = [_cell(entries, (method, size), winners[size], task, metric) for size in sizes]
        lines.append(f"| {marked(method, stale)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _takeaway(entries: Mapping[Key, Entry], task: str, metric: str) -> str:
    """Say in one sentence which method is best in the table of `entries`."""
    sizes = sorted({size for _, size in entries}, reverse=True)
    winners = [best_of(entries, size, task, metric) for size in sizes]
    return takeaway([[winner[0]] for winner in winners if winner is not None], metric)


def _cell(entries: Mapping[Key, Entry], key: Key, winner: Key | None, task: str, metric: str) -> str:
    """Write a value with its interval, its difference to the parent, and the marks of the table."""
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


def standing(suites: Sequence[Suite], focus: str) -> str:
    """List the cells in which another method is significantly better than the method in focus."""
    lines, lost, total = [], 0, 0
    for suite in suites:
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
    """Return task and metric of the domain's text and of every question set."""
    return [(suite.domain, HEADLINE), *((task, "accuracy") for task in suite.parent.questions)]


def swept(suite: Suite, steps: int) -> DomainSweep:
    """Convert a domain's entries to a sweep, which the pictures are drawn from.

    Args:
        suite: what was measured on the domain.
        steps: the healing budget whose points are drawn beside the points without healing.
    """
    cells = [
        entry.cell(suite.domain, key)
        for budget in dict.fromkeys((0, steps))
        for key, entry in suite.entries.get(budget, {}).items()
    ]
    unpruned = scores_of("parent", [suite.parent], None)
    if suite.tuned is not None:
        unpruned += scores_of("parent_tuned", [suite.tuned], suite.parent)
    return DomainSweep(
        domain=suite.domain,
        parameters=suite.parameters,
        controls=unpruned,
        cells=tuple(cells),
        pareto=Pareto(front=(), smallest={}),
    )


def document(
    suites: Sequence[Suite],
    focus: str,
    pictures: Mapping[str, Sequence[str]],
    *,
    notes: str = "",
    stale: Sequence[str] = (),
) -> str:
    """Write the whole page: introduction, lost cells, notes, all domains together, then each domain.

    Args:
        suites: what was measured, by domain.
        focus: the method whose lost cells are listed.
        pictures: file names of the pictures by name of the suite.
        notes: Markdown that stands before the tables.
        stale: methods whose rows are marked.
    """
    parts = [
        "# Methods side by side",
        _paragraph(
            "Pruning methods at several sizes and on several domains, before healing and after one healing budget that "
            "is equal for all. `benchmarks/tables.py` writes this page from the items of `benchmarks/methods.py`."
        ),
        _paragraph(
            "How to read a table: a row is a method, and a column is a size, as the share of the parent's parameters "
            "that is kept. Bits per byte of held-out text are ratios to the parent's, and accuracy on questions stands "
            "with its difference to the parent. All have 95 % intervals over documents or questions, "
            "paired where two models are compared. **Bold** is the best value of a column. `=` marks a value that the "
            "best is not significantly better than. `[..]` gives the size really reached where it misses the wanted "
            "size by more than one percent of the parent. Where a name ends in `-tuned`, the parent that is pruned and "
            "teaches was tuned on the domain first."
        ),
        standing(suites, focus),
        *([notes.strip()] if notes else []),
    ]
    for steps in sorted({steps for suite in suites for steps in suite.entries}):
        shown = [suite for suite in suites if steps in suite.entries]
        note = "Bits per byte over the parent's. Sizes really reached and intervals stand further down."
        parts += [f"## All domains, {_when(steps)}", note]
        parts += [overview(shown, steps, HEADLINE, stale), "Accuracy on the questions."]
        parts.append(overview([suite for suite in shown if suite.parent.questions], steps, "accuracy", stale))
    for suite in suites:
        parts += _section(suite, pictures.get(suite.name, ()), stale)
    return "\n\n".join(parts) + "\n"


def _paragraph(text: str) -> str:
    """Break a paragraph into lines as long as those of the other pages."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def _when(steps: int) -> str:
    """Say in a heading when the models were measured."""
    return f"after {steps} steps of healing" if steps else "before healing"


def _section(suite: Suite, pictures: Sequence[str], stale: Sequence[str]) -> list[str]:
    """Write the section of a domain: the unpruned models, the pictures, and a table for each task."""
    parent = _score_list(scores_of("parent", [suite.parent], None))
    devices = ", ".join(suite.devices)
    parts = [f"## {suite.name}", _paragraph(f"Parent `{suite.base}`: {parent}. Measured on: {devices}.")]
    if suite.tuned is not None:
        tuned = _score_list(scores_of("parent_tuned", [suite.tuned], suite.parent))
        parts.append(_paragraph(f"Tuned parent, which is pruned and teaches: {tuned}."))
    parts += [f"![{suite.name}]({name})" for name in pictures]
    for steps, entries in suite.entries.items():
        for task, metric in [*_measures(suite), *(_general(suite))]:
            measure = "bits per byte / parent" if metric == HEADLINE else metric
            parts += [f"### {task}, {measure}, {_when(steps)}", _takeaway(entries, task, metric)]
            parts.append(table(entries, task, metric, stale))
    return parts + [
        f"Not possible: {method} at {size:g} ({reason})"
        for points in suite.skipped.values()
        for (method, size), reason in points.items()
    ]


def _general(suite: Suite) -> list[tuple[str, str]]:
    """Return task and metric of the texts outside the domain."""
    return [(task, HEADLINE) for task in suite.parent.texts if task != suite.domain]


def _score_list(scores: Sequence[Score]) -> str:
    """List bits per byte and accuracies of a model that was not pruned."""
    return ", ".join(_score_text(score) for score in scores if score.metric in (HEADLINE, "accuracy"))


def _score_text(score: Score) -> str:
    """Write a value with its interval and the number of its items."""
    value = f"{score.task} {score.metric.replace('_', ' ')} {score.value.value:.3f}"
    chance = f", chance {score.chance:.2f}" if score.chance is not None else ""
    return f"{value} ({score.value.low:.3f}–{score.value.high:.3f}, n = {score.n}{chance})"


def main() -> None:
    """Write the page, its pictures, and its numbers as CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, nargs="+", help="JSON lines; later files win")
    parser.add_argument("--output", type=Path, default=Path("docs/results/methods.md"))
    parser.add_argument("--focus", default="contextual", help="the method whose lost cells are listed")
    parser.add_argument("--notes", type=Path, help="Markdown that goes to the top of the page")
    parser.add_argument("--mark", default="", help="methods whose rows get a dagger; explain it in the notes")
    options = parser.parse_args()
    suites = read_suites(*options.results)
    pictures: dict[str, list[str]] = {}
    for suite in suites:
        drawn = swept(suite, max(suite.entries, default=0))
        for name, draw in (("quality", quality), ("collapse", collapse)):
            if drawn.cells and (figure := draw(drawn)) is not None:
                stem = f"{options.output.stem}-{suite.name}-{name}"
                save_figure(figure, options.output.parent, stem)
                pictures.setdefault(suite.name, []).append(f"{stem}.svg")
    notes = options.notes.read_text("utf-8") if options.notes else ""
    page = document(suites, options.focus, pictures, notes=notes, stale=options.mark.split(","))
    write_text(options.output, page)
    write_text(options.output.with_suffix(".csv"), as_csv(suites))
    print(standing(suites, options.focus))


if __name__ == "__main__":
    main()
