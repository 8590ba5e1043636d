"""Second measurement of a finished build: its model on the same text, compared with the numbers of its report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from minigpt import assets, report
from minigpt.errors import AssetError
from minigpt.evaluation import summarize
from minigpt.metrics import ANSWER_METRICS
from minigpt.models.find import find_model
from minigpt.pipeline.finish import task_fingerprints
from minigpt.pipeline.groundwork import read
from minigpt.pipeline.measure import scores_of
from minigpt.pipeline.recipe import read_recipe
from minigpt.pipeline.run import load, resolve_run
from minigpt.progress import SILENT, Reporter
from minigpt.recipes import RECIPE
from minigpt.report.figures import final_stage
from minigpt.results import MetricResult

# Relative difference that other devices and versions of libraries may make.
TOLERANCE = 1e-3
# Questions whose answer may change for the same reason.
QUESTIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """One number of a report, and the same measured again.

    Attributes:
        task: text or questions.
        metric: name of the metric.
        reported: value in the report.
        measured: value that was measured now.
        agrees: whether they differ by no more than another device or version may make.
    """

    task: str
    metric: str
    reported: float
    measured: float
    agrees: bool


def rescore(folder: Path, *, device: str | None = None, reporter: Reporter = SILENT) -> tuple[Rescored, ...]:
    """Measure the model of a finished build again on the text that its report is about.

    Tasks that are a part of another one are left out, because they follow from it.

    Args:
        folder: the build folder, with its recipe.
        device: a torch device (None: that of the recipe).
        reporter: told about progress.

    Raises:
        AssetError: the build left no recipe, or its text is no longer the same.
        MiniGPTError: the model or the text cannot be read.
    """
    if not (folder / RECIPE).is_file():
        raise AssetError(f"{folder} has no {RECIPE}, so its text cannot be read again. Use minigpt eval instead.")
    finished, options = report.load(folder), read_recipe(folder / RECIPE)
    if device is not None:
        options = replace(options, device=device)
    with TemporaryDirectory(prefix="minigpt-") as scratch:
        run = resolve_run(options.domains[0], options, reporter, folder=Path(scratch))
        _corpora, suite = read(run)
        known, now = finished.fingerprints, task_fingerprints(suite)
        if changed := [task for task, digest in now.items() if known.get(task, digest) != digest]:
            raise AssetError(f"The text of {', '.join(changed)} is no longer that of the build {folder}: build again.")
        path = find_model(str(folder), reporter=reporter).path
        scores = scores_of(run, suite, load(run, path), assets.load_tokenizer(path))
    measured = {(metric.task, metric.metric): metric for metric in summarize(scores)}
    return tuple(
        _compare(metric, measured[metric.task, metric.metric])
        for metric in final_stage(finished).metrics
        if (metric.task, metric.metric) in measured
    )


def _compare(reported: MetricResult, measured: MetricResult) -> Rescored:
    """Compare two values of one metric."""
    allowed = TOLERANCE * abs(reported.value)
    if reported.chance is not None or reported.metric in ANSWER_METRICS:
        allowed = QUESTIONS / max(1, reported.n)
    return Rescored(
        task=reported.task,
        metric=reported.metric,
        reported=reported.value,
        measured=measured.value,
        agrees=abs(measured.value - reported.value) <= allowed,
    )
