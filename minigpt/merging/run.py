"""Merging of finished delta tickets into one; dev text of all their domains decides how."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt import assets, locks
from minigpt.errors import ConfigError
from minigpt.files import write_json
from minigpt.machine import pick_device
from minigpt.merging import healing, ways
from minigpt.merging.parts import Part, check_same_parent, part_of, read_parts, with_equal_dev
from minigpt.merging.reader import DevReader
from minigpt.merging.recipe import MergeRecipe, recipe_text
from minigpt.progress import SILENT, Reporter
from minigpt.progress.stages import Stage, counted, passing
from minigpt.recipes import RECIPE, leave
from minigpt.results import Training
from minigpt.tickets.delta import check_digests, parameters_of
from minigpt.tickets.delta_merge import merged, overlap
from minigpt.tickets.delta_places import FOLDER
from minigpt.tickets.delta_store import DTYPES, Ticket, make_ticket, parent_of, read, write

# Record of a merge, which is written last.
MERGE = "merge.json"
STAGES = (
    Stage(name="parent", title="Loading the parent"),
    Stage(name="text", title="Reading the text"),
    Stage(name="own", title="Measuring each ticket"),
    Stage(name="rules", title="Trying ways to merge"),
    Stage(name="write", title="Writing the merged ticket"),
)
# Folder of what a merge has done so far, from which it goes on if it is killed; it is deleted behind the last file.
WORK, LOCK = ".merging", "lock"
# What models, builds and searches for tickets have in their folders: a merge does not write there.
OTHERS = frozenset(
    {"config.json", "export.json", "conditional.json", "report.json", "model", "work", "lottery.json", "ticket"}
)


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
        unhealed: `dev` before healing; empty without it.
        healing: record of the training; None without healing.
        is_healed: whether the healed model is the one that is kept.
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
    unhealed: tuple[float, ...] = ()
    healing: Training | None = None
    is_healed: bool = False


def merge_tickets(recipe: MergeRecipe, output_dir: Path, *, reporter: Reporter = SILENT) -> MergeRecord:
    """Merge delta tickets of one parent, and write the merged ticket into `output_dir/delta`.

    Every rule and factor is tried. The one is taken whose largest loss on any domain's dev text, relative to the
    domain's own ticket, is the smallest. With `heal` the weights that it changes are trained then, each ticket teaching
    its own domain's text, and the result is kept if this largest loss is lower. The text is read as the builds of the
    tickets read it, and text that any of them measures is neither trained on nor chooses.

    Args:
        recipe: the tickets, build folders or catalog ids, two or more, and how to merge them.
        output_dir: folder to write. A merge that was killed goes on there.
        reporter: told about progress.

    Raises:
        AssetError: one of them is no delta ticket, is damaged, or belongs to another parent.
        ConfigError: fewer than two are given, or the folder holds something else.
        Busy: another process merges into the folder.
        CorpusError: the text of a build is gone, or nothing of it may be used.
    """
    check_request(recipe.tickets, output_dir)
    parts = [part_of(ref) for ref in recipe.tickets]
    tickets = [read(part.ticket) for part in parts]
    check_same_parent(parts, [ticket.record for ticket in tickets])
    # The folder of work also says to the next run that an unfinished ticket is a merge's.
    with locks.hold(output_dir / WORK / LOCK, str(output_dir)):
        return _merge(recipe, parts, tickets, output_dir, reporter)


def _merge(
    recipe: MergeRecipe, parts: Sequence[Part], tickets: Sequence[Ticket], output_dir: Path, reporter: Reporter
) -> MergeRecord:
    """Merge tickets that fit each other, in a folder that no other process writes."""
    changes, first, work = [ticket.changes for ticket in tickets], tickets[0].record, output_dir / WORK
    numbered = counted(reporter, (*STAGES[:-1], *(healing.STAGES if recipe.heal else ()), STAGES[-1]))
    with passing(numbered, "parent", "Loading the parent"):
        folder = parent_of(parts[0].ticket, first, numbered)
        whole: Any = assets.load_model(folder, dtype=DTYPES[first.dtype])
        parent = parameters_of(whole.to(DTYPES[first.dtype]))
        check_digests(parent, first.parent, f"{{name}} of {first.base} is not what the tickets were made from.")
    with passing(numbered, "text", "Reading the text"):
        texts = with_equal_dev(read_parts(parts, numbered), recipe.dev_bytes)
        reader = DevReader(folder, texts, pick_device(recipe.device))
    numbered.weigh({**ways.works_of([text.tokens for text in reader.dev]), **healing.works_of(recipe)})
    tried = ways.try_ways(reader, parent, tickets, work, numbered)
    best = tried.best
    weights, dev, training, is_healed = merged(parent, changes, best.rule, best.scale), best.ratios, None, False
    if recipe.heal:
        healed, training = healing.heal(reader, parent, tickets, weights, recipe, work, numbered)
        after = reader.ratios(healed, tried.own)
        if is_healed := max(after) < best.worst:
            weights, dev = healed, after
    domains = tuple(dict.fromkeys(name for ticket in tickets for name in ticket.record.domains))
    with passing(numbered, "write", "Writing the merged ticket"):
        record = write(make_ticket(parent, weights, base=first.base, domains=domains), output_dir / FOLDER)
    both, chance = overlap(changes[0], changes[1], parent) if len(changes) == 2 else (None, None)
    result = MergeRecord(
        parts=tuple(str(part.ticket) for part in parts),
        domains=domains,
        rule=best.rule,
        scale=best.scale,
        dev=dev,
        tried={f"{way.rule} x {way.scale:g}": way.worst for way in tried.ways},
        overlap=both,
        chance=chance,
        changed=record.fraction,
        bytes=sum(path.stat().st_size for path in (output_dir / FOLDER).iterdir()),
        unhealed=best.ratios if recipe.heal else (),
        healing=training,
        is_healed=is_healed,
    )
    leave(output_dir, {RECIPE: recipe_text(recipe, [part.build for part in parts])}, numbered)
    write_json(output_dir / MERGE, result)
    shutil.rmtree(work, ignore_errors=True)
    return result


def check_request(refs: Sequence[str], output_dir: Path) -> None:
    """Check that there is something to merge and a place for it.

    Raises:
        ConfigError: fewer than two tickets are given, or the folder is in use.
    """
    if len(refs) < 2:
        raise ConfigError("Give two or more delta tickets to merge.")
    names = {path.name for path in output_dir.iterdir()} if output_dir.is_dir() else set()
    if {MERGE, FOLDER} <= names:
        shutil.rmtree(output_dir / WORK, ignore_errors=True)  # a merge that was killed behind its last file
        raise ConfigError(f"{output_dir / FOLDER} exists already. Choose another --output-dir.")
    # A ticket without its record is what a killed merge has left; it is written again.
    if foreign := names & (OTHERS if WORK in names else OTHERS | {FOLDER}):
        raise ConfigError(f"{output_dir} holds {min(foreign)} of another command. Choose another --output-dir.")
