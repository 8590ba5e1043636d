"""Block rounding of many matrices, those with the same inputs at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from minigpt.exporting.rounding.blocks import RoundedMatrix, round_compensated, round_nearest, row_errors
from minigpt.progress import SILENT, Reporter


def round_matrices(
    weights: Mapping[str, Tensor], grams: Mapping[str, Tensor], *, reporter: Reporter = SILENT
) -> tuple[dict[str, RoundedMatrix], float]:
    """Round every matrix with error compensation, see :func:`round_compensated`.

    Matrices that share a Gram matrix also share its factor and every step.

    Args:
        weights: matrices [rows, columns] by name.
        grams: the Gram matrix of each one's inputs by name; matrices whose value is the same tensor are rounded as one.
        reporter: receives progress.

    Returns:
        The rounded matrices by name, and the squared error of the outputs on the calibration text (each group's over
        its squared outputs) as a fraction of the error of plain rounding.
    """
    groups: dict[int, list[str]] = {}
    for name in weights:
        groups.setdefault(id(grams[name]), []).append(name)
    matrices: dict[str, RoundedMatrix] = {}
    error = plain = 0.0
    with single_thread():
        for names in reporter.track(groups.values(), title="Rounding to 4 bits", total=len(groups)):
            gram = grams[names[0]]
            whole = torch.cat([weights[name] for name in names]).to(gram.device, torch.float32)
            rounded = round_compensated(whole, gram)
            matrices |= zip(names, rounded.split([len(weights[name]) for name in names]), strict=True)
            outputs = ((whole @ gram) * whole).sum().clamp_min(1e-30)
            error += float(row_errors(whole, rounded, gram).sum() / outputs)
            plain += float(row_errors(whole, round_nearest(whole), gram).sum() / outputs)
    return matrices, error / max(plain, 1e-30)


@contextmanager
def single_thread() -> Iterator[None]:
    """Keep torch's CPU operators in one thread.

    Error compensation is thousands of small steps one after the other. If threads shared them, every step would wait
    for the slowest thread. Where other work holds a core, that wait is a whole time slice of the system.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
