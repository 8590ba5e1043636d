"""Tables of the lines of `lottery.py`, overlaps of its masks across domains, and structured tickets as builds.

`table LINES` pairs every arm with the tuned parent and with the ticket of its plan (`--against PATTERN`: with the
ticket of this pattern). `overlap WORK` compares the masks that domains share a plan of. `structured` builds specialists
with several methods at equal healing, or with `--budget total` at equal steps in all, and pairs them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lottery import ratio

from minigpt.assets import DEFAULT_BASE
from minigpt.evaluation import load_scores
from minigpt.evaluation.paired import averaged, paired
from minigpt.files import fingerprint, read_jsonl, to_plain, write_json, write_text
from minigpt.methods import method_named
from minigpt.methods.table import ROUNDS
from minigpt.pipeline import BuildOptions, build_specialists
from minigpt.pipeline.overrides import apply_overrides
from minigpt.pipeline.settings import PRESETS
from minigpt.tickets.masks import density
from minigpt.tickets.overlap import core_share, overlap
from minigpt.tickets.rounds import load_masks

BITS = "bits_per_byte"
TEXTS = ("heldout", "other", "general")


def compared(lines: Sequence[Mapping[str, Any]], against: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield a row for each arm: ratios to the tuned parent, and to the ticket of the same plan, with intervals.

    Args:
        lines: lines of one or more runs; an arm belongs to the last tuned parent before it, which each run trains anew.
        against: pattern of the ticket that arms are paired with: the first of the same domain, parent and share (None:
            the ticket of the arm's own plan).
    """
    tuned: dict[str, Mapping[str, Any]] = {}
    tickets = {_group(line): line for line in lines if line["arm"] == "imp"}
    for line in lines:
        if line["arm"] == "tuned":
            tuned[_parent(line)] = line
        if line["arm"] in ("parent", "tuned"):
            continue
        reference = tuned[_parent(line)]
        ticket = tickets.get(_group(line)) if against is None else _ticket_of(lines, line, against)
        texts = [text for text in TEXTS if text in line["texts"]]
        yield {
            "domain": line["domain"], "pattern": line["plan"]["pattern"], "remaining": round(line["remaining"], 4),
            "arm": line["arm"], "start": line["plan"]["start"], "rewinding": line["plan"]["rewinding"],
            "rewind": line["plan"]["rewind"], "seed": line["plan"]["seed"], "steps": line["steps"],
            **{name: line["plan"][name] for name in ("criterion", "last", "sampled") if name in line["plan"]},
            "before": line.get("before_training", {}).get("heldout"),
            "to_tuned": {text: ratio(line, reference, text) for text in texts},
            "to_ticket": {text: ratio(line, ticket, text) for text in texts} if ticket else {},
            "stored": line["stored"], "seconds": line["seconds"],
        }  # fmt: skip


def _parent(line: Mapping[str, Any]) -> str:
    """Fingerprint the tuned parent that a line belongs to."""
    return fingerprint(line["domain"], line["base"], line["limit"], line["tune"])


def _group(line: Mapping[str, Any]) -> str:
    """Fingerprint what the arms of a plan share."""
    return fingerprint(*(line.get(name) for name in ("domain", "base", "limit", "tune", "heal", "plan")))


def _ticket_of(lines: Sequence[Mapping[str, Any]], line: Mapping[str, Any], pattern: str) -> Mapping[str, Any] | None:
    """Return the first ticket of a pattern with the same domain, parent and share, whatever its rounds were."""
    same = ("domain", "base", "limit")
    for other in lines:
        if other["arm"] != "imp" or any(other[name] != line[name] for name in same):
            continue
        shares = [plan.get("remaining") for plan in (other["plan"], line["plan"])]
        if other["plan"]["pattern"] == pattern and shares[0] == shares[1]:
            return other
    return None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a Markdown table with a row for each arm."""
    lines = [
        "| domain, pattern, weights left | arm | steps | held-out, to the tuned parent | other sources | general "
        "| held-out, to the ticket | stored, of dense |",
        "|---|---|---:|---|---|---|---|---:|",
    ]
    for row in rows:
        stored = row["stored"]
        cells = [
            ", ".join((row["domain"], row["pattern"], f"{row['remaining']:.0%}", *_younger(row))),
            row["arm"],
            f"{row['steps']:.0f}",
            *(_cell(row["to_tuned"].get(text)) for text in TEXTS),
            _cell(row["to_ticket"].get("heldout")),
            f"{stored['file'] / stored['dense']:.1%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _younger(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a row has beyond rounds by magnitude on the domain's own text, from the parent itself."""
    if row["start"] != "parent":
        yield f"from {row['start']}"
    if "criterion" in row:
        yield str(row["criterion"])
    yield from (f"{name} {row[name]}" for name in ("last", "sampled") if name in row)


def _cell(value: Mapping[str, float] | None) -> str:
    """Write a ratio with its interval; nothing for a ticket beside itself."""
    return (
        "-"
        if value is None or value["low"] == value["high"] == 1
        else f"{value['value']:.4f} ({value['low']:.4f}-{value['high']:.4f})"
    )


def overlaps(work: Path) -> dict[str, Any]:
    """Compare the masks of the same plan and arm in all pairs of domains, and find the core that all share."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(work.glob("*/masks/*.safetensors")):
        if path.stem.endswith(("-imp", "-magnitude", "-wanda", "-sparsegpt")):
            found.setdefault(path.stem, {})[path.parents[1].name] = path
    result = {}
    for name, paths in found.items():
        if len(paths) < 2:
            continue
        masks = {domain: load_masks(path) for domain, path in paths.items()}
        share, chance = core_share(list(masks.values()))
        result[name] = {
            "densities": {domain: density(mask) for domain, mask in masks.items()},
            "pairs": {f"{a} {b}": to_plain(overlap(masks[a], masks[b])) for a, b in combinations(masks, 2)},
            "core": share,
            "core_by_chance": chance,
        }
    return result


def structured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Build each method at each size with the same preset and settings, and return a row for each.

    A finished build is read, not repeated, and an interrupted one goes on. The tuned parent is trained in each build
    from the same seed; its runs differ slightly on a GPU, so ratios are to the build's own tuned parent.

    A ticket's rounds only rank the units: it is cut from the same parent and healed like the others. So the budget
    `healing` gives all the same healing, and the ticket its rounds beside; with `total` the others heal for as many
    steps as the ticket's rounds and healing have together.
    """
    rows, started, longest = [], time.perf_counter(), 0.0
    domain = options.domain if options.data is None else str(options.data / f"{options.domain}.yaml")
    for size in options.sizes.split(","):
        for method in options.methods.split(","):
            name, _, criterion = method.partition(":")
            sets = overrides(name, criterion, options)
            longer = f"-{sets['heal.steps']}" if options.budget == "total" and "heal.steps" in sets else ""
            folder = options.work / f"{options.domain}-{name}{'-' * bool(criterion)}{criterion}-{size}{longer}"
            if not (folder / "report.json").exists():
                if time.perf_counter() - started + 1.1 * longest > options.limit_seconds:
                    print(f"{folder.name}: no time left", flush=True)
                    continue
                began = time.perf_counter()
                build_specialists(
                    BuildOptions(
                        domains=(domain,), base=options.base, preset=options.preset, output_dir=folder, method=name,
                        device=options.device, target_size=float(size), overrides=sets, seed=options.seed,
                    )
                )  # fmt: skip
                longest = max(longest, time.perf_counter() - began)
            rows.append({"method": method, "size": size, "domain": options.domain, **_measured(folder)})
            print(method, size, rows[-1]["to_tuned"], flush=True)
    return rows


def overrides(method: str, criterion: str, options: argparse.Namespace) -> dict[str, str]:
    """Return the settings of a build, with more healing for a method without rounds if totals are to be equal."""
    sets = dict(pair.split("=", 1) for pair in options.set)
    if criterion:
        sets["lottery.criterion"] = criterion
    if options.budget == "total" and ROUNDS not in method_named(method).needs:
        settings = apply_overrides(PRESETS[options.preset], sets)
        healing = settings.heal.steps
        ticket: Any = settings.lottery.for_units(healing)
        sets["heal.steps"] = str(healing + ticket.rewind + ticket.rounds * ticket.steps + ticket.last)
    return sets


def steps_of(report: Mapping[str, Any]) -> dict[str, int]:
    """Count the steps of a build's training: those that ranked units, and those of the specialist itself."""
    ranking = sum(entry["steps"] for entry in report["rounds"])
    healing = (report["stages"][-1]["training"] or {"steps": 0})["steps"]
    return {"ranking": ranking, "healing": healing, "total": ranking + healing}


def _measured(folder: Path) -> dict[str, Any]:
    """Pair a build's specialist with its tuned parent (or its parent) on every text."""
    items = {path.parent.name: load_scores(path) for path in sorted((folder / "work").glob("measured_*/scores.json"))}
    healed = items["measured_healed"]
    reference = items.get("measured_parent_tuned", items["measured_parent"])
    texts = {}
    for text in healed.texts:
        pair = [averaged([scores.texts[text]], BITS) for scores in (healed, reference)]
        texts[text] = to_plain(paired(*pair, BITS, how="ratio"))
    report = json.loads((folder / "report.json").read_text("utf-8"))
    return {
        "to_tuned": texts, "shape": report["shape_after"], "rounds": report["rounds"], "seconds": report["seconds"],
        "steps": steps_of(report), "parameters": report["stages"][-1]["parameters"],
        "parent_parameters": report["stages"][0]["parameters"],
    }  # fmt: skip


def main() -> None:
    """Run one of the three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    first = parts.add_parser("table")
    first.add_argument("lines", nargs="+", type=Path)
    second = parts.add_parser("overlap")
    second.add_argument("work", type=Path)
    third = parts.add_parser("structured")
    third.add_argument("--data", type=Path)
    third.add_argument("--domain", default="medical")
    third.add_argument("--work", type=Path, required=True)
    third.add_argument("--base", default=DEFAULT_BASE)
    third.add_argument("--methods", default="contextual,lottery,lottery:contextual,magnitude,random")
    third.add_argument("--sizes", default="0.75,0.5")
    third.add_argument("--preset", default="standard")
    third.add_argument("--budget", choices=("healing", "total"), default="healing", help="steps that are equal")
    third.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    third.add_argument("--seed", type=int, default=0)
    third.add_argument("--device", default="auto")
    third.add_argument("--limit-seconds", type=float, default=1e9, help="begin no build that would end later")
    for part in (first, second, third):
        part.add_argument("--json", type=Path, required=True)
    first.add_argument("--table", type=Path, help="Markdown table to write")
    first.add_argument("--against", metavar="PATTERN", help="pair arms with the ticket of this pattern [their own]")
    options = parser.parse_args()
    if options.part == "table":
        rows = list(compared([row for path in options.lines for row in read_jsonl(path)], options.against))
        write_json(options.json, rows)
        print(table(rows))
        if options.table:
            write_text(options.table, table(rows))
    else:
        result = overlaps(options.work) if options.part == "overlap" else structured(options)
        write_json(options.json, result)
        print(json.dumps(result, indent=1)[:4000])


if __name__ == "__main__":
    main()
