"""Unstructured and N:M tickets: found in rounds on a build's text, measured beside its controls, stored compressed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from minigpt import assets, integrity
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.files import atomic_path, fingerprint, open_to_readers, read_json, sweep, write_json
from minigpt.machine import device_name, release
from minigpt.pipeline.controls import compare_with_controls
from minigpt.pipeline.groundwork import Groundwork, lay_groundwork, read
from minigpt.pipeline.measure import measure
from minigpt.pipeline.numbering import numbered, weigh
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.outlook import Sizes, sizes_of
from minigpt.pipeline.rounds import for_report, lesson_of, point_of
from minigpt.pipeline.run import (
    Run,
    SavedModel,
    build_key,
    deciding_options,
    load_parent,
    resolve_run,
    save_model,
)
from minigpt.pipeline.stages import GROUND, TICKET_ROWS
from minigpt.pipeline.text import calibration
from minigpt.pipeline.ticket_recipe import ticket_files
from minigpt.pipeline.workspace import ROUNDS_WORK, State
from minigpt.progress import SILENT, Reporter
from minigpt.recipes import leave
from minigpt.results import StageReport, TicketRound
from minigpt.tickets.checks import check_groups, check_recipe
from minigpt.tickets.language import early_point, put, take
from minigpt.tickets.masks import Pattern, apply_masks, prunable
from minigpt.tickets.rounds import Schedule, Ticket, even_levels, run_rounds
from minigpt.tickets.store import FILE, StoredBytes, load_ticket, save_ticket
from minigpt.tickets.weight_rounds import by_inputs, inputs_are_known, settling, with_last

REPORT, TICKET, RECORDS = "lottery.json", "ticket", "rounds.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketReport:
    """Report of a ticket whose weights are pruned one by one.

    Attributes:
        domain: Name of the domain.
        base_model: Reference of the parent.
        pattern: Rule of where kept weights lie: `layer`, `global`, `lamp` or `N:M`.
        remaining: Share of the decoder layers' weights that is left.
        preset: Name of the preset.
        seed: Seed of rounds and text.
        device: Device that the rounds ran on.
        rounds: Record of each round.
        stages: Parent, tuned parent if there is one, and ticket (`healed`), whose bytes are those of its file.
        stored: Bytes of the stored ticket, positions of the weights included.
        key: Fingerprint of everything that the ticket depends on.
        score: Score by which the rounds removed weights; none in reports of versions that did not keep it.
    """

    domain: str
    base_model: str
    pattern: str
    remaining: float
    preset: str
    seed: int
    device: str
    rounds: tuple[TicketRound, ...]
    stages: tuple[StageReport, ...]
    stored: StoredBytes
    key: str
    score: str = ""


def levels_of(pattern: Pattern, remaining: float, rounds: int) -> tuple[float, ...]:
    """Return the levels of the rounds; an N:M pattern gives up one weight of every M in a round, until N are left.

    A single round of it gives up all.
    """
    if pattern.group is None:
        return even_levels(remaining, rounds)
    kept, size = pattern.group
    if rounds == 1:
        return (kept / size,)
    return tuple(left / size for left in range(size - 1, kept - 1, -1))


def find_ticket(options: BuildOptions, pattern: str, remaining: float, reporter: Reporter = SILENT) -> TicketReport:
    """Find a ticket in rounds, store it under `ticket/` of the output folder, and report it; finished steps are reused.

    Args:
        options: domain, parent, preset, folder and settings of a build; its target does not count.
        pattern: `layer`, `global`, `lamp` or `N:M`.
        remaining: share of the decoder layers' weights to keep; an N:M pattern says it by itself.
        reporter: told about progress.

    Raises:
        ConfigError: the share is not above 0 and below 1, or there is more than one domain.
        MiniGPTError: the folder holds something else.
        Busy: another process writes there.
    """
    rule = Pattern(pattern)
    share = remaining if rule.group is None else rule.group[0] / rule.group[1]
    if not 0 < share < 1 or len(options.domains) != 1:
        raise ConfigError(f"A ticket is of one domain and keeps a share above 0 and below 1, not {share:g}.")
    run = resolve_run(options.domains[0], options, reporter)
    # Filled in first, so that the recipe that is left has the same key.
    settings = run.settings
    check_recipe(settings.heal)
    rounds = len(levels_of(rule, share, settings.lottery.rounds))
    filled = settings.lottery.for_weights(settings.heal.steps, across=rule.across, rounds=rounds)
    run = replace(run, settings=replace(settings, lottery=filled))
    # Older versions took several rounds here, too.
    at_once = ("at once",) if rule.group is not None and filled.rounds == 1 else ()
    key = fingerprint(build_key(run), run.settings.lottery, pattern, share, *at_once)
    if run.workspace.state() is State.FOREIGN and not (run.workspace.root / REPORT).exists():
        raise _foreign(run)
    with run.workspace.locked():
        return _find_alone(run, rule, share, key)


def _find_alone(run: Run, rule: Pattern, share: float, key: str) -> TicketReport:
    """Find a ticket in a folder that no other process writes."""
    path, options = run.workspace.root / REPORT, run.options
    sweep(run.workspace.root / TICKET)
    if options.force:
        run.workspace.clear()
        path.unlink(missing_ok=True)
        shutil.rmtree(run.workspace.root / TICKET, ignore_errors=True)
    if (finished := _finished(run, key)) is not None:
        leave(run.workspace.root, ticket_files(run, rule.name, share), run.reporter)
        return finished
    if path.exists() or run.workspace.report.exists() or run.workspace.state() is State.FOREIGN:
        raise _foreign(run)
    write_json(run.workspace.marker, {**deciding_options(options), "pattern": rule.name, "remaining": share})
    leave(run.workspace.root, ticket_files(run, rule.name, share), run.reporter)
    rows = (*GROUND, *TICKET_ROWS)
    run = numbered(run, rows)
    parent = load_parent(run)
    outline = assets.load_outline(parent.path)
    check_groups(outline, rule)
    score = usable_score(outline, run.settings.lottery.score or "magnitude", run.reporter)
    run = replace(run, settings=replace(run.settings, lottery=replace(run.settings.lottery, score=score)))
    corpora, suite = read(run)
    rounds = len(levels_of(rule, share, run.settings.lottery.rounds))
    weigh(run, rows, with_rounds(sizes_of(run, parent, suite), rounds))
    ground = lay_groundwork(run, corpora, suite, parent)
    report = _made(run, ground, rule, share, key)
    integrity.write_signed(path, report)
    run.workspace.slim()
    return report


def with_rounds(sizes: Sizes, rounds: int) -> Sizes:
    """Return the sizes of a ticket, whose matrices keep their shapes.

    Args:
        sizes: of a build with the same settings, those of rounds filled in.
        rounds: number of its rounds of pruning, which the pattern may decide.
    """
    settings = replace(sizes.settings, lottery=replace(sizes.settings.lottery, rounds=rounds))
    return replace(sizes, settings=settings, student=sizes.parent)


def usable_score(model: Any, score: str, reporter: Reporter = SILENT) -> str:
    """Return the score that rounds can go by: the wanted one, or magnitude where Wanda cannot read the matrices.

    Args:
        model: the parent; an outline without weights is enough.
        score: the wanted score.
        reporter: told why it is another one.

    Raises:
        ConfigError: SparseGPT, which is never taken unasked, cannot read the matrices of this family.
    """
    if score == "magnitude" or inputs_are_known(model, prunable(model)):
        return score
    reason = f"{score} cannot read the matrices of this family as they are stored"
    if score == "sparsegpt":
        raise ConfigError(f"lottery.score={reason}. Choose lottery.score=magnitude.")
    reporter.note(f"Rounds go by magnitude: {reason}.")
    return "magnitude"


def _foreign(run: Run) -> MiniGPTError:
    """Make the error for a folder that holds something else."""
    return MiniGPTError(f"{run.workspace.root} holds something else. Choose another --output-dir, or use --force.")


def _finished(run: Run, key: str) -> TicketReport | None:
    """Return the report of the same ticket, if it is done; a damaged ticket is moved aside with its report.

    Tickets of before they were sealed are taken as they are.
    """
    path, ticket = run.workspace.root / REPORT, run.workspace.root / TICKET
    if not path.exists():
        return None
    try:
        report = integrity.read_signed(path, TicketReport)
    except MiniGPTError as error:
        run.reporter.note(integrity.aside_note(path, str(error).rstrip("."), integrity.set_aside(path)))
        return None
    if report.key != key:
        return None
    reason = integrity.damage(ticket) if not ticket.is_dir() or (ticket / integrity.SUMS).exists() else None
    if reason is None:
        return report
    if ticket.exists():
        run.reporter.note(integrity.aside_note(ticket, reason, integrity.set_aside(ticket)))
    integrity.set_aside(path)
    return None


def _made(run: Run, ground: Groundwork, pattern: Pattern, share: float, key: str) -> TicketReport:
    """Run the rounds, store the ticket, measure it, and make the report."""
    work = run.workspace.work / ROUNDS_WORK / key

    def make(folder: Path) -> None:
        ticket, model = _rounds(run, ground, pattern, share, work)
        apply_masks(put(model, ticket.weights), ticket.masks)
        tokenizer = assets.load_tokenizer(ground.parent.path)
        save_model(model, tokenizer, folder / "model", run.options.dtype)
        shutil.copytree(folder / "model", folder / TICKET, ignore=shutil.ignore_patterns("*.safetensors"))
        write_json(folder / "stored.json", save_ticket(model.cpu(), folder / TICKET / FILE))
        write_json(folder / RECORDS, [for_report(record) for record in ticket.records])
        del model
        release()

    folder, done = run.workspace.stage("healed", key, make)
    stored = read_json(folder / "stored.json", StoredBytes)
    measured = measure(run, ground.suite, "healed", SavedModel(path=folder / "model", key=key))
    stage = compare_with_controls(ground.controls, measured, same_vocabulary=True, seconds=done.seconds)
    with atomic_path(run.workspace.root / TICKET) as temporary:
        shutil.copytree(folder / TICKET, temporary)
        integrity.seal(temporary, key=key)
    return TicketReport(
        domain=run.domain.name,
        base_model=run.options.base,
        pattern=pattern.name,
        remaining=share,
        preset=run.options.preset,
        seed=run.options.seed,
        device=device_name(run.device),
        rounds=read_json(folder / RECORDS, tuple[TicketRound, ...]),
        stages=(*ground.controls.stages, replace(stage, bytes=stored.file)),
        stored=stored,
        key=key,
        score=str(run.settings.lottery.score),
    )


def _rounds(run: Run, ground: Groundwork, pattern: Pattern, share: float, work: Path) -> tuple[Ticket, Any]:
    """Run the rounds that are not finished; return the ticket and a model of the parent's shape."""
    heal, parent, tokenizer = run.settings.heal, ground.parent, assets.load_tokenizer(ground.parent.path)
    settings: Any = run.settings.lottery
    lesson = lesson_of(run, parent, ground.controls.source, ground.text, replace(heal, steps=settings.steps), tokenizer)
    start = early_point(lesson, take(lesson.model), settings.rewind, work / "early.safetensors")
    levels = levels_of(pattern, share, settings.rounds)
    batches = cache(lambda: calibration(ground.planning, tokenizer, run.settings.plan.tokens))
    score, prune = settings.score, None
    if score != "magnitude":
        prune = by_inputs(lesson.model, batches, pattern, score, reporter=run.reporter)
    watch = settling(levels, pattern, settings.early) if settings.early is not None else None
    ticket = run_rounds(
        work,
        start,
        prunable(lesson.model),
        with_last(lesson, len(levels), settings.last, watch=watch),
        Schedule(levels=levels, pattern=pattern.name, rewinding=settings.rewinding),
        key=fingerprint(lesson.key, parent.fingerprint, ground.planning.key, settings, *point_of(settings)),
        prune=prune,
        steps=[*(settings.steps for _ in levels), settings.last],
        reporter=run.reporter,
    )
    return ticket, lesson.model


def restore_ticket(folder: Path, output: Path) -> None:
    """Write a stored ticket as a plain model folder, with zeros where weights were removed.

    Args:
        folder: the folder `ticket` that :func:`find_ticket` left, or the folder around it.
        output: folder to write.

    Raises:
        MiniGPTError: there is no ticket, it is damaged, or the output exists.
    """
    home = folder if (folder / FILE).exists() else folder / TICKET
    if output.exists():
        raise MiniGPTError(f"{output} exists already; choose another --output-dir.")
    integrity.check_model(home)
    model = load_ticket(home)
    with atomic_path(output) as temporary:
        model.save_pretrained(temporary)
        # The ticket's own files are those that were saved with the model, for older readers, too.
        others = shutil.ignore_patterns(FILE, integrity.SUMS)
        shutil.copytree(home, temporary, ignore=others, dirs_exist_ok=True)
        open_to_readers(temporary)
