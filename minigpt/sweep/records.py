"""Records of a sweep's results: plain data that `--json` prints and from which page and pictures are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from minigpt.results import Interval, StageName


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric of one task at one point; `ratio` is the ratio to the parent and exists for bits per byte only."""

    stage: StageName
    task: str
    metric: str
    value: Interval
    n: int
    chance: float | None = None
    ratio: Interval | None = None
    difference: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of points.jsonl: a finished point. `report` is the path of its report from the sweep's folder."""

    id: str
    key: str
    domain: str
    method: str
    size: float
    seed: int
    healing: str
    parameters: int
    kept: float
    seconds: float
    report: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Average over seeds of one method at one size and stage, taken item by item before the intervals.

    Attributes:
        domain: Domain of the sweep.
        method: Method that ranks the units.
        size: Target size as a fraction of the parent's parameters.
        stage: Stage of the models.
        parameters: Mean number of parameters.
        kept: Mean number of parameters as a fraction of the parent's.
        layers_removed: Fraction of the layers that was removed.
        only_layers: Whether nothing but whole layers was removed.
        points: Ids of the points that were averaged.
        spread: Bits per byte of each point, seed by seed.
        scores: Metrics of all tasks.
    """

    domain: str
    method: str
    size: float
    stage: StageName
    parameters: int
    kept: float
    layers_removed: float
    only_layers: bool
    points: tuple[str, ...]
    spread: tuple[float, ...]
    scores: tuple[Score, ...]

    @property
    def name(self) -> str:
        """Method and target size, e.g. `flap at 0.75`."""
        return f"{self.method} at {self.size:g}"

    def score(self, task: str, metric: str) -> Score | None:
        """Find the score of a task and metric; None if it was not measured."""
        return next((score for score in self.scores if (score.task, score.metric) == (task, metric)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pareto:
    """Cells worth having, by paired intervals over documents (bits per byte of the domain).

    All values are positions in `DomainSweep.cells`.

    Attributes:
        front: Cells for which no other cell, at most 1 % larger, is significantly better.
        smallest: The smallest cell that is not significantly worse than the `parent`, the `parent_tuned` and the `best`
            cell of the sweep. None where there is no such cell; empty with too few documents for verdicts.
    """

    front: tuple[int, ...]
    smallest: Mapping[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSweep:
    """Results of a sweep on one domain.

    Attributes:
        domain: Name of the domain.
        parameters: Parameters of the parent.
        controls: Scores of the parent and of the tuned parent.
        cells: Averages over seeds, one for each method, size and stage.
        pareto: Cells worth having.
        rows: Finished points.
        skipped: Reason for each point that has no legal plan.
        block_influence: Block Influence of each layer of the model that was pruned, [layers]
            (:class:`minigpt.transformer.stats.ActivationStats`).
        angular: Angular distances between the layer inputs of that model, [layers + 1][layers + 1].
    """

    domain: str
    parameters: int
    controls: tuple[Score, ...]
    cells: tuple[Cell, ...]
    pareto: Pareto
    rows: tuple[Row, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    block_influence: tuple[float, ...] = ()
    angular: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """Results of a whole sweep; `files` lists the drawn files by their paths from the sweep's folder."""

    base_model: str
    base_precision: str
    preset: str
    healing: str
    device: str
    versions: Mapping[str, str]
    domains: tuple[DomainSweep, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """One specialist on one domain, compared with its own parent."""

    model: str
    domain: str
    own: bool
    value: Interval
    parent: float
    ratio: Interval
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Bits per byte of every specialist on every domain, as ratios to its parent on the same held-out documents."""

    models: tuple[str, ...]
    domains: tuple[str, ...]
    cells: tuple[MatrixCell, ...]
    files: tuple[str, ...] = ()

    def at(self, model: str, domain: str) -> MatrixCell:
        """Find the cell of a model and a domain."""
        return next(cell for cell in self.cells if (cell.model, cell.domain) == (model, domain))
