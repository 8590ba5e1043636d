"""Merging of finished delta tickets into one; dev text of all their domains decides how."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt import assets
from minigpt.corpus import build_corpus
from minigpt.corpus.selection import take_bytes
from minigpt.domain.config import load_domain
from minigpt.errors import AssetError, ConfigError
from minigpt.files import fingerprint, path_of, read_json, write_json
from minigpt.healing import TokenText, bits_per_byte
from minigpt.healing.tokenized import token_text
from minigpt.machine import measuring_dtype, pick_device
from minigpt.models import catalog
from minigpt.models.merge_recipe import MergeRecipe, recipe_text
from minigpt.progress import SILENT, Reporter
from minigpt.progress.rates import Work
from minigpt.progress.stages import Stage, counted, passing
from minigpt.recipes import RECIPE, leave
from minigpt.results import BuildReport, Training
from minigpt.tickets.delta import Changes, check_digests, digests, in_dtype, parameters_of
from minigpt.tickets.delta_healing import (
    Lesson,
    become,
    changed_by_any,
    equal_shares,
    heal_merged,
    healing_recipe,
    store_lessons,
)
from minigpt.tickets.delta_merge import RULES, Rule, merged, overlap
from minigpt.tickets.delta_places import FOLDER, ticket_folder
from minigpt.tickets.delta_store import DTYPES, DeltaRecord, make_ticket, read, write
from minigpt.transformer.ends import configs_in, document_end

# Record of a merge, which is written last.
MERGE = "merge.json"
# Factors on the merged differences that are tried.
SCALES = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
# Longest piece of dev text, in tokens.
WINDOW = 512
STAGES = (
    Stage(name="parent", title="Loading the parent"),
    Stage(name="text", title="Reading the text"),
    Stage(name="own", title="Measuring each ticket"),
    Stage(name="rules", title="Trying ways to merge"),
    Stage(name="write", title="Writing the merged ticket"),
)
# Stages before the last one where the merged ticket is healed.
HEALING = (
    Stage(name="answers", title="Storing the answers of each ticket"),
    Stage(name="heal", title="Healing the merged ticket"),
)
# Folder of answers and checkpoint, which is deleted behind the last file.
WORK = "merging"


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
        healing: record of the healing; None without it, or where its model was the worse one.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the tickets to merge: its folder, its domain file, and the seed of its splits."""

    folder: Path
    domain: Path
    seed: int


def merge_tickets(recipe: MergeRecipe, output_dir: Path, *, reporter: Reporter = SILENT) -> MergeRecord:
    """Merge delta tickets of one parent, and write the merged ticket into `output_dir/delta`.

    Every rule and factor is tried. The one is taken whose largest loss on any domain's dev text, relative to the
    domain's own ticket, is the smallest. With `heal` the weights that it changes are trained then, each ticket teaching
    its own domain's text, and the result is kept if the largest loss is lower. Held-out text is not read.

    Args:
        recipe: the tickets, build folders or catalog ids, two or more, and how to merge them.
        output_dir: folder to write. A merge that was killed goes on there.
        reporter: told about progress.

    Raises:
        AssetError: one of them is no delta ticket, is damaged, or belongs to another parent.
        ConfigError: fewer than two are given, or the folder is in use.
    """
    check_request(recipe.tickets, output_dir)
    parts = [part_of(ref) for ref in recipe.tickets]
    tickets = [read(part.folder) for part in parts]
    changes, first = [ticket.changes for ticket in tickets], tickets[0].record
    check_same_parent(parts, [ticket.record for ticket in tickets])
    reporter = counted(reporter, (*STAGES[:-1], *(HEALING if recipe.heal else ()), STAGES[-1]))
    reporter.weigh(works_of(len(parts), len(RULES) * len(SCALES)))
    with passing(reporter, "parent", "Loading the parent"):
        folder = assets.parent(first.base, reporter=reporter).path
        parent = parameters_of(assets.load_model(folder, dtype=DTYPES[first.dtype]))
        check_digests(parent, first.parent, f"{{name}} of {first.base} is not what the tickets were made from.")
    with passing(reporter, "text", "Reading the text"):
        reader = DomainReader(folder, parts, pick_device(recipe.device), recipe.dev_bytes, reporter)
    specialists = [merged(parent, [change], "sum") for change in changes]
    with passing(reporter, "own", "Measuring each ticket"):
        places = reporter.track(range(len(parts)), title="Tickets", total=len(parts))
        own = [reader.loss(specialists[place], place) for place in places]
    ratios = tried(reader, parent, changes, own, reporter)
    best = min(ratios, key=lambda way: max(ratios[way]))
    weights, dev, healing = merged(parent, changes, *best), ratios[best], None
    if recipe.heal:
        healed, training = healed_merge(
            reader, weights, changed_by_any(changes, parent), specialists, recipe, output_dir / WORK, reporter
        )
        if max(after := reader.ratios(healed, own)) < max(dev):
            weights, dev, healing = healed, after, training
    domains = tuple(dict.fromkeys(name for ticket in tickets for name in ticket.record.domains))
    with passing(reporter, "write", "Writing the merged ticket"):
        record = write(make_ticket(parent, weights, base=first.base, domains=domains), output_dir / FOLDER)
    both, chance = overlap(changes[0], changes[1], parent) if len(changes) == 2 else (None, None)
    result = MergeRecord(
        parts=tuple(str(part.folder) for part in parts),
        domains=domains,
        rule=best[0],
        scale=best[1],
        dev=dev,
        tried={f"{rule} x {scale:g}": max(values) for (rule, scale), values in ratios.items()},
        overlap=both,
        chance=chance,
        changed=record.fraction,
        bytes=sum(path.stat().st_size for path in (output_dir / FOLDER).iterdir()),
        unhealed=ratios[best] if recipe.heal else (),
        healing=healing,
    )
    write_json(output_dir / MERGE, result)
    leave(output_dir, {RECIPE: recipe_text(recipe, [part.domain.parent for part in parts])}, reporter)
    shutil.rmtree(output_dir / WORK, ignore_errors=True)
    return result


def tried(
    reader: DomainReader,
    parent: Mapping[str, Tensor],
    changes: Sequence[Changes],
    own: Sequence[float],
    reporter: Reporter,
) -> dict[tuple[Rule, float], tuple[float, ...]]:
    """Merge by every rule and factor, and return the bits per byte on each domain's dev text, relative to its ticket.

    Args:
        reader: dev texts of the domains.
        parent: the parent's tensors by name.
        changes: the tickets.
        own: bits per byte of each ticket on its own dev text.
        reporter: told about progress.
    """
    ways = [(rule, scale) for rule in RULES for scale in SCALES]
    with passing(reporter, "rules", f"Trying {len(ways)} ways to merge"):
        return {
            (rule, scale): reader.ratios(merged(parent, changes, rule, scale), own)
            for rule, scale in reporter.track(ways, title="Merging", total=len(ways))
        }


def healed_merge(
    reader: DomainReader,
    weights: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    specialists: Sequence[Mapping[str, Tensor]],
    recipe: MergeRecipe,
    folder: Path,
    reporter: Reporter,
) -> tuple[dict[str, Tensor], Training]:
    """Train the changed weights of a merged model, and return its tensors in the stored type, with the record.

    Args:
        reader: texts of the domains, and the model that answers them.
        weights: tensors of the merged model, in the type that is stored.
        mask: weights that may change.
        specialists: tensors of the specialist of each domain.
        recipe: number of steps and learning rate.
        folder: folder of the answers and of the checkpoint.
        reporter: told about progress.
    """
    texts = equal_shares(reader.training_texts())
    lessons = [
        Lesson(text=text, dev=dev, weights=own) for text, dev, own in zip(texts, reader.texts, specialists, strict=True)
    ]
    planned = healing_recipe(recipe.heal, recipe.learning_rate)
    key = fingerprint(*(digests(own) for own in specialists))
    with passing(reporter, "answers", "Storing the answers of each ticket"):
        teacher = store_lessons(lessons, reader.model, planned, folder / "answers", key=key, reporter=reporter)
    with passing(reporter, "heal", "Healing the merged ticket"):
        model = assets.load_model(reader.folder, dtype=torch.float32, device=reader.model.device)
        become(model, weights)
        saved = folder / "checkpoint.safetensors"
        training = heal_merged(model, mask, lessons, planned, teacher, checkpoint=saved, reporter=reporter)
        dtype = next(iter(weights.values())).dtype
        healed = {name: tensor.to("cpu") for name, tensor in in_dtype(parameters_of(model), dtype).items()}
    return healed, training


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


class DomainReader:
    """Reader of the text of several domains with models of one parent.

    Args:
        folder: folder of the parent.
        parts: the tickets, whose domains' dev text is read.
        device: torch device.
        dev_bytes: most bytes of each text.
        reporter: told about progress.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], device: str, dev_bytes: int, reporter: Reporter) -> None:
        self.folder, self.tokenizer = folder, assets.load_tokenizer(folder)
        self.model: Any = assets.load_model(folder, dtype=measuring_dtype(device), device=device)
        self.corpora = [
            build_corpus(load_domain(str(part.domain)), seed=part.seed, reporter=reporter) for part in parts
        ]
        self.texts = [token_text(self.tokenizer, take_bytes(corpus.dev, dev_bytes), WINDOW) for corpus in self.corpora]

    def loss(self, weights: Mapping[str, Tensor], place: int) -> float:
        """Return the bits per byte of a model of these weights on the dev text of one of the tickets."""
        become(self.model, weights)
        return bits_per_byte(self.model, self.texts[place])

    def ratios(self, weights: Mapping[str, Tensor], own: Sequence[float]) -> tuple[float, ...]:
        """Return the bits per byte of a model on the dev text of each ticket, relative to the ticket's own.

        Args:
            weights: tensors of the model.
            own: bits per byte of each ticket on its own dev text.
        """
        become(self.model, weights)
        return tuple(bits_per_byte(self.model, text) / loss for text, loss in zip(self.texts, own, strict=True))

    def training_texts(self) -> list[TokenText]:
        """Tokenize the training text of each domain."""
        end = document_end(self.tokenizer, *configs_in(self.folder))
        return [token_text(self.tokenizer, corpus.train, WINDOW, end=end) for corpus in self.corpora]


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
