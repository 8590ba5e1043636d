"""Gram matrices of the inputs of a model's weight matrices, measured on calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import CorpusError
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import arch_of, decoder_layers
from minigpt.transformer.batches import Batch, run_decoder


def matrices_by_input(model: Any, layer: int | None = None, *, transposed: bool = False) -> dict[str, tuple[str, ...]]:
    """Group the weight matrices of the decoder layers by the input they share.

    Matrices that a layer does not have are left out: those of attention where it carries a state, those of an FFN where
    it has experts. A stacked matrix of experts has no input of its own.

    Args:
        model: a causal language model.
        layer: the only layer whose matrices are grouped (None: all layers).
        transposed: whether matrices that are stored as [inputs, outputs] are grouped, too.

    Returns:
        Parameter names by the name of the module whose input they share.

    Raises:
        UnsupportedModel: the family is not in the architecture table.
    """
    spec, layers = arch_of(model), decoder_layers(model)
    groups = {}
    for index in range(len(layers)) if layer is None else (layer,):
        modules = {path for path, _ in layers[index].named_modules() if path}
        shared = ((spec.query, *spec.key_value), (spec.output,), spec.ffn_rows, (spec.ffn_columns,))
        for names in shared:
            # A matrix that is stored the other way round has no rows of inputs to cut into blocks.
            wanted = [name for name in names if transposed or not spec.is_transposed(name)]
            stored = dict.fromkeys(spec.stored(name) for name in wanted)
            paths = [f"{spec.layers}.{index}.{name}" for name in stored if name in modules]
            if paths:
                groups[paths[0]] = tuple(f"{path}.weight" for path in paths)
    return groups


def gram_matrices(
    model: Any,
    batches: Iterable[Batch],
    *,
    layer: int | None = None,
    run: Callable[[int], object] | None = None,
    transposed: bool = False,
    reporter: Reporter = SILENT,
) -> Mapping[str, Tensor]:
    """Average x x^T over the inputs x that every matrix of the decoder layers receives for text tokens.

    Args:
        model: a causal language model.
        batches: calibration text.
        layer: the only layer whose inputs are measured (None: all layers).
        run: runs what is measured on a batch, by its number (None: the whole decoder).
        transposed: whether inputs of matrices that are stored as [inputs, outputs] are measured, too.
        reporter: receives progress.

    Returns:
        The Gram matrix for each parameter name of :func:`matrices_by_input`, fp32 [columns, columns] on the model's
        device. Matrices with the same input share one tensor.

    Raises:
        CorpusError: the batches hold no text.
        UnsupportedModel: the family is not in the architecture table.
    """
    groups = matrices_by_input(model, layer, transposed=transposed)
    sums = _InputSums()
    with torch.inference_mode(), ExitStack() as stack:
        for name in groups:
            stack.callback(model.get_submodule(name).register_forward_pre_hook(sums.hook(name)).remove)
        for number, batch in enumerate(reporter.track(batches, title="Inputs of every matrix")):
            if batch.tokens:
                sums.rows = (batch.segment_ids != 0).flatten().nonzero().squeeze(1).to(model.device)
                sums.tokens += batch.tokens
                run_decoder(model, batch) if run is None else run(number)
    if not sums.tokens:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    means = {name: (total / sums.tokens).clone() for name, total in sums.grams.items()}
    return {matrix: means[name] for name, names in groups.items() for matrix in names}


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Compute the upper Cholesky factor U of H^-1 = U^T U with H = G + damping x mean diagonal x I, in fp32.

    With the order of the columns reversed, H = L L^T, so that U is the inverse of L, reversed back.
    """
    # fp64 does not exist on Apple's GPUs.
    device = gram.device if gram.device.type != "mps" else torch.device("cpu")
    reversed_gram = gram.to(device, torch.float64).flip(0, 1)
    scale = reversed_gram.diagonal().mean().clamp_min(1e-30)
    unit = torch.eye(len(reversed_gram), dtype=torch.float64, device=device)
    lower = torch.linalg.cholesky(reversed_gram + damping * scale * unit)
    factor: Tensor = torch.linalg.solve_triangular(lower, unit, upper=False).flip(0, 1).float()
    return factor


class _InputSums:
    """Running sums of Gram matrices.

    Attributes:
        grams: the sum for each name so far.
        rows: places of the current batch that hold text, not padding.
        tokens: text tokens added so far.
    """

    def __init__(self) -> None:
        self.grams: dict[str, Tensor] = {}
        self.rows = torch.empty(0, dtype=torch.long)
        self.tokens = 0

    def hook(self, name: str) -> Callable[..., None]:
        """Make the pre-hook of a module whose inputs are added under `name`."""

        def record(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            states = args[0].detach().reshape(-1, args[0].shape[-1]).index_select(0, self.rows).float()
            if name not in self.grams:
                self.grams[name] = states.new_zeros(states.shape[1], states.shape[1])
            self.grams[name].addmm_(states.T, states)

        return record
