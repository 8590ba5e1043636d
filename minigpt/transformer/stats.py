"""Activation statistics of neurons, KV groups and layers, collected in one pass over calibration text.

Forward hooks (`recording`) add up sums in fp32 on the model's device and hold at most one batch of activations. Padding
is excluded, and documents of a window do not see each other. The sums of a batch are added up by themselves and then
added to the total, batch by batch, so it does not matter which process of several ran a batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.distributed.group import Group
from minigpt.errors import CorpusError, MiniGPTError
from minigpt.files import atomic_path
from minigpt.parsing import load_json
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import decoder_layers, shape_of
from minigpt.transformer.batches import Batch, apart, block_mask, run_decoder, take_tokens, to_batches
from minigpt.transformer.fused import separate_projections
from minigpt.transformer.portions import in_smaller_batches
from minigpt.transformer.recording import Sums, recording
from minigpt.transformer.turns import in_turns
from minigpt.types import Shape

__all__ = [
    "ActivationStats",
    "Batch",
    "block_mask",
    "collect",
    "load",
    "save",
    "take_tokens",
    "to_batches",
    "token_counts",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStats:
    """Means over the text tokens of the calibration set, as fp32 tensors on the CPU.

    Shapes are given with L layers, I neurons, G KV groups, E experts and A = heads x head size. The input of the down
    projection is the activation of the neurons, and the input of the output projection (o) that of the heads. Where
    layers have experts, neurons stay, and everything about them is zero.

    Attributes:
        tokens: number of text tokens.
        segments: number of pieces of documents.
        gate_abs: [L, I], mean |output| of the gate projection; without a gate, the same as `up_abs`.
        up_abs: [L, I], mean |output| of the up projection.
        act_abs: [L, I], mean |output| of the activation function.
        ffn_abs: [L, I], mean |x| of the input of down.
        ffn_sq: [L, I], mean x^2 of the input of down.
        ffn_mean: [L, I], mean x of the input of down.
        head_abs: [L, G], mean |x| of a group's input of o, over its heads and their features.
        head_sq: [L, G], mean x^2 of a group's input of o, over its heads and their features.
        column_sq: [L, A], mean x^2 of the input of each column of o.
        column_mean: [L, A], mean x of the input of each column of o.
        layer_cos: [L], Block Influence, 1 - E[cos(layer input, layer output)] (ShortGPT, eq. 1).
        angular: [L + 1, L + 1], mean angular distance arccos(cos) / pi between the inputs of layers l and m at the last
            token of each piece (Gromov et al. 2024); index L is the state after the last layer, before the final norm.
        expert_share: [L, E], share of the tokens that go to an expert; E is 0 where there are none.
        expert_gated: [L, E], mean of router weight x norm of the expert's output over the tokens that go to it, REAP's
            saliency (Lasby et al. 2025, arXiv 2510.13999); 0 where no token does.
        expert_loss: [L, E], mean over all tokens of the squared change of the experts' joint output if the expert is
            removed and its tokens go to the next best one (the reconstruction loss of Lu et al. 2024, arXiv
            2402.14800, for one expert).
    """

    tokens: int
    segments: int
    gate_abs: Tensor
    up_abs: Tensor
    act_abs: Tensor
    ffn_abs: Tensor
    ffn_sq: Tensor
    ffn_mean: Tensor
    head_abs: Tensor
    head_sq: Tensor
    column_sq: Tensor
    column_mean: Tensor
    layer_cos: Tensor
    angular: Tensor
    expert_share: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    expert_gated: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    expert_loss: Tensor = field(default_factory=lambda: torch.zeros(0, 0))


@in_smaller_batches
def collect(
    model: Any, batches: Iterable[Batch], *, group: Group | None = None, reporter: Reporter = SILENT
) -> ActivationStats:
    """Run the model once over calibration batches and return the statistics of its units.

    Args:
        model: a causal language model; it runs in evaluation mode and gets its mode back afterwards.
        batches: packed windows of the calibration text.
        group: processes that share the batches; each has the same model and batches, and gets the same result.
        reporter: receives the progress.

    Raises:
        CorpusError: the batches hold no text.
        UnsupportedModel: the family is not in the architecture table.
    """
    layers = decoder_layers(model)
    sums = Sums(len(layers))
    training = model.training
    model.eval()

    def measure(batch: Batch) -> tuple[Tensor, Tensor]:
        sums.start(batch.segment_ids.to(model.device))
        run_decoder(model, batch)
        return sums.finish()

    try:
        with separate_projections(model), torch.inference_mode(), recording(model, dict(enumerate(layers)), sums):
            tracked = apart(model, reporter.track(batches, title="Activation statistics"))
            for of_batch in in_turns(measure, (batch for batch in tracked if batch.tokens), group):
                sums.add_batch(*of_batch)
    finally:
        model.train(training)
    return means_of(sums, shape_of(model))


def means_of(sums: Sums, shape: Shape) -> ActivationStats:
    """Turn the sums of a pass over a model of this shape into means.

    Raises:
        CorpusError: the pass saw no text.
    """
    if (angular := sums.close()) is None:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    ffn, groups = ("gate_abs", "up_abs", "act_abs", "ffn_abs", "ffn_sq", "ffn_mean"), shape.kv_groups
    columns = ("column_abs", "column_sq", "column_mean")
    measured = [name for name in (*ffn, *columns, "layer_cos") if (name, 0) in sums.totals]
    means = {name: sums.stacked(name).clone() for name in measured}
    means = {name: torch.zeros(shape.layers, shape.intermediate_size) for name in ffn} | means
    means = {name: torch.zeros(shape.layers, groups) for name in columns} | means
    if shape.experts:
        means |= _expert_means(sums)
    column_abs = means.pop("column_abs")
    by_group = {
        "head_abs": column_abs.view(sums.layers, groups, -1).mean(-1),
        "head_sq": means["column_sq"].view(sums.layers, groups, -1).mean(-1),
    }
    tokens, segments = sums.counts
    distances = (angular / segments).float().cpu()
    distances.fill_diagonal_(0)
    return ActivationStats(tokens=tokens, segments=segments, angular=distances, **means, **by_group)


def _expert_means(sums: Sums) -> dict[str, Tensor]:
    """Turn the sums of a pass about experts into means."""
    share = sums.stacked("expert_routed")
    gated = sums.stacked("expert_gated")
    return {
        "expert_share": share.clone(),
        "expert_gated": torch.where(share > 0, gated / share.clamp_min(1e-30), torch.zeros(())),
        "expert_loss": sums.stacked("expert_loss").clone(),
    }


def save(stats: ActivationStats, path: Path) -> None:
    """Write the statistics atomically as one safetensors file."""
    from safetensors.torch import save_file

    values = {field.name: getattr(stats, field.name) for field in fields(stats)}
    tensors = {name: value.contiguous() for name, value in values.items() if isinstance(value, Tensor)}
    counts = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"minigpt": json.dumps(counts)})


def load(path: Path) -> ActivationStats:
    """Read statistics that :func:`save` wrote.

    Raises:
        MiniGPTError: the file is missing or is not a statistics file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            counts = load_json(file.metadata()["minigpt"])
            return ActivationStats(**{name: file.get_tensor(name) for name in file.keys()}, **counts)  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MiniGPTError(f"{path} is not a statistics file ({error}); delete it and run the build again.") from None


def token_counts(batches: Iterable[Batch], vocab_size: int) -> Tensor:
    """Count how often each token occurs in the text of the batches, int64 [vocab_size]."""
    counts = torch.zeros(vocab_size, dtype=torch.long)
    for batch in batches:
        counts += torch.bincount(batch.input_ids[batch.segment_ids != 0].cpu(), minlength=vocab_size)
    return counts
