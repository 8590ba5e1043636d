"""All matrices of a model, those with the same inputs at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from minigpt.exporting.rounding.rounding import Rounded, compensated, nearest, row_errors
from minigpt.progress import SILENT, Reporter


def round_together(
    weights: Mapping[str, Tensor], grams: Mapping[str, Tensor], *, reporter: Reporter = SILENT
) -> tuple[dict[str, Rounded], float]:
    """:func:`compensated` for every matrix; those that share a Gram matrix share its factor and every step.

    Args:
        weights: matrices [rows, columns] by name.
        grams: the Gram matrix of each one's inputs; names whose value is one and the same tensor go together.
        reporter: told about progress.

    Returns:
        The rounded matrices by name, and what the error of the outputs on the calibration text (each group's over its
        squared outputs) is as a fraction of that of plain rounding.
    """
    groups: dict[int, list[str]] = {}
    for name in weights:
        groups.setdefault(id(grams[name]), []).append(name)
    found: dict[str, Rounded] = {}
    error = plain = 0.0
    with one_thread():
        for names in reporter.track(groups.values(), title="Rounding to 4 bits", total=len(groups)):
            gram = grams[names[0]]
            whole = torch.cat([weights[name] for name in names]).to(gram.device, torch.float32)
            rounded = compensated(whole, gram)
            found |= zip(names, rounded.split([len(weights[name]) for name in names]), strict=True)
            outputs = ((whole @ gram) * whole).sum().clamp_min(1e-30)
            error += float(row_errors(whole, rounded, gram).sum() / outputs)
            plain += float(row_errors(whole, nearest(whole), gram).sum() / outputs)
    return found, error / max(plain, 1e-30)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch's CPU operators in one thread.

    Error compensation is thousands of small steps one after the other. Shared between threads each of them waits for
    the slowest, and where other work holds a core that wait is a time slice of the system: minutes in all.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
