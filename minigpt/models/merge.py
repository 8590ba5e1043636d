"""Merging of finished delta tickets into one; dev text of all their domains decides how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt import assets
from minigpt.corpus import build_corpus
from minigpt.corpus.selection import take_bytes
from minigpt.domain.config import load_domain
from minigpt.errors import AssetError, ConfigError
from minigpt.files import path_of, read_json, write_json
from minigpt.healing import TokenText, bits_per_byte
from minigpt.healing.tokenized import token_text
from minigpt.machine import measuring_dtype, pick_device
from minigpt.models import catalog
from minigpt.progress import SILENT, Reporter
from minigpt.progress.rates import Work
from minigpt.progress.stages import Stage, counted, passing
from minigpt.recipes import RECIPE, beside, leave, read_strictly, with_comments
from minigpt.results import BuildReport
from minigpt.tickets.delta import check_digests, parameters_of
from minigpt.tickets.delta_merge import RULES, Rule, merged, overlap
from minigpt.tickets.delta_places import FOLDER, ticket_folder
from minigpt.tickets.delta_store import DTYPES, DeltaRecord, make_ticket, read, write

# Record of a merge, which is written last.
MERGE = "merge.json"
# Factors on the merged differences that are tried.
SCALES = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
# Bytes of dev text of each domain that decide.
DEV_BYTES = 65_536
# Longest piece of dev text, in tokens.
WINDOW = 512
STAGES = (
    Stage(name="parent", title="Loading the parent"),
    Stage(name="text", title="Reading the dev text"),
    Stage(name="own", title="Measuring each ticket"),
    Stage(name="rules", title="Trying ways to merge"),
    Stage(name="write", title="Writing the merged ticket"),
)
# Comment at the top of a recipe file.
HEAD = """\
# The recipe of a merge of delta tickets. This repeats it:
#   minigpt merge recipe.yaml --output-dir DIR
# Keys that are left out take their defaults. Paths are relative to this file.
"""
# Comment above each key of a recipe file.
COMMENTS = {
    "tickets": "Builds of delta tickets, as folders or catalog ids.",
    "device": "Torch device; auto takes an accelerator if there is one.",
    "dev_bytes": "Most bytes of dev text of each domain that decide.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRecord:
    """Record of a merge, `merge.json` beside the ticket.

    Attributes:
        parts: folders of the tickets that were merged.
        domains: their domains.
        rule: the rule that was best.
        scale: the factor on the merged differences that was best.
        dev: bits per byte of the merged model on the dev text of each part, relative to the part itself.
        tried: largest of these ratios by rule and scale.
        overlap: weights that both of two tickets change, as a share of those that either changes; None for more.
        chance: value of `overlap` where positions are drawn by chance.
        changed: share of the weights that the merged ticket changes.
        bytes: bytes of the merged ticket.
    """

    parts: tuple[str, ...]
    domains: tuple[str, ...]
    rule: str
    scale: float
    dev: tuple[float, ...]
    tried: Mapping[str, float]
    overlap: float | None
    chance: float | None
    changed: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRecipe:
    """Keys of a recipe file of a merge, with their defaults; `COMMENTS` explains them."""

    tickets: tuple[str, ...]
    device: str = "auto"
    dev_bytes: int = DEV_BYTES

    def __post_init__(self) -> None:
        if self.dev_bytes < 1:
            raise ConfigError(f"dev_bytes must be 1 or more, not {self.dev_bytes}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the tickets to merge: its folder, its domain file, and the seed of its splits."""

    folder: Path
    domain: Path
    seed: int


def merge_tickets(
    refs: Sequence[str],
    output_dir: Path,
    *,
    device: str = "auto",
    dev_bytes: int = DEV_BYTES,
    reporter: Reporter = SILENT,
) -> MergeRecord:
    """Merge delta tickets of one parent, and write the merged ticket into `output_dir/delta`.

    Every rule and factor is tried. The one is taken whose largest loss on any domain's dev text, relative to the
    domain's own ticket, is the smallest. Held-out text is not read.

    Args:
        refs: build folders or catalog ids of delta tickets, two or more.
        output_dir: folder to write.
        device: torch device, or "auto".
        dev_bytes: most bytes of dev text of each domain.
        reporter: told about progress.

    Raises:
        AssetError: one of them is no delta ticket, is damaged, or belongs to another parent.
        ConfigError: fewer than two are given, or the folder is in use.
    """
    check_request(refs, output_dir)
    parts = [part_of(ref) for ref in refs]
    tickets = [read(part.folder) for part in parts]
    changes, first = [ticket.changes for ticket in tickets], tickets[0].record
    check_same_parent(parts, [ticket.record for ticket in tickets])
    candidates = [(rule, scale) for rule in RULES for scale in SCALES]
    reporter = counted(reporter, STAGES)
    reporter.weigh(works_of(len(parts), len(candidates)))
    with passing(reporter, "parent", "Loading the parent"):
        folder = assets.parent(first.base, reporter=reporter).path
        parent = parameters_of(assets.load_model(folder, dtype=DTYPES[first.dtype]))
        check_digests(parent, first.parent, f"{{name}} of {first.base} is not what the tickets were made from.")
    with passing(reporter, "text", "Reading the dev text"):
        reader = DevReader(folder, parts, pick_device(device), dev_bytes, reporter)
    with passing(reporter, "own", "Measuring each ticket"):
        places = reporter.track(range(len(parts)), title="Tickets", total=len(parts))
        own = [reader.loss(merged(parent, [changes[place]], "sum"), place) for place in places]
    ratios: dict[tuple[Rule, float], list[float]] = {}
    with passing(reporter, "rules", f"Trying {len(candidates)} ways to merge"):
        for rule, scale in reporter.track(candidates, title="Merging", total=len(candidates)):
            weights = merged(parent, changes, rule, scale)
            ratios[rule, scale] = [reader.loss(weights, place) / loss for place, loss in enumerate(own)]
    best = min(candidates, key=lambda candidate: max(ratios[candidate]))
    domains = tuple(dict.fromkeys(name for ticket in tickets for name in ticket.record.domains))
    with passing(reporter, "write", "Writing the merged ticket"):
        ticket = make_ticket(parent, merged(parent, changes, *best), base=first.base, domains=domains)
        record = write(ticket, output_dir / FOLDER)
    both, chance = overlap(changes[0], changes[1], parent) if len(changes) == 2 else (None, None)
    result = MergeRecord(
        parts=tuple(str(part.folder) for part in parts),
        domains=domains,
        rule=best[0],
        scale=best[1],
        dev=tuple(ratios[best]),
        tried={f"{rule} x {scale:g}": max(values) for (rule, scale), values in ratios.items()},
        overlap=both,
        chance=chance,
        changed=record.fraction,
        bytes=sum(path.stat().st_size for path in (output_dir / FOLDER).iterdir()),
    )
    write_json(output_dir / MERGE, result)
    leave(output_dir, {RECIPE: recipe_text(parts, device, dev_bytes)}, reporter)
    return result


def check_request(refs: Sequence[str], output_dir: Path) -> None:
    """Check that there is something to merge and a place for it.

    Raises:
        ConfigError: fewer than two tickets are given, or the folder is in use.
    """
    if len(refs) < 2:
        raise ConfigError("Give two or more delta tickets to merge.")
    # A ticket without its record is what a killed merge has left; it is written again.
    if (output_dir / FOLDER).exists() and any((output_dir / name).exists() for name in (MERGE, "report.json", "work")):
        raise ConfigError(f"{output_dir / FOLDER} exists already. Choose another --output-dir.")


def works_of(tickets: int, ways: int) -> dict[str, Work]:
    """Return the work of a merge, in texts that are read: each ticket reads its own, and each way all of them.

    Args:
        tickets: number of tickets.
        ways: number of rules and factors that are tried.
    """
    own = Work(kind="evaluate", operations=float(tickets))
    tried = Work(kind="evaluate", operations=float(ways * tickets), loop="Merging", per_item=float(tickets))
    return {"own": own, "rules": tried}


def recipe_text(parts: Sequence[Part], device: str, dev_bytes: int) -> str:
    """Write the recipe that repeats a merge; its tickets are named by the folders of their builds."""
    builds = [str(part.domain.parent.resolve()) for part in parts]
    return with_comments(HEAD, {"tickets": builds, "device": device, "dev_bytes": dev_bytes}, COMMENTS)


def read_merge_recipe(path: Path) -> MergeRecipe:
    """Read the recipe file of a merge strictly; tickets beside it are found there.

    Raises:
        ConfigError: there is no such file, or a key or a value is wrong.
        MiniGPTError: it lies where a merge left it, and is not what the merge wrote.
    """
    recipe = read_strictly(path, MergeRecipe, "`tickets: [runs/medical, runs/law]`; every merge writes one")
    return replace(recipe, tickets=tuple(beside(path, name) for name in recipe.tickets))


class DevReader:
    """Reader of the dev text of several domains with models of one parent.

    Args:
        folder: folder of the parent.
        parts: the tickets, whose domains' dev text is read.
        device: torch device.
        dev_bytes: most bytes of each text.
        reporter: told about progress.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], device: str, dev_bytes: int, reporter: Reporter) -> None:
        tokenizer = assets.load_tokenizer(folder)
        self.model: Any = assets.load_model(folder, dtype=measuring_dtype(device), device=device)
        self.texts: list[TokenText] = []
        for part in parts:
            corpus = build_corpus(load_domain(str(part.domain)), seed=part.seed, reporter=reporter)
            self.texts.append(token_text(tokenizer, take_bytes(corpus.dev, dev_bytes), WINDOW))

    @torch.no_grad()
    def loss(self, weights: Mapping[str, Tensor], place: int) -> float:
        """Return the bits per byte of a model of these weights on the dev text of one of the tickets."""
        for name, tensor in parameters_of(self.model).items():
            tensor.copy_(weights[name])
        return bits_per_byte(self.model, self.texts[place])


def check_same_parent(parts: Sequence[Part], records: Sequence[DeltaRecord]) -> None:
    """Refuse tickets of different parents.

    Raises:
        AssetError: they are.
    """
    for part, record in zip(parts, records, strict=True):
        if (record.parent, record.dtype) != (records[0].parent, records[0].dtype):
            raise AssetError(f"{part.folder} has another parent than {parts[0].folder}; merge tickets of one parent.")


def part_of(ref: str) -> Part:
    """Find a ticket, its domain file and the seed of its splits.

    Raises:
        AssetError: it is no build of a delta ticket.
    """
    path = path_of(ref)
    path = path if path.exists() else catalog.resolve(ref)
    folder = ticket_folder(path)
    root = folder.parent if folder is not None else path
    if folder is None or not (root / "domain.yaml").is_file() or not (root / "report.json").is_file():
        raise AssetError(f"{ref} is no build of a delta ticket. Make one: minigpt build --domain D --delta 0.05.")
    return Part(folder=folder, domain=root / "domain.yaml", seed=read_json(root / "report.json", BuildReport).seed)
