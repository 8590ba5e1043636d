"""All domains at one glance, and every number of the tables as CSV: what `benchmarks/tables.py` puts around them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from entries import Suite

from minigpt.report.figures import HEADLINE

MARK = "†"
COLUMNS = (
    "suite", "domain", "method", "size", "heal_steps", "parameters", "kept", "layers", "intermediate_size",
    "kv_groups", "vocab_size", "seeds", "task", "metric", "n", "chance", "value", "low", "high", "ratio", "ratio_low",
    "ratio_high",
)  # fmt: skip


def marked(method: str, stale: Sequence[str]) -> str:
    """The method's name in a table, with a mark where the notes have something to say about its rows."""
    return f"{method} {MARK}" if method in stale else method


def overview(found: Sequence[Suite], steps: int, metric: str, stale: Sequence[str]) -> str:
    """One table: a row a method, a column a domain and size, values without intervals; the best of a column in bold.

    Args:
        found: the suites that are shown.
        steps: of the healing budget (0: before healing).
        metric: `bits_per_byte`, as ratios to the parent, or `accuracy` on the domain's first question set.
        stale: methods whose rows are marked.
    """
    columns, values = [], {}
    for suite in found:
        entries = suite.entries.get(steps, {})
        task = suite.domain if metric == HEADLINE else next(iter(suite.parent.questions))
        for size in sorted({size for _, size in entries}, reverse=True):
            columns.append((suite.name, size))
            for (method, own), entry in entries.items():
                if own == size and (score := entry.score(task, metric)) is not None:
                    shown = score.ratio if metric == HEADLINE and score.ratio else score.value
                    values[method, suite.name, size] = round(shown.value, 3)
    methods = tuple(dict.fromkeys(method for method, _, _ in values))
    lines = ["| method | " + " | ".join(f"{name} {size:.0%}" for name, size in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for method in methods:
        cells = []
        for column in columns:
            among = [values[each, *column] for each in methods if (each, *column) in values]
            best = min(among) if metric == HEADLINE else max(among)
            value = values.get((method, *column))
            text = "–" if value is None else f"{value:.3f}"
            cells.append(f"**{text}**" if value == best else text)
        lines.append(f"| {marked(method, stale)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_csv(found: Sequence[Suite]) -> str:
    """Every number with its interval, a line each: the tables can be made again without the large file of items."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_lines(found))
    return stream.getvalue()


def _lines(found: Sequence[Suite]) -> Iterator[list[object]]:
    for suite in found:
        for steps, entries in suite.entries.items():
            for (method, size), entry in entries.items():
                row = entry.rows[0]
                shape = [row["shape"][name] for name in ("layers", "intermediate_size", "kv_groups", "vocab_size")]
                for score in entry.scores:
                    value, ratio = score.value, score.ratio
                    yield [
                        suite.name, suite.domain, method, size, steps, row["parameters"], round(row["kept"], 4), *shape,
                        len(entry.rows), score.task, score.metric, score.n, score.chance,
                        *(round(each, 4) for each in (value.value, value.low, value.high)),
                        *((round(each, 4) for each in (ratio.value, ratio.low, ratio.high)) if ratio else ("", "", "")),
                    ]  # fmt: skip
