"""Coverage of 95 % intervals with few documents: how often they hold the truth, by kind of interval.

A population of documents is drawn from again and again, an interval is made of each sample, and it is counted how often
it holds the population's own figure. Populations are made up (document lengths and gains from known distributions), or
are the documents of a build's own item scores, which then stand for a population.

    python benchmarks/interval_coverage.py [--build runs/medical] [--trials 2000] [--sizes 20 24 48]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt.evaluation import load_scores
from minigpt.evaluation.intervals import around, effective_number, half_width, influences, t_quantile
from minigpt.evaluation.ratios import Array
from minigpt.results import Interval

RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Population:
    """Documents that stand for all documents: bits of two models and bytes, [documents]."""

    name: str
    parent: Array
    ours: Array
    sizes: Array

    @property
    def difference(self) -> float:
        """The true paired difference of bits per byte."""
        return float((self.ours.sum() - self.parent.sum()) / self.sizes.sum())

    @property
    def value(self) -> float:
        """The true bits per byte of our model."""
        return float(self.ours.sum() / self.sizes.sum())


def made_up(name: str, spread: float, *, skew: bool = False, by_length: float = 0.0, seed: int = 0) -> Population:
    """Make a population of 2,000 documents.

    Args:
        name: for the table.
        spread: standard deviation of the logarithm of a document's length.
        skew: whether a few documents gain far more than the others.
        by_length: how much more a document gains for each doubling of its length, in bits per byte.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    length = generator.normal(7.5, spread, 2000)
    rate = np.exp(generator.normal(-0.2, 0.25, 2000))
    noise = 0.06 - np.exp(generator.normal(-3, 0.8, 2000)) if skew else generator.normal(0, 0.1, 2000)
    gain = noise - 0.08 - by_length * (length - 7.5) / np.log(2)
    sizes = np.exp(length)
    return Population(name=name, parent=rate * sizes, ours=(rate + gain) * sizes, sizes=sizes)


def of_build(folder: Path) -> list[Population]:
    """Take the documents of each text of a build as a population, as they are and with capped lengths."""
    files = (folder / "work" / f"measured_{stage}" / "scores.json" for stage in ("parent", "healed"))
    parent, ours = (load_scores(file) for file in files)
    populations = []
    for task, items in ours.texts.items():
        columns = (parent.texts[task].bits, items.bits, items.bytes)
        populations.append(Population(task, *(np.asarray(column, dtype=np.float64) for column in columns)))
        populations.append(capped(populations[-1]))
    return populations


def capped(population: Population, share: float = 0.1) -> Population:
    """Shorten documents until none has more than a share of the bytes, as measuring does."""
    sizes = population.sizes.copy()
    while sizes.max() > 1.001 * share * sizes.sum():
        sizes = np.minimum(sizes, share * sizes.sum())
    left = sizes / population.sizes
    return Population(
        name=f"{population.name}, at most {share:.0%} a document",
        parent=left * population.parent,
        ours=left * population.ours,
        sizes=sizes,
    )


def percentile(bits: Array, sizes: Array, seed: int) -> Interval:
    """Bootstrap percentiles (Efron 1979), which reports had before."""
    drawn = np.random.default_rng(seed).integers(len(sizes), size=(RESAMPLES, len(sizes)))
    low, high = np.percentile(bits[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5])
    return Interval(value=float(bits.sum() / sizes.sum()), low=float(low), high=float(high))


def studentised(bits: Array, sizes: Array, seed: int) -> Interval:
    """Symmetric bootstrap-t (Hall 1988): resampled quotients of error and standard error."""
    drawn = np.random.default_rng(seed).integers(len(sizes), size=(RESAMPLES, len(sizes)))
    ratio, own = _with_error(bits[None], sizes[None])
    ratios, errors = _with_error(bits[drawn], sizes[drawn])
    quotients = np.abs(ratios - ratio) / np.maximum(errors, 1e-12)
    return around(float(ratio[0]), float(np.percentile(quotients, 95) * own[0]))


def _with_error(bits: Array, sizes: Array) -> tuple[Array, Array]:
    """Ratios of sums and their standard errors by the residuals, of each row."""
    ratios = bits.sum(1) / sizes.sum(1)
    residuals = bits - ratios[:, None] * sizes
    count = sizes.shape[1]
    return ratios, np.sqrt(count / (count - 1) * np.square(residuals).sum(1)) / sizes.sum(1)


def plain_t(bits: Array, sizes: Array, _seed: int) -> Interval:
    """Student's t of the residuals with n - 1 degrees of freedom."""
    ratio, error = _with_error(bits[None], sizes[None])
    return around(float(ratio[0]), t_quantile(len(sizes) - 1) * float(error[0]))


def jackknife(bits: Array, sizes: Array, _seed: int) -> Interval:
    """The interval of reports: jackknife, t with the effective number of documents less one."""
    width = half_width(influences(bits, sizes), effective_number(sizes))
    return around(float(bits.sum() / sizes.sum()), width)


KINDS: Mapping[str, Callable[[Array, Array, int], Interval]] = {
    "percentile": percentile,
    "t, n - 1": plain_t,
    "bootstrap-t": studentised,
    "jackknife t, effective n - 1": jackknife,
}


def coverage(population: Population, count: int, trials: int, *, is_paired: bool, seed: int = 1) -> dict[str, float]:
    """Share of samples of `count` documents in which each kind of interval holds the truth.

    Args:
        population: what is drawn from, with replacement.
        count: documents of a sample.
        trials: number of samples.
        is_paired: the difference of the two models rather than the figure of ours.
        seed: of the samples.
    """
    generator = np.random.default_rng(seed)
    truth = population.difference if is_paired else population.value
    hits = dict.fromkeys(KINDS, 0)
    for trial in range(trials):
        drawn = generator.integers(len(population.sizes), size=count)
        bits = population.ours[drawn] - (population.parent[drawn] if is_paired else 0.0)
        for name, make in KINDS.items():
            bounds = make(bits, population.sizes[drawn], trial)
            hits[name] += bounds.low <= truth <= bounds.high
    return {name: hit / trials for name, hit in hits.items()}


def populations_of(builds: Sequence[Path]) -> list[Population]:
    """All populations: even, uneven and skewed ones that are made up, and those of builds."""
    return [
        made_up("even lengths", 0.5, seed=2),
        made_up("uneven lengths", 0.9, seed=3),
        made_up("uneven, long documents gain more", 0.9, by_length=0.02, seed=5),
        made_up("even, few gain most", 0.5, skew=True, seed=4),
        *(population for folder in builds for population in of_build(folder)),
    ]


def main() -> None:
    """Print a Markdown table, one row for each population and sample size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, nargs="*", default=[], help="build folders with their work folder")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 24, 48])
    options = parser.parse_args()
    print("| population | effective / all | n | figure |", " | ".join(KINDS), "|")
    print("|---|---|---|---|" + "---|" * len(KINDS))
    for population in populations_of(options.build):
        effective = f"{effective_number(population.sizes):.0f} / {len(population.sizes)}"
        for count in options.sizes:
            for is_paired in (False, True):
                shares = coverage(population, count, options.trials, is_paired=is_paired)
                cells = " | ".join(f"{share:.1%}" for share in shares.values())
                figure = "difference" if is_paired else "value"
                print(f"| {population.name} | {effective} | {count} | {figure} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
