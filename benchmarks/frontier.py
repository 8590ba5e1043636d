"""Quality at equal bytes: specialists in several sizes and precisions beside the quantised uncut parent and a sibling.

Every entry is a file that is scored as it is in its runtime (llama.cpp), where there is one; parents in three and two
bits in blocks that no runtime reads are scored by the weights that the codes stand for, and say so. A call makes and
scores what is not in the folder yet, then writes table, lines and picture anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.frontier_entries import Entry, make_entry, parent_entries
from benchmarks.frontier_page import Measured, budget_rows, draw, markdown
from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from minigpt.evaluation import Suite, evaluate, suite_for, summarize
from minigpt.evaluation.items import load_scores, save_scores
from minigpt.files import read_json, write_json, write_jsonl, write_text
from minigpt.types import Corpus

# Tokens of a batch.
BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Text, suite and entries of one comparison."""

    corpus: Corpus
    suite: Suite
    entries: tuple[Entry, ...]


def main() -> None:
    """Make, score, and write."""
    options = parse()
    plan = plan_of(options)
    options.work.mkdir(parents=True, exist_ok=True)
    measured = [item for entry in plan.entries if (item := measure(entry, plan, options.work)) is not None]
    write(plan, measured, options)


def measure(entry: Entry, plan: Plan, work: Path) -> Measured | None:
    """Make and score an entry, or read what an earlier call left; None where its runtime is missing."""
    scores, facts = work / f"{entry.name}.scores.json", work / f"{entry.name}.file.json"
    if not facts.is_file():
        opened = make_entry(entry, work, plan.corpus)
        if opened is None:
            print(f"{entry.name}: left out, because llama.cpp is not installed", flush=True)
            return None
        save_scores(evaluate(opened.model, opened.tokenizer, plan.suite, batch_tokens=BATCH_TOKENS), scores)
        write_json(facts, {"bytes": opened.bytes, "scored": opened.scored})
    known = read_json(facts, dict[str, Any])
    item = Measured(entry=entry, bytes=known["bytes"], scored=known["scored"], scores=load_scores(scores))
    bits = item.scores.texts[plan.corpus.domain].bits_per_byte
    print(f"{entry.name}: {item.bytes / 1e6:.1f} MB, {bits:.4f}", flush=True)
    return item


def plan_of(options: argparse.Namespace) -> Plan:
    """Read the text, and list the entries."""
    corpus = build_corpus(load_domain(options.domain), seed=options.seed)
    suite = suite_for(corpus, None, max_heldout_bytes=options.bytes, max_questions=options.questions, seed=options.seed)
    entries = [*parent_entries("parent", options.parent, hypothetical=True)]
    for place in options.specialists:
        name, _, reference = place.rpartition("=")
        entries += specialist_entries(name or Path(reference).name, reference)
    if options.sibling:
        entries += parent_entries("sibling", options.sibling, hypothetical=False)
    if options.only:
        entries = [entry for name in options.only for entry in entries if entry.name == name]
    return Plan(corpus=corpus, suite=suite, entries=tuple(entries))


def specialist_entries(name: str, reference: str) -> Iterator[Entry]:
    """List the precisions of a specialist."""
    for precision in ("int8", "int4"):
        yield Entry(name=f"{name}-{precision}", group="specialist", reference=reference, precision=precision)


def write(plan: Plan, measured: Sequence[Measured], options: argparse.Namespace) -> None:
    """Write the lines of the results, the table and the picture."""
    # Differences are to the first entry: the parent in 16 bits, unless only others were asked for.
    whole = measured[0]
    rows = [
        {
            "name": item.entry.name,
            "group": item.entry.group,
            "precision": item.entry.precision,
            "bytes": item.bytes,
            "scored": item.scored,
            "metrics": summarize(item.scores, parent=whole.scores),
        }
        for item in measured
    ]
    write_jsonl(options.results, rows)
    budgets = budget_rows(measured, plan.corpus.domain, [size * 10**6 for size in options.budgets])
    text = markdown(measured, budgets, plan.corpus.domain)
    write_text(options.results.with_suffix(".md"), text)
    print(text)
    if options.picture:
        draw(measured, plan.corpus.domain, options.picture)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("specialists", nargs="+", help="builds of the domain, as FOLDER or NAME=FOLDER")
    parser.add_argument("--domain", required=True)
    parser.add_argument("--parent", required=True, help="the uncut parent: anything minigpt export takes")
    parser.add_argument("--sibling", help="a smaller model of the same family")
    parser.add_argument("--work", type=Path, required=True, help="folder of files and scores; finished ones are reused")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; the table goes beside them")
    parser.add_argument("--picture", type=Path, help="SVG to draw")
    parser.add_argument("--bytes", type=int, default=32768, help="bytes of held-out text, and of text of other sources")
    parser.add_argument("--questions", type=int, default=50, help="questions of each set")
    parser.add_argument("--budgets", type=int, nargs="+", default=[30, 40, 50, 60, 80, 100], help="in MB")
    parser.add_argument("--only", nargs="+", help="names of the entries to measure [all]")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
