"""Cost model of a device: seconds of a token and memory of a process, fitted to what was measured there.

Both are sums of non-negative parts. A token takes the same time for everything that does not depend on the model, time
for each layer (norms, rotations, many small operators), time for each byte of weights that it reads, in the layers and
in the head, and time for attention over what stands in the cache. A process takes the memory of the program, of the
file (more than once where the runtime repacks weights), of the cache, and of logits. The parts are fitted by
non-negative least squares of relative errors (Lawson and Hanson 1974, chapter 23).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from minigpt.errors import ConfigError
from minigpt.fitting.profile import Profile, Sample, Work, at_speed, covers, usual_speed

# Fewest samples of a runtime and precision from which parts are fitted.
FEWEST = 3
# Least logarithm of the ratio of two expected speeds, and the steepest correction between rehearsals on both sides of a
# limit: nearer and steeper ones say nothing.
LEAST_RISE, STEEPEST = 1e-4, 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """The fitted parts of one runtime and precision.

    Attributes:
        runtime: the runtime.
        precision: the precision.
        seconds: seconds of a token for each of :func:`token_parts`.
        memory: bytes of memory for each of :func:`memory_parts`; None where memory was not measured.
        parent: tokens a second of the uncut parent.
        speed_at: a speed by the fitted parts,
        speed_scale: what it is corrected to, and
        speed_power: power of speeds divided by it: with these three, rehearsals are met exactly.
        memory_scale: factor on the memory that the last rehearsal showed.
    """

    runtime: str
    precision: str
    seconds: tuple[float, ...]
    memory: tuple[float, ...] | None
    parent: float
    speed_at: float = 1.0
    speed_scale: float = 1.0
    speed_power: float = 1.0
    memory_scale: float = 1.0

    def speed(self, work: Work) -> float:
        """Predict the tokens a second of a model while decoding."""
        return self.speed_scale * math.pow(token_speed(self.seconds, work) / self.speed_at, self.speed_power)

    def peak(self, work: Work) -> float | None:
        """Predict the peak of resident memory in bytes; None where memory was not measured."""
        if self.memory is None:
            return None
        parts = zip(self.memory, memory_parts(work), strict=True)
        return self.memory_scale * sum(part * amount for part, amount in parts)


def token_parts(work: Work) -> tuple[float, ...]:
    """List the amounts that a token's seconds grow with: one, layers, bytes of layers, bytes of head, cache."""
    return (1.0, float(work.layers), work.matrices, work.head, work.cache)


def token_speed(seconds: Sequence[float], work: Work) -> float:
    """Return the tokens a second of a model by the seconds of each of :func:`token_parts`."""
    return 1 / sum(part * amount for part, amount in zip(seconds, token_parts(work), strict=True))


def memory_parts(work: Work) -> tuple[float, ...]:
    """List the amounts that memory grows with: one, bytes of the file, cache, rows of the logits."""
    return (1.0, work.file, work.cache, float(work.rows))


def fit_costs(profile: Profile, runtime: str, precision: str) -> CostModel:
    """Fit the parts to the samples of one runtime and precision.

    Raises:
        ConfigError: the profile holds too few samples of them.
    """
    samples = profile.of(runtime, precision)
    if len(samples) < FEWEST:
        raise ConfigError(
            f"The device's profile holds {len(samples)} models of {runtime} in {precision}, and {FEWEST} are needed; "
            f"measure there again with minigpt bench --profile FILE --runtime {runtime}."
        )
    whole = max(samples, key=lambda sample: sample.work.file)
    parent = usual_speed(samples)
    if parent is not None:
        samples = at_speed(samples, parent)
    peaks = [(memory_parts(item.work), item.memory) for item in samples if item.memory is not None]
    seconds = nonnegative([token_parts(item.work) for item in samples], [1 / item.decode for item in samples])
    return CostModel(
        runtime=runtime,
        precision=precision,
        seconds=seconds,
        memory=nonnegative(*zip(*peaks, strict=True)) if len(peaks) >= FEWEST else None,
        parent=parent or token_speed(seconds, whole.work),
    )


def corrected(model: CostModel, samples: Sequence[Sample], limit: float | None) -> CostModel:
    """Bend a cost model so that it gives what rehearsals showed on both sides of a limit of speed.

    In logarithms, the speeds by the fitted parts are moved on a straight line through the largest rehearsal that meets
    the limit and the fastest that covers it (is nowhere smaller) and does not: what is searched next lies between the
    two. While all are on one side, all speeds are moved by the factor that the rehearsal nearest to the limit shows.

    Args:
        model: the model by its fitted parts.
        samples: rehearsals in its precision, the parent among them, stated at one speed of the parent.
        limit: tokens a second that are wanted at least; None where speed is not limited.
    """
    if not samples:
        return model
    last = samples[-1]
    peak = model.peak(last.work)
    memory = 1.0 if peak is None or last.memory is None else last.memory / peak
    ordered = sorted(samples, key=lambda item: token_speed(model.seconds, item.work))
    low, high = _sides(ordered, ordered[-1].decode if limit is None else limit)
    near = low or high or last
    anchor, power = token_speed(model.seconds, near.work), 1.0
    if low is not None and high is not None:
        rise = math.log(token_speed(model.seconds, high.work) / anchor)
        power = min(math.log(high.decode / low.decode) / max(rise, LEAST_RISE), STEEPEST)
    return replace(
        model,
        speed_at=anchor,
        speed_scale=near.decode,
        speed_power=power,
        memory_scale=model.memory_scale * memory,
    )


def _sides(ordered: Sequence[Sample], limit: float) -> tuple[Sample | None, Sample | None]:
    """Find the rehearsals on both sides of a limit: the fastest that misses it, and the largest that meets it.

    Args:
        ordered: rehearsals in the order of their expected speeds.
        limit: tokens a second that are wanted at least.
    """
    high = next((item for item in ordered if item.decode >= limit), None)
    slow = [item for item in ordered if item.decode < limit and (high is None or covers(item.shape, high.shape))]
    return (slow[-1] if slow else None), high


def nonnegative(rows: Sequence[Sequence[float]], values: Sequence[float]) -> tuple[float, ...]:
    """Solve rows @ x = values for x >= 0 with the least sum of squared relative errors.

    Columns are scaled to equal norms before, so that bytes and layers count alike in the solver's tolerance.
    """
    import numpy as np
    from scipy.optimize import nnls

    matrix, target = np.asarray(rows, dtype=float), np.asarray(values, dtype=float)
    matrix = matrix / target[:, None]
    norms = np.linalg.norm(matrix, axis=0)
    norms[norms == 0] = 1.0
    solution, _ = nnls(matrix / norms, np.ones(len(target)))
    return tuple((solution / norms).tolist())


def largest_error(model: CostModel, samples: Sequence[Sample]) -> float:
    """Return the largest relative error of the speeds of the samples that the parts were fitted to."""
    return max((abs(model.speed(item.work) / item.decode - 1) for item in samples), default=0.0)
