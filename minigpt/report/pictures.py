"""Pictures of a report: bars of what was removed, and one line for each training run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minigpt.report.bars import REMOVED, bar, chunks, columns, ruler, sparkline
from minigpt.report.figures import kept_units
from minigpt.report.text import clean, count, duration, percent, stage_title
from minigpt.results import BuildReport, Training

LABEL = 12
BAR = 30
# Kinds of pruning in plain words. Neurons are removed in one cut, so they are one row, whatever ranked them.
KINDS = {
    "linear": "neurons, KV groups",
    "activation": "neurons, KV groups",
    "embedding": "vocabulary",
    "layers": "whole layers",
    "experts": "experts",
}


def removed_picture(report: BuildReport, width: int) -> RenderableType | None:
    """Draw the parameters removed as bars, then one small column for each layer of the parent.

    Args:
        report: Report of the build.
        width: Width of the terminal in characters.

    Returns:
        The picture, or None where nothing was removed.
    """
    parts: list[RenderableType] = []
    if any(report.removed_parameters.values()):
        parts.append(_kinds(report, min(BAR, max(3, width - 52))))
        parts.append(Text(f"by --kinds: {clean(by_kind(report.removed_parameters))}", style="dim"))
    if layers := _layers(report):
        parts.extend([Text(), layers] if parts else [layers])
    return Group(*parts) if parts else None


def kinds_of(removed_parameters: Mapping[str, int]) -> dict[str, int]:
    """Sum removed parameters by what was removed, in plain words.

    Args:
        removed_parameters: Parameters by kind of pruning, as in `BuildReport.removed_parameters`.
    """
    kinds: Counter[str] = Counter()
    for kind, removed in removed_parameters.items():
        kinds[KINDS.get(kind, kind)] += removed
    return dict(kinds)


def by_kind(removed_parameters: Mapping[str, int]) -> str:
    """Write removed parameters by the names that `--kinds` takes, e.g. `linear 6.2 M, embedding 14.2 M`.

    Args:
        removed_parameters: Parameters by kind of pruning, as in `BuildReport.removed_parameters`.
    """
    return ", ".join(f"{kind} {count(removed)}" for kind, removed in removed_parameters.items() if removed)


def _kinds(report: BuildReport, cells: int) -> Table:
    """Draw one bar for each kind, as a share of the parent's parameters."""
    parent = report.stage("parent")
    total = parent.parameters if parent and parent.parameters else sum(report.removed_parameters.values())
    kinds = kinds_of(report.removed_parameters)
    largest = max(kinds.values())
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=LABEL, no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    for kind, removed in sorted(kinds.items(), key=lambda item: (-item[1], item[0])):
        if removed:
            share = f"{percent(removed / total)} of parent"
            table.add_row(Text(clean(kind)), bar(removed / largest, cells), count(removed), share)
    return table


def _layers(report: BuildReport) -> Text | None:
    """Draw the FFN neurons, experts and KV groups kept by each layer; a removed layer is marked in all rows."""
    before, after = report.shape_before, report.shape_after
    rows = kept_units(report)
    if not rows:
        return None
    text = Text()
    for part in chunks(len(rows[0].kept)):
        text.append("layer".ljust(LABEL + 2) + ruler(part.start, len(part)) + "\n", style="dim")
        for units in rows:
            text.append(units.name.ljust(LABEL + 2), style="dim")
            for char in columns(units.kept[part.start : part.stop], units.full):
                text.append(char, style="red" if char == REMOVED else "cyan")
            text.append(f"  {units.words}\n", style="dim")
    removed = [str(layer) for layer, kept in enumerate(rows[0].kept) if kept == 0]
    text.append(
        f"layers {after.layers} of {before.layers}"
        + (f", removed ({REMOVED}): {', '.join(removed)}" if removed else "")
    )
    if after.vocab_size != before.vocab_size:
        text.append(f"; vocabulary {after.vocab_size:,} of {before.vocab_size:,} tokens")
    return text


def training_table(report: BuildReport) -> Table | None:
    """Draw one row for each trained stage: recipe, tokens, steps, learning rate, best step, and the dev loss curve."""
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=LABEL, no_wrap=True)
    table.add_column(overflow="fold")
    for stage in report.stages:
        if stage.training:
            table.add_row(Text(stage_title(stage.stage), style="bold"), _training(stage.training))
    return table if table.row_count else None


def _training(training: Training) -> Text:
    """Describe one training run."""
    text = Text(clean(training.recipe))
    text.append(
        f"\n{count(training.tokens)} tokens, {training.steps:,} steps, learning rate {training.learning_rate:.2g}, "
        f"best step {training.best_step:,}, {duration(training.seconds)}",
        style="dim",
    )
    losses = [loss for _, loss in training.dev_losses]
    if len(losses) > 1:
        text.append(f"\ndev loss {losses[0]:.3f} {sparkline(losses)} {min(losses):.3f} at best", style="dim")
    return text
