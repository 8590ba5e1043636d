"""Block rounding of the matrices of the decoder layers, for any export format with that four-bit grid.

The embedding, and the head with it, is left to the format: it is the tensor that loses most when it is rounded
(docs/results/deploy.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from minigpt.exporting.formats import BLOCK
from minigpt.exporting.prospects import compensates
from minigpt.exporting.request import ExportRequest, read_corpus
from minigpt.exporting.rounding.blocks import RoundedMatrix, round_nearest
from minigpt.exporting.rounding.matrices import round_matrices
from minigpt.exporting.rounding.model import matrix_names, matrix_of
from minigpt.progress import Reporter
from minigpt.transformer.calibration import calibration_batches
from minigpt.transformer.grams import gram_matrices, matrices_by_input

# Tokens of calibration text that are read.
CALIBRATION_TOKENS = 8192
# Tokens of a window of calibration text.
WINDOW = 256
# Tokens of a batch of calibration text.
BATCH_TOKENS = 1024

# How matrices were rounded, as it stands in the settings of an export's record.
RoundingSettings = dict[str, str | int | float | bool]


def round_layers(
    model: Any, tokenizer: Any, request: ExportRequest, reporter: Reporter, *, every: bool = False
) -> tuple[dict[str, RoundedMatrix], RoundingSettings]:
    """Round the matrices of the decoder layers as the request says.

    A matrix whose rows are no whole number of blocks is left out. Experts share no input that could be measured for all
    of them, and layers with a state are not calibrated: these matrices are rounded to the nearest code.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        request: names the way to round and the domain whose text calibrates it.
        reporter: receives progress.
        every: whether matrices that cannot be compensated are rounded here, too, and not by the format's own writer.

    Returns:
        The rounded matrices by name, see :mod:`minigpt.exporting.rounding.model`, and how they were rounded. There
        `output_error_over_plain_rounding` is the squared error of all outputs on the calibration text, each group's
        over its own squared outputs, as a fraction of the error of plain rounding. `compensated_share` is the share of
        the weights of all matrices of the layers that were rounded with compensation.

    Raises:
        CorpusError: the domain has no calibration text.
        UnsupportedModel: the family is not in the architecture table.
    """
    names = [name for group in matrices_by_input(model, transposed=True).values() for name in group]
    weights = _in_blocks(model, names) if compensates(model.config) else {}
    settings: RoundingSettings = {"rounding": "nearest"}
    if request.rounding == "nearest" or not weights:
        matrices = {name: round_nearest(weight) for name, weight in weights.items()}
    else:
        grams = calibration_grams(model, tokenizer, request, reporter)
        matrices, error_ratio = round_matrices(weights, grams, reporter=reporter)
        settings = {
            "rounding": "compensated",
            "calibration_domain": request.domain,
            "calibration_tokens": CALIBRATION_TOKENS,
            "compensated_share": _share(model, weights),
            "output_error_over_plain_rounding": error_ratio,
        }
    if every:
        others = _in_blocks(model, [name for name in matrix_names(model) if name not in matrices])
        matrices |= {name: round_nearest(weight) for name, weight in others.items()}
    return matrices, settings


def _in_blocks(model: Any, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the named matrices, without those whose rows are no whole number of blocks."""
    weights = ((name, matrix_of(model, name)) for name in names)
    return {name: weight for name, weight in weights if weight.shape[1] % BLOCK == 0}


def _share(model: Any, weights: Mapping[str, Tensor]) -> float:
    """Return the number of these weights as a share of the weights of all matrices of the layers."""
    everything = sum(matrix_of(model, name).numel() for name in matrix_names(model))
    return round(sum(weight.numel() for weight in weights.values()) / max(everything, 1), 4)


def calibration_grams(model: Any, tokenizer: Any, request: ExportRequest, reporter: Reporter) -> Mapping[str, Tensor]:
    """Measure the Gram matrices of the inputs of every matrix on calibration text, never on held-out text."""
    corpus = request.corpus or read_corpus(request, reporter=reporter)
    batches = calibration_batches(
        tokenizer, corpus.calibration, window=WINDOW, tokens=CALIBRATION_TOKENS, batch_tokens=BATCH_TOKENS
    )
    return gram_matrices(model, batches, transposed=True, reporter=reporter)
