"""Four bits for the matrices of the decoder layers, plainly or chosen on calibration text, for any format of that grid.

The embedding, and the head with it, is left to the format: it is the dearest tensor to round (docs/deploy.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minigpt.exporting.run import ExportRequest
from minigpt.progress import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from minigpt.exporting.rounding import Rounded

CALIBRATION_TOKENS = 8192
WINDOW = 256
BATCH_TOKENS = 1024

Settings = dict[str, str | int | float | bool]


def rounded_matrices(
    model: Any, tokenizer: Any, request: ExportRequest, reporter: Reporter
) -> tuple[dict[str, Rounded], Settings]:
    """Each matrix of the decoder layers by parameter name, and how it was done, for the record.

    A matrix whose rows are no whole number of blocks is left out. `output_error_over_plain_rounding` is the squared
    error of all outputs on the calibration text, each group's over its own squared outputs, as a ratio.
    """
    from minigpt.exporting.rounding import BLOCK, matrices_of, nearest, round_together

    names = [name for group in matrices_of(model).values() for name in group]
    weights = {name: model.get_parameter(name).detach() for name in names}
    weights = {name: weight for name, weight in weights.items() if weight.shape[1] % BLOCK == 0}
    if request.rounding == "nearest":
        return {name: nearest(weight) for name, weight in weights.items()}, {"rounding": "nearest"}
    grams = calibration_grams(model, tokenizer, request, reporter)
    found, gain = round_together(weights, grams, reporter=reporter)
    return found, {
        "rounding": "compensated",
        "calibration_domain": request.domain,
        "calibration_tokens": CALIBRATION_TOKENS,
        "output_error_over_plain_rounding": gain,
    }


def calibration_grams(model: Any, tokenizer: Any, request: ExportRequest, reporter: Reporter) -> Mapping[str, Tensor]:
    """Gram matrices of the inputs of every matrix, on calibration text of `request.domain`; never held-out text."""
    from minigpt.exporting.rounding import gram_matrices
    from minigpt.transformer.calibration import calibration_batches

    batches = calibration_batches(
        tokenizer, request.corpus.calibration, window=WINDOW, tokens=CALIBRATION_TOKENS, batch_tokens=BATCH_TOKENS
    )
    return gram_matrices(model, batches, reporter=reporter)
