"""Free answers that a specialist keeps: its own tasks on folders of text, against parent and tuned parent.

Each domain is a folder with `corpus_train.jsonl` and `corpus_heldout.jsonl`. Rules make three tasks of it, in the way
of the packaged domains. The tuned parent is trained once a domain, and every size starts from it. One JSON line for
each domain, size, task and metric; for labels its `constant` is the score of the commonest one, given to every prompt.
A domain and size that stand in the results are not made again, and an interrupted run goes on from its finished steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from minigpt.assets import DEFAULT_BASE
from minigpt.domain.config import packaged_folder
from minigpt.evaluation import ItemScores
from minigpt.evaluation.exchanges import exchanges
from minigpt.evaluation.items import AnswerItems
from minigpt.evaluation.paired import averaged, metric_interval, paired
from minigpt.files import read_jsonl, write_jsonl, write_text
from minigpt.machine import device_name
from minigpt.metrics import ANSWER_METRICS
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.build import specialize
from minigpt.pipeline.groundwork import Groundwork, lay_groundwork, read
from minigpt.pipeline.run import Run, load_parent, resolve_run
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import SILENT as REPORTER
from minigpt.report.text import percent
from minigpt.results import Interval

# Labels of the task `kind`, by the beginnings of documents' names.
LABELS: Mapping[str, Mapping[str, str]] = {
    "medical": {
        "openstax:anatomy": "anatomy",
        "openstax:microbiology": "microbiology",
        "medquad:": "advice for patients",
    },
    "law": {"openstax:": "textbook", "scotus": "court opinion", "dccode:": "statute"},
    "finance": {
        "openstax:principles-economics": "economics",
        "openstax:principles-finance": "finance",
        "openstax:business-ethics": "ethics",
        "tatqa:": "annual report",
        "federalreserve:": "speech",
    },
}
RULES = ({"name": "quote", "max_tokens": 16}, {"name": "missing_word", "max_tokens": 8})
# Prompts of one document.
PER_DOCUMENT = 4
# Share of the tuned parent's value that a specialist should keep.
BAR = 0.95


def domain_file(data: Path, name: str, work: Path) -> Path:
    """Write the files of a domain and of the general text, and return the path of the domain's."""
    general = {
        "name": "plain",
        "general_text": True,
        "corpus": _corpus(data / "general"),
        "tasks": [
            {"name": "instructions", "file": str(packaged_folder() / "instructions.jsonl"), "chat": True,
             "split": "heldout", "max_tokens": 48}
        ],
    }  # fmt: skip
    kind = {"name": "kind", "labels": dict(LABELS[name]), "max_tokens": 8}
    tasks = [{**rule, "rule": rule["name"], "per_document": PER_DOCUMENT} for rule in (kind, *RULES)]
    domain = {"name": name, "general": "plain.yaml", "corpus": _corpus(data / name), "tasks": tasks}
    for values in (general, domain):
        write_text(work / f"{values['name']}.yaml", yaml.safe_dump(values, sort_keys=False))
    return work / f"{name}.yaml"


def _corpus(folder: Path) -> list[dict[str, Any]]:
    """Name the training and the held-out text of a folder as sources of a domain file."""
    files = {"train": "corpus_train.jsonl", "heldout": "corpus_heldout.jsonl"}
    sources = [{"name": split, "file": str((folder / file).resolve())} for split, file in files.items()]
    sources[1]["split"] = "heldout"
    return sources


def lines_of(ground: Groundwork, ours: ItemScores, common: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one line for each metric of each task: values, and what the specialist keeps, with paired intervals."""
    tuned = ground.controls.tuned
    for task, items in ours.answers.items():
        models = {"parent": ground.controls.parent.answers[task], "specialist": items}
        if tuned is not None:
            models["tuned"] = tuned.answers[task]
        for metric in (name for name in ANSWER_METRICS if name in items.columns):
            columns = {name: averaged([scores], metric) for name, scores in models.items()}
            line: dict[str, Any] = {**common, "task": task, "metric": metric, "n": len(items.keys)}
            line |= {name: metric_interval(values, metric) for name, values in columns.items()}
            line["constant"] = items.guessed(metric)
            for name in ("parent", "tuned"):
                if name in columns:
                    line[f"difference_to_{name}"] = paired(columns["specialist"], columns[name], metric)
                    line[f"kept_of_{name}"] = kept(items, models[name], metric)
            yield line


def kept(ours: AnswerItems, other: AnswerItems, metric: str) -> Interval | None:
    """Divide our value by the other's, with the paired interval; None where one of them is zero."""
    columns = [averaged([items], metric) for items in (ours, other)]
    if min(float(values[:, 0].sum()) for values in columns) <= 0:
        return None
    return paired(*columns, metric, how="ratio")


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Draw the results as a Markdown table: what is kept of the tuned parent, or of the parent for the form."""
    rows = [
        "| domain | kept | task | metric | n | constant | parent | tuned | specialist | of tuned | of parent | 95 % |"
    ]
    rows.append("|" + "---|" * 12)
    for line in lines:
        values = [
            _value(line.get(name)) for name in ("parent", "tuned", "specialist", "kept_of_tuned", "kept_of_parent")
        ]
        guess = line.get("constant")
        head = (line["domain"], percent(line["kept"]), line["task"], line["metric"], str(line["n"]))
        rows.append(f"| {' | '.join((*head, '–' if guess is None else f'{guess:.3f}', *values, verdict(line)))} |")
    return "\n".join(rows)


def verdict(line: Mapping[str, Any]) -> str:
    """Say whether the bar is reached; `guess` where it is, and one answer to all prompts may score as much."""
    is_form = line["metric"] == "format_compliance"
    against = line.get("kept_of_parent" if is_form else "kept_of_tuned") or line.get("kept_of_parent")
    if against is None:
        return "–"
    if against["value"] < BAR:
        return "no"
    guess = None if is_form else line.get("constant")
    return "guess" if guess is not None and line["specialist"]["low"] <= guess else "yes"


def _value(interval: Mapping[str, float] | None) -> str:
    """Write a value with its interval."""
    return "–" if interval is None else f"{interval['value']:.3f} ({interval['low']:.3f}–{interval['high']:.3f})"


def measured(run: Run, sizes: Sequence[float], results: Path, *, until: float) -> None:
    """Build and measure the sizes of one domain that have no line in the results yet, one after the other."""
    name = run.domain.name
    finished = {(line["domain"], line["size"], line["preset"]) for line in _lines(results)}
    wanted = [size for size in sizes if (name, size, run.options.preset) not in finished]
    if not wanted:
        return
    corpora, suite = read(run)
    ground = lay_groundwork(run, corpora, suite, load_parent(run))
    for size in wanted:
        if time.monotonic() > until:
            print(f"{name} {size}: not started, the time is over", flush=True)
            return
        started = time.monotonic()
        workspace = Workspace(root=run.workspace.root / f"{size:g}", reporter=run.reporter)
        point = replace(run, workspace=workspace, options=replace(run.options, target_size=size))
        specialist = specialize(point, ground)
        scores, stage = specialist.scores[-1], specialist.stages[-1]
        parent = ground.controls.stages[0]
        common = {
            "domain": name,
            "size": size,
            "preset": run.options.preset,
            "kept": stage.parameters / parent.parameters,
            "device": device_name(run.device),
            "seconds": round(time.monotonic() - started),
        }
        models = {"parent": ground.controls.parent, "healed": scores}
        for entry in exchanges(ground.suite, models, shown=0):
            print(f"{name} {size} {entry.task}: won {entry.won}, lost {entry.lost}, both {entry.both}", flush=True)
        write_jsonl(results, [*_lines(results), *lines_of(ground, scores, common)])
        print(table([line for line in _lines(results) if (line["domain"], line["size"]) == (name, size)]), flush=True)


def _lines(results: Path) -> list[dict[str, Any]]:
    """Read the results so far."""
    return list(read_jsonl(results)) if results.exists() else []


def main() -> None:
    """Read the options, and measure domain by domain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each domain and `general`")
    parser.add_argument("--work", type=Path, required=True, help="folder of the builds; a later call goes on in it")
    parser.add_argument("--json", type=Path, required=True, help="results, one line for each metric")
    parser.add_argument("--base", default=DEFAULT_BASE, help="parent")
    parser.add_argument("--domains", default="medical,law,finance", help="domains, separated by commas")
    parser.add_argument("--sizes", default="0.5,0.75", help="shares of the parameters to keep, separated by commas")
    parser.add_argument("--preset", default="standard", help="quick, standard or thorough")
    parser.add_argument("--device", default="auto", help="torch device")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE", help="settings")
    parser.add_argument("--limit-seconds", type=float, default=1e9, help="start no size later than this")
    options = parser.parse_args()
    until = time.monotonic() + options.limit_seconds
    options.work.mkdir(parents=True, exist_ok=True)
    overrides = {"evaluation.answers": "null", "evaluation.recitation": "0", "evaluation.samples": "0"}
    overrides |= dict(pair.split("=", 1) for pair in options.overrides)
    for name in options.domains.split(","):
        path = domain_file(options.data, name, options.work)
        build = BuildOptions(
            domains=(str(path),), base=options.base, preset=options.preset, device=options.device, target_size=0.5,
            overrides=overrides,
        )  # fmt: skip
        run = resolve_run(str(path), build, REPORTER, folder=options.work / name)
        measured(run, [float(size) for size in options.sizes.split(",")], options.json, until=until)
    print(table(_lines(options.json)))


if __name__ == "__main__":
    main()
