"""The controls of a build: the parent and the tuned parent, which every result is paired with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minigpt.evaluation import ItemScores, summarize
from minigpt.pipeline.measure import Measurement
from minigpt.pipeline.run import SavedModel
from minigpt.types import StageReport, Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The models that a specialist is compared with.

    Attributes:
        parent: items of the parent.
        tuned: items of the tuned parent; None where it was left out.
        stages: their stages of the report.
        source: the model that is pruned and taught from: the tuned parent, or the parent where there is none.
        seed: of the bootstrap.
    """

    parent: ItemScores
    tuned: ItemScores | None
    stages: tuple[StageReport, ...]
    source: SavedModel
    seed: int


def controls_of(
    parent: Measurement,
    source: SavedModel,
    *,
    seed: int,
    tuned: Measurement | None = None,
    tuning: Training | None = None,
    tuning_seconds: float = 0.0,
) -> Controls:
    """Put the controls together and their metrics into their stages.

    Args:
        parent: of the parent.
        source: the model that is pruned and taught from.
        seed: of the bootstrap.
        tuned: of the tuned parent, if there is one.
        tuning: how it was tuned.
        tuning_seconds: time that the tuning took.
    """
    stages = [replace(parent.report, metrics=summarize(parent.scores, seed=seed))]
    if tuned is not None:
        stages.append(
            replace(
                tuned.report,
                metrics=summarize(tuned.scores, parent=parent.scores, seed=seed),
                seconds=tuned.report.seconds + tuning_seconds,
                training=tuning,
            )
        )
    return Controls(
        parent=parent.scores,
        tuned=tuned.scores if tuned is not None else None,
        stages=tuple(stages),
        source=source,
        seed=seed,
    )


def compared(
    controls: Controls,
    measurement: Measurement,
    *,
    same_vocabulary: bool,
    seconds: float = 0.0,
    training: Training | None = None,
) -> StageReport:
    """The stage of a pruned model with its metrics and the differences to both controls.

    Args:
        controls: the models to pair with.
        measurement: of the pruned model.
        same_vocabulary: whether it has the parent's tokens; token perplexity is paired only then.
        seconds: time that making the model took, besides measuring it.
        training: how it was trained, if it was.
    """
    scores, seed = measurement.scores, controls.seed
    to_parent = summarize(scores, parent=controls.parent, seed=seed)
    to_tuned = summarize(scores, parent=controls.tuned, seed=seed) if controls.tuned is not None else to_parent
    metrics = []
    for ours, theirs in zip(to_parent, to_tuned, strict=True):
        comparable = same_vocabulary or ours.metric != "token_perplexity"
        metrics.append(
            replace(
                ours,
                paired_difference_vs_parent=ours.paired_difference_vs_parent if comparable else None,
                paired_difference_vs_tuned=theirs.paired_difference_vs_parent
                if comparable and controls.tuned is not None
                else None,
            )
        )
    report = measurement.report
    return replace(report, metrics=tuple(metrics), training=training, seconds=report.seconds + seconds)
