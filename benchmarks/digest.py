"""Summaries that `benchmarks/tables.py` adds to its tables: all domains in one table, and every number as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from entries import Suite

from minigpt.report.figures import HEADLINE

MARK = "†"
COLUMNS = (
    "suite", "domain", "method", "size", "heal_steps", "parameters", "kept", "layers", "intermediate_size",
    "kv_groups", "vocab_size", "seeds", "task", "metric", "n", "chance", "value", "low", "high", "ratio", "ratio_low",
    "ratio_high",
)  # fmt: skip


def marked(method: str, stale: Sequence[str]) -> str:
    """Return the method's name in a table, with a mark where it is in `stale` and the notes explain its rows."""
    return f"{method} {MARK}" if method in stale else method


def takeaway(best: Sequence[Collection[str]], metric: str) -> str:
    """Say in one sentence which method is best in a table.

    Args:
        best: the methods with the best value, for each column.
        metric: `bits_per_byte`, where smaller is better, or `accuracy`, where larger is better.
    """
    direction = "Smaller is better" if metric == HEADLINE else "Larger is better"
    counts = Counter(method for methods in best for method in methods)
    most = max(counts.values(), default=0)
    if 2 * most <= len(best):
        return f"{direction}, and no method has the best value in most columns:"
    leaders = [f"`{method}`" for method, count in counts.items() if count == most]
    verb, extent = "has" if len(leaders) == 1 else "have", "every column" if most == len(best) else "most columns"
    return f"{direction}, and {' and '.join(leaders)} {verb} the best value in {extent}:"


def overview(suites: Sequence[Suite], steps: int, metric: str, stale: Sequence[str]) -> str:
    """Write one table with a row for each method and a column for each domain and size, with a sentence before it.

    Values stand without intervals, and the best of a column is bold.

    Args:
        suites: the suites that are shown.
        steps: steps of the healing budget (0: before healing).
        metric: `bits_per_byte`, as ratios to the parent, or `accuracy` on the domain's first question set.
        stale: methods whose rows are marked.
    """
    columns, values = [], {}
    for suite in suites:
        entries = suite.entries.get(steps, {})
        task = suite.domain if metric == HEADLINE else next(iter(suite.parent.questions))
        for size in sorted({size for _, size in entries}, reverse=True):
            columns.append((suite.name, size))
            for (method, entry_size), entry in entries.items():
                if entry_size == size and (score := entry.score(task, metric)) is not None:
                    shown = score.ratio if metric == HEADLINE and score.ratio else score.value
                    values[method, suite.name, size] = round(shown.value, 3)
    methods = tuple(dict.fromkeys(method for method, _, _ in values))
    best = [_best(values, methods, column, metric) for column in columns]
    lines = [
        takeaway(best, metric),
        "",
        "| method | " + " | ".join(f"{name} {size:.0%}" for name, size in columns) + " |",
    ]
    lines.append("|---" * (len(columns) + 1) + "|")
    for method in methods:
        cells = []
        for column, winners in zip(columns, best, strict=True):
            value = values.get((method, *column))
            text = "–" if value is None else f"{value:.3f}"
            cells.append(f"**{text}**" if method in winners else text)
        lines.append(f"| {marked(method, stale)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _best(
    values: Mapping[tuple[str, str, float], float], methods: Sequence[str], column: tuple[str, float], metric: str
) -> list[str]:
    """Find the methods with the best value of a column, all of them where several are equal."""
    measured = {method: values[method, *column] for method in methods if (method, *column) in values}
    best = min(measured.values()) if metric == HEADLINE else max(measured.values())
    return [method for method, value in measured.items() if value == best]


def as_csv(suites: Sequence[Suite]) -> str:
    """Write every number with its interval as CSV, one number a line.

    The tables can be written again from it, without the large file of items.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_lines(suites))
    return stream.getvalue()


def _lines(suites: Sequence[Suite]) -> Iterator[list[object]]:
    """Yield the CSV lines of every score."""
    for suite in suites:
        for steps, entries in suite.entries.items():
            for (method, size), entry in entries.items():
                row = entry.rows[0]
                shape = [row["shape"][name] for name in ("layers", "intermediate_size", "kv_groups", "vocab_size")]
                for score in entry.scores:
                    value, ratio = score.value, score.ratio
                    yield [
                        suite.name, suite.domain, method, size, steps, row["parameters"], round(row["kept"], 4), *shape,
                        len(entry.rows), score.task, score.metric, score.n, score.chance,
                        *(round(part, 4) for part in (value.value, value.low, value.high)),
                        *((round(part, 4) for part in (ratio.value, ratio.low, ratio.high)) if ratio else ("", "", "")),
                    ]  # fmt: skip
