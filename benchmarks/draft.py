"""Specialists as drafts of their parent: is the greedy text the parent's, token for token, and what does it gain?

Each build is a folder with its report and `domain.yaml`; prompts are the beginnings of pieces of its held-out text,
spread over all of it. Every prompt is continued by the parent alone and with the draft, by turns in which goes first.
One JSON line for each prompt; those that stand in the results are not tried again, so an interrupted run goes on.
`--shard 0/4` tries every fourth prompt: several processes, best each with a card of its own, share one results file.
Without builds, the table of the results is printed. Speeds count only where nothing else runs on the device.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from minigpt import assets, report
from minigpt.assets.quiet import quiet_transformers
from minigpt.exporting.draft import NEW_TOKENS, WORTH_IT, Trial, choose_prompts, encode, id_map, run_trial, speed_up
from minigpt.exporting.draft_map import Counts, add
from minigpt.exporting.request import ExportRequest, read_corpus
from minigpt.files import fingerprint
from minigpt.machine import device_name, pick_device
from minigpt.results import BuildReport


def trial_lines(
    build: Path, options: argparse.Namespace, *, until: float, finished: frozenset[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    """Try the prompts of one build that have no line yet, and yield a line for each.

    Args:
        build: folder of the build.
        options: the command line.
        until: moment of :func:`time.monotonic` after which no prompt begins.
        finished: keys of the lines that there are, of :func:`key_of`.
    """
    result = report.load(build)
    device = pick_device(options.device)
    common = {
        "domain": result.domain,
        "build": result.fingerprints.get("build", str(build)),
        "device": device_name(device),
        "prompts": options.prompts,
        "new_tokens": NEW_TOKENS,
        "versions": dict(result.versions) | {"torch": torch.__version__},
    }
    prompts = prompts_of(build, result, options, device)
    wanted = [
        number
        for number in range(len(prompts))
        if number % options.shard[1] == options.shard[0] and key_of({**common, "number": number}) not in finished
    ]
    if not wanted:
        return
    target, draft, tokenizers = load_pair(build, options.parent or result.base_model, device)
    id_map(target, draft, tokenizers)  # refuses a draft of another family
    with quiet_transformers(), torch.inference_mode():
        rows = {number: encode(tokenizers[0], prompts[number]).to(target.device) for number in wanted}
        run_trial(target, draft, tokenizers, rows[wanted[0]], draft_first=False)  # warms up, and is not counted
        for number in wanted:
            if time.monotonic() > until:
                print(f"{result.domain}: the time is over before prompt {number}", flush=True)
                return
            trial = run_trial(target, draft, tokenizers, rows[number], draft_first=bool(number % 2))
            yield {**common, "number": number, "prompt": fingerprint(prompts[number])[:12], **line_of(trial)}


def prompts_of(build: Path, result: BuildReport, options: argparse.Namespace, device: str) -> list[str]:
    """Read the held-out text of a build and choose its prompts."""
    request = ExportRequest(
        source=assets.parent(str(build / "model")),
        format="draft",
        output_dir=build,
        domain=str(options.domain or build / "domain.yaml"),
        seed=result.seed,
        device=device,
    )
    return choose_prompts(read_corpus(request).heldout, options.prompts)


def load_pair(build: Path, reference: str, device: str) -> tuple[Any, Any, tuple[Any, Any]]:
    """Load parent and draft in fp32, as the export does, with their tokenizers."""
    parent = assets.parent(reference)
    paths = (parent.path, build / "model")
    target, draft = (assets.load_model(path, dtype=torch.float32, device=device) for path in paths)
    tokenizers = (assets.load_tokenizer(paths[0]), assets.load_tokenizer(paths[1]))
    return target, draft, tokenizers


def line_of(trial: Trial) -> dict[str, Any]:
    """Write a trial as the fields of its line."""
    return {
        "same": trial.same,
        "gap": trial.gap,
        "alone": trial.alone,
        "assisted": trial.assisted,
        "tokens": trial.tokens,
        "proposed": trial.counts.proposed,
        "accepted": trial.counts.accepted,
        "passes": trial.counts.passes,
    }


def trial_of(line: Mapping[str, Any]) -> Trial:
    """Read a trial from its line."""
    counts = Counts(proposed=line["proposed"], accepted=line["accepted"], passes=line["passes"])
    values = {name: line[name] for name in ("same", "gap", "alone", "assisted", "tokens")}
    return Trial(counts=counts, **values)


def key_of(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells one trial from all others."""
    return tuple(line[name] for name in ("build", "device", "prompts", "new_tokens", "number"))


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Draw the results as a Markdown table, a row for each build and device."""
    rows = ["| domain | device | prompts | tokens | texts that differ | largest gap | acceptance | tokens a pass |"]
    rows[0] += " parent, tokens/s | speed-up (95 %) | use |"
    rows.append("|" + "---|" * 11)
    latest = {key_of(line): line for line in lines}  # a trial that two processes made counts once
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for line in latest.values():
        key = (line["domain"], line["build"], line["device"], str(line["prompts"]))
        groups.setdefault(key, []).append(trial_of(line))
    for (domain, _, device, prompts), trials in groups.items():
        rows.append(f"| {' | '.join((domain, device, f'{len(trials)} of {prompts}', *figures(trials)))} |")
    return "\n".join(rows)


def figures(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Write the figures of one row."""
    counts, tokens = add([trial.counts for trial in trials]), sum(trial.tokens for trial in trials)
    gaps = [trial.gap for trial in trials if trial.gap is not None]
    faster = speed_up(trials)
    return (
        f"{tokens:,}",
        str(sum(not trial.same for trial in trials)),
        f"{max(gaps):.2g}" if gaps else "–",
        f"{counts.acceptance:.3f}",
        f"{tokens / counts.passes:.2f}",
        f"{tokens / sum(trial.alone for trial in trials):.1f}",
        f"{faster.value:.3f}× ({faster.low:.3f}–{faster.high:.3f})",
        "on" if faster.value >= WORTH_IT else "off",
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the results; a line that a killed process left unfinished is passed over."""
    lines = []
    for text in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Append one line to the results, after the end of a line that a killed process left unfinished."""
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as stream:
        stream.write(("\n" if torn else "") + json.dumps(line) + "\n")


def shard(text: str) -> tuple[int, int]:
    """Read `0/4` as a number and a count."""
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}: write it like 0/4, with the first number below the second")
    return int(number), int(count)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="*", type=Path, help="folders of builds")
    parser.add_argument("--json", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--prompts", type=int, default=1000, help="prompts of each build")
    parser.add_argument("--device", default="auto", help="cuda, cpu or auto")
    parser.add_argument("--domain", help="domain of the prompts [domain.yaml of each build]")
    parser.add_argument("--parent", help="the parent [the one that each report names]")
    parser.add_argument("--shard", type=shard, default=(0, 1), help="e.g. 0/4 for every fourth prompt")
    parser.add_argument("--limit-seconds", type=float, default=1e9, help="begin no prompt later than this")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Try the builds one after the other, and print the table of all results."""
    options = parse(arguments)
    until = time.monotonic() + options.limit_seconds
    for build in options.builds:
        finished = frozenset(map(key_of, read_lines(options.json)))
        for line in trial_lines(build, options, until=until, finished=finished):
            append(options.json, line)
    print(table(read_lines(options.json)))


if __name__ == "__main__":
    main()
