"""Notes of a report about its controls: how the tuned parent was found, the noise of a run, and the distilled twin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minigpt.healing.tune import best_of
from minigpt.pipeline.groundwork import Groundwork
from minigpt.pipeline.healing import LEFT_OUT
from minigpt.pipeline.repeats import Repeat
from minigpt.report.figures import HEADLINE, metric_of
from minigpt.report.tasks import GENERAL, OTHER
from minigpt.results import Interval, MetricResult, StageReport


def control_notes(ground: Groundwork, stages: Sequence[StageReport]) -> list[str]:
    """Note what a reader must know of the controls.

    Args:
        ground: the tuned parent and its repeats.
        stages: all stages of the report.
    """
    domain = ground.corpora.domain.domain
    lines = []
    if ground.tuned is not None:
        lines += noise_note(ground.repeats, best_of(ground.tuned.attempts).loss, stages, domain)
    lines += [*tuned_note(stages, domain), *twin_note(stages, domain), *worse_note(stages, domain)]
    return [*lines, *left_out_note(stages)]


def noise_note(repeats: Sequence[Repeat], loss: float, stages: Sequence[StageReport], domain: str) -> list[str]:
    """Note how much a tuned parent differs from run to run, and what follows for the ratio to it.

    Args:
        repeats: tuned parents with other seeds.
        loss: dev loss of the tuned parent.
        stages: all stages of the report.
        domain: name of the domain.
    """
    if not repeats:
        return []
    losses = [loss, *(repeat.attempt.loss for repeat in repeats)]
    line = (
        f"The tuned parent was trained with {len(losses)} seeds: dev loss {min(losses):.4f} to {max(losses):.4f} bits "
        "per byte. The intervals of this report do not hold this noise."
    )
    first, final = (metric_of(_stage(stages, name), domain, HEADLINE) for name in ("parent_tuned", "healed"))
    if first is not None and final is not None:
        tuned = [first.value, *(repeat.bits[domain] for repeat in repeats)]
        ratios = [final.value / bits for bits in tuned]
        line += f" Against each of them the specialist needs {min(ratios):.4f} to {max(ratios):.4f} times the bits."
    return [line]


def tuned_note(stages: Sequence[StageReport], domain: str) -> list[str]:
    """Note what the tuned parent itself gained and forgot: its ratios to the parent on every kind of text."""
    parts = [f"{ratio:.3f} on {task}" for task, ratio, _ in _ratios(stages, domain, "parent_tuned", "parent")]
    if not parts:
        return []
    return [f"The tuned parent against the parent, bits per byte: {', '.join(parts)} (above 1: it forgot)."]


def twin_note(stages: Sequence[StageReport], domain: str) -> list[str]:
    """Note the price of pruning alone: the specialist against the distilled twin, on every kind of text."""
    parts = [
        f"{ratio:.3f} times the bits per byte on {task}{_evidence(final.paired_difference_vs_distilled)}"
        for task, ratio, final in _ratios(stages, domain, "healed", "parent_distilled")
    ]
    if not parts:
        return []
    return [
        "Against the distilled twin (the unpruned parent with the specialist's own recipe, teacher and text) the "
        f"specialist needs {', '.join(parts)}: this ratio is the price of pruning alone"
        f"{', and of the healing that the specialist went without' if _went_without(_stage(stages, 'healed')) else ''}."
    ]


def _ratios(
    stages: Sequence[StageReport], domain: str, name: str, control: str
) -> Iterator[tuple[str, float, MetricResult]]:
    """Yield task, ratio of bits per byte and result of a stage against a control, for every kind of text."""
    for task in (domain, f"{domain}/{OTHER}", GENERAL, f"{GENERAL}/{OTHER}"):
        ours, other = (metric_of(_stage(stages, stage), task, HEADLINE) for stage in (name, control))
        if ours is not None and other is not None and other.value > 0:
            yield task, ours.value / other.value, ours


def worse_note(stages: Sequence[StageReport], domain: str) -> list[str]:
    """Warn of a healed model that needs more bits than the pruned one on the domain's measured text.

    The weights are those with the lowest dev loss, so this happens where dev and measured text differ.
    """
    pruned, healed = (_stage(stages, name) for name in ("pruned", "healed"))
    before, after = (metric_of(stage, domain, HEADLINE) if stage else None for stage in (pruned, healed))
    if pruned is None or before is None or after is None or _went_without(healed):
        return []
    first, last = before.paired_difference_vs_parent, after.paired_difference_vs_parent
    change = after.value - before.value
    if pruned.share < 1:  # measured on a part of the text, so only the differences to the parent compare
        change = last.value - first.value if first is not None and last is not None else 0.0
    if change <= 0:
        return []
    return [
        f"Healing made the model worse on {domain} text that is measured, by {change:.4f} bits per byte, though not on "
        "dev text: do not use it before you know why (other text, too high a learning rate)."
    ]


def left_out_note(stages: Sequence[StageReport]) -> list[str]:
    """Note that healing was left out, where there was nothing to learn."""
    healed = _stage(stages, "healed")
    if healed is None or healed.training is None or LEFT_OUT not in healed.training.recipe:
        return []
    return [
        "Healing was left out, as only tokens were removed: over those that it has, the specialist gives the "
        "probabilities of the model that would have taught it."
    ]


def _went_without(stage: StageReport | None) -> bool:
    """Say whether the record of a stage's training has no step."""
    return stage is not None and stage.training is not None and not stage.training.steps


def _stage(stages: Sequence[StageReport], name: str) -> StageReport | None:
    """Find a stage by its name; None where it was left out."""
    return next((stage for stage in stages if stage.stage == name), None)


def _evidence(paired: Interval | None) -> str:
    """Write the interval of a paired difference."""
    return "" if paired is None else f" (paired 95 % difference {paired.low:.4f} to {paired.high:.4f})"
