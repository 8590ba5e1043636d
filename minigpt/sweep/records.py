"""What a sweep found, as plain data: what `--json` prints and the page and pictures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from minigpt.types import Interval, StageName


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric of one task at one point; `ratio` is to the parent and for bits per byte only."""

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
    """A line of points.jsonl: one finished build. `report` is its path from the sweep's folder."""

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
    """A method at a size and stage, averaged over seeds before the bootstrap.

    `kept` is the fraction of parameters it has, `layers_removed` the fraction of layers it lost, `only_layers` whether
    it lost nothing else; `points` names the builds behind it and `spread` their bits per byte, seed by seed.
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
        """Method and size asked for, e.g. `flap at 0.75`."""
        return f"{self.method} at {self.size:g}"

    def score(self, task: str, metric: str) -> Score | None:
        """One of the scores, or None."""
        return next((each for each in self.scores if (each.task, each.metric) == (task, metric)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pareto:
    """Which cells are worth having, by paired bootstrap over documents (bits per byte of the domain).

    `front` are the cells to which no other, at most 1 % larger, is significantly better. `smallest` names the smallest
    cell that is not significantly worse than the `parent`, the `parent_tuned` and the `best` cell of the sweep; None
    where there is none, empty with too few documents for verdicts. Values are positions in `Swept.cells`.
    """

    front: tuple[int, ...]
    smallest: Mapping[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """One domain of a sweep.

    `controls` are the scores of parent and tuned parent, `skipped` maps points without a legal plan to the reason.
    `block_influence` [L] and `angular` [L+1][L+1] are those of the model that was pruned
    (:class:`minigpt.transformer.stats.ActivationStats`).
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
    """A whole sweep; `files` lists what was drawn, from the sweep's folder."""

    base_model: str
    base_precision: str
    preset: str
    healing: str
    device: str
    versions: Mapping[str, str]
    domains: tuple[Swept, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """One specialist on one domain, against the parent it was made from."""

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
        """The cell of a model and a domain."""
        return next(cell for cell in self.cells if (cell.model, cell.domain) == (model, domain))


DomainSweep = Swept
