"""Controls of a build: the parent, the tuned parent and the distilled twin, with which every result is compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minigpt.evaluation import ItemScores, summarize
from minigpt.evaluation.part import items_of_part
from minigpt.pipeline.measure import Measurement
from minigpt.pipeline.run import SavedModel
from minigpt.results import Interval, StageReport, Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The models that a specialist is compared with.

    Attributes:
        parent: items of the parent.
        tuned: items of the tuned parent; None where it was left out.
        twin: items of the distilled twin; None where it was left out.
        stages: their stages of the report.
        source: the model that is pruned and that teaches: the tuned parent, or the parent where there is none.
    """

    parent: ItemScores
    tuned: ItemScores | None
    stages: tuple[StageReport, ...]
    source: SavedModel
    twin: ItemScores | None = None


def with_twin(controls: Controls, twin: Measurement, *, seconds: float, training: Training) -> Controls:
    """Add the distilled twin to the controls, compared with the other two.

    Args:
        controls: parent and tuned parent.
        twin: measurement of the twin.
        seconds: time that its training took.
        training: its training record.
    """
    stage = compare_with_controls(controls, twin, same_vocabulary=True, seconds=seconds, training=training)
    return replace(controls, twin=twin.scores, stages=(*controls.stages, stage))


def controls_of(
    parent: Measurement,
    source: SavedModel,
    *,
    tuned: Measurement | None = None,
    tuning: Training | None = None,
    tuning_seconds: float = 0.0,
) -> Controls:
    """Combine the measured controls, with the metrics of their stages.

    Args:
        parent: measurement of the parent.
        source: the model that is pruned and that teaches.
        tuned: measurement of the tuned parent, if there is one.
        tuning: training record of the tuned parent.
        tuning_seconds: time that the tuning took.
    """
    stages = [replace(parent.report, metrics=summarize(parent.scores))]
    if tuned is not None:
        stages.append(
            replace(
                tuned.report,
                metrics=summarize(tuned.scores, parent=parent.scores),
                seconds=tuned.report.seconds + tuning_seconds,
                training=tuning,
            )
        )
    return Controls(
        parent=parent.scores,
        tuned=tuned.scores if tuned is not None else None,
        stages=tuple(stages),
        source=source,
    )


def compare_with_controls(
    controls: Controls,
    measurement: Measurement,
    *,
    same_vocabulary: bool,
    seconds: float = 0.0,
    training: Training | None = None,
) -> StageReport:
    """Make the report's stage of a pruned model: its metrics and its differences to the controls.

    A model that was measured on a part of the texts and questions is compared on that part.

    Args:
        controls: the models to compare with.
        measurement: measurement of the pruned model.
        same_vocabulary: whether the model has the parent's tokens; only then is token perplexity compared.
        seconds: time that making the model took, without measuring it.
        training: its training record, if it was trained.
    """
    scores = measurement.scores
    to_parent = summarize(scores, parent=items_of_part(controls.parent, scores))
    to_tuned, to_twin = _differences(scores, controls.tuned), _differences(scores, controls.twin)
    metrics = []
    for result in to_parent:
        comparable, key = same_vocabulary or result.metric != "token_perplexity", (result.task, result.metric)
        metrics.append(
            replace(
                result,
                paired_difference_vs_parent=result.paired_difference_vs_parent if comparable else None,
                paired_ratio_vs_parent=result.paired_ratio_vs_parent if comparable else None,
                paired_difference_vs_tuned=to_tuned.get(key) if comparable else None,
                paired_difference_vs_distilled=to_twin.get(key) if comparable else None,
            )
        )
    report = measurement.report
    return replace(report, metrics=tuple(metrics), training=training, seconds=report.seconds + seconds)


def _differences(scores: ItemScores, control: ItemScores | None) -> dict[tuple[str, str], Interval | None]:
    """Compute the paired differences of a model to a control by task and metric; none without a control."""
    if control is None:
        return {}
    results = summarize(scores, parent=items_of_part(control, scores))
    return {(result.task, result.metric): result.paired_difference_vs_parent for result in results}
