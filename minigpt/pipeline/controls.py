"""Controls of a build: the parent and the tuned parent, with which every result is compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minigpt.evaluation import ItemScores, summarize
from minigpt.evaluation.part import items_of_part
from minigpt.pipeline.measure import Measurement
from minigpt.pipeline.run import SavedModel
from minigpt.results import StageReport, Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The models that a specialist is compared with.

    Attributes:
        parent: items of the parent.
        tuned: items of the tuned parent; None where it was left out.
        stages: their stages of the report.
        source: the model that is pruned and that teaches: the tuned parent, or the parent where there is none.
        seed: seed of the bootstrap.
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
    """Combine the measured controls, with the metrics of their stages.

    Args:
        parent: measurement of the parent.
        source: the model that is pruned and that teaches.
        seed: seed of the bootstrap.
        tuned: measurement of the tuned parent, if there is one.
        tuning: training record of the tuned parent.
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


def compare_with_controls(
    controls: Controls,
    measurement: Measurement,
    *,
    same_vocabulary: bool,
    seconds: float = 0.0,
    training: Training | None = None,
) -> StageReport:
    """Make the report's stage of a pruned model: its metrics and its differences to both controls.

    A model that was measured on a part of the texts and questions is compared on that part.

    Args:
        controls: the models to compare with.
        measurement: measurement of the pruned model.
        same_vocabulary: whether the model has the parent's tokens; only then is token perplexity compared.
        seconds: time that making the model took, without measuring it.
        training: its training record, if it was trained.
    """
    scores, seed = measurement.scores, controls.seed
    to_parent = summarize(scores, parent=items_of_part(controls.parent, scores), seed=seed)
    to_tuned = to_parent
    if controls.tuned is not None:
        to_tuned = summarize(scores, parent=items_of_part(controls.tuned, scores), seed=seed)
    metrics = []
    for against_parent, against_tuned in zip(to_parent, to_tuned, strict=True):
        comparable = same_vocabulary or against_parent.metric != "token_perplexity"
        metrics.append(
            replace(
                against_parent,
                paired_difference_vs_parent=against_parent.paired_difference_vs_parent if comparable else None,
                paired_difference_vs_tuned=against_tuned.paired_difference_vs_parent
                if comparable and controls.tuned is not None
                else None,
            )
        )
    report = measurement.report
    return replace(report, metrics=tuple(metrics), training=training, seconds=report.seconds + seconds)
