"""Q4_0 that costs less than plain rounding: codes chosen on calibration text of the domain, in ggml's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minigpt.export.run import ExportRequest
from minigpt.progress import Reporter

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray
    from torch import Tensor

    from minigpt.quantize import Rounded

CALIBRATION_TOKENS = 4096
WINDOW = 256
BATCH_TOKENS = 1024


def calibration_grams(model: Any, tokenizer: Any, request: ExportRequest, reporter: Reporter) -> Mapping[str, Tensor]:
    """Gram matrices of the inputs of every matrix, on calibration text of `request.domain`; never held-out text."""
    from minigpt.config import load_domain
    from minigpt.corpus import build_corpus
    from minigpt.pipeline.text import calibration_batches
    from minigpt.quantize import gram_matrices

    corpus = build_corpus(load_domain(request.domain), seed=request.seed, reporter=reporter)
    batches = calibration_batches(
        tokenizer, corpus.calibration, window=WINDOW, tokens=CALIBRATION_TOKENS, batch_tokens=BATCH_TOKENS
    )
    return gram_matrices(model, batches, reporter=reporter)


class CompensatedRounding:
    """Encodes matrices with :func:`minigpt.quantize.compensated` and keeps count of what it gains.

    `error` and `plain_error` are the squared errors of all outputs on the calibration text, each matrix's over its
    own squared outputs, for these codes and for plain rounding.
    """

    def __init__(self, grams: Mapping[str, Tensor]) -> None:
        self.grams = grams
        self.error = 0.0
        self.plain_error = 0.0

    def __call__(self, name: str, weight: Tensor) -> NDArray[uint8] | None:
        """Q4_0 bytes of the matrix called `name` in transformers; None for one without statistics."""
        from minigpt.quantize import compensated, nearest, row_errors

        gram = self.grams.get(name)
        if gram is None:
            return None
        weight = weight.to(gram.device)
        found, plain = compensated(weight, gram), nearest(weight)
        outputs = float(((weight @ gram) * weight).sum().clamp_min(1e-30))
        self.error += float(row_errors(weight, found, gram).sum()) / outputs
        self.plain_error += float(row_errors(weight, plain, gram).sum()) / outputs
        return q4_0_bytes(found)


def q4_0_bytes(rounded: Rounded) -> NDArray[uint8]:
    """Bytes as ggml lays them out, [rows, columns / 32 x 18].

    A block is its scale, then 16 bytes with weights 0-15 in the low and 16-31 in the high bits.
    """
    import numpy as np

    codes = rounded.codes.cpu().numpy().reshape(len(rounded.codes), -1, 2, 16)
    scales = rounded.scales.cpu().numpy().view(np.uint8).reshape(*codes.shape[:2], 2)
    packed = codes[:, :, 0] | (codes[:, :, 1] << np.uint8(4))
    layout: NDArray[uint8] = np.concatenate([scales, packed], axis=-1).reshape(len(codes), -1)
    return layout
